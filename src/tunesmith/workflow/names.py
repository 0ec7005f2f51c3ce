"""Names of people in a text, as a run of method.type=tag finds them: for scrubbing, which asks for a function."""

from __future__ import annotations

import json
from collections.abc import Callable

from tunesmith.errors import ConfigError
from tunesmith.types import Example, Message, RowRef
from tunesmith.workflow.open import load, unanswered

LABELS = ("PER", "PERSON", "NAME")
OVERLAP = 60
"""Characters that are read twice where a text does not fit the model's context, so that no name is cut."""


def names_of(model: str) -> Callable[[str], list[tuple[int, int]]]:
    """Text -> (start, end) of each name. Raises ConfigError for a model that finds none."""
    opened = load(model)
    head = opened.loaded.head
    if head is None or head.method != "tag":
        what = "writes text" if head is None else f"was trained with method.type={head.method}"
        raise ConfigError(f"scrub.names_model={model} {what}", "a run of method.type=tag", "name its folder")
    known = {tag[2:] for tag in head.labels if tag[:2] in ("B-", "I-")}
    wanted = {label for label in known if label.upper() in LABELS}
    if not wanted:
        raise ConfigError(
            f"scrub.names_model={model} finds {', '.join(sorted(known))}",
            f"one of {', '.join(LABELS)} among them",
            "train it on rows whose spans of names are called so",
        )
    answerer = opened.answerer(1, 1)

    def names(text: str) -> list[tuple[int, int]]:
        found: set[tuple[int, int]] = set()
        at = 0
        while text[at:].strip():
            example = unanswered(Example(RowRef("input", 1), (Message("user", text[at:]),)))
            spans = json.loads(answerer.answer([example]).texts[0])
            found |= {(at + start, at + end) for start, end, label in spans if label in wanted}
            read = max(end for _, end in opened.renderer.offsets(example, opened.context))  # type: ignore[union-attr]
            if at + read >= len(text.rstrip()):
                break
            at += max(1, read - OVERLAP)
        return sorted(found)

    return names
