"""A data row as rewards see it: the prompt as one text, and what else is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import RowError
from tunesmith.types import Example

Floats = NDArray[np.float64]
Part = Callable[[Sequence[Example], Sequence[str]], Floats]
"""(examples, sampled answers), N each -> (N,) numbers, before curve and weight."""


def prompt_text(example: Example) -> str:
    """The user's text where the prompt is one user's turn (or plain text), else every turn as `role: content`."""
    turns = example.prompt
    if not turns:
        return example.text or ""
    if len(turns) == 1 and turns[0].role == "user":
        return turns[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)


def row_of(example: Example) -> dict[str, Any]:
    """What a reward function is told of the row beside prompt and answer."""
    return {
        "reference": example.answer,
        "messages": [turn.for_template() for turn in example.prompt],
        "label": example.label,
        "pair": example.pair,
        "tools": [dict(tool) for tool in example.tools],
        "completions": [{"content": c.message.content, "score": c.score} for c in example.completions],
        "file": example.ref.file,
        "line": example.ref.line,
    }


def reference(example: Example, wanted: str) -> str:
    """The row's own answer; RowError where it has none. wanted: what it should have been, for the error."""
    if not example.answer.strip():
        raise bad_reference(example, "no answer to compare with", wanted)
    return example.answer


def bad_reference(example: Example, got: str, wanted: str) -> RowError:
    return RowError(
        "no reference",
        f"{got}; expected {wanted}",
        file=example.ref.file,
        line=example.ref.line,
        fix="give every row such an answer, or leave out the reward that compares with it",
    )
