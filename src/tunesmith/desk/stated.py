"""Texts that state their own label, as mails and tickets that were exported with their form do: there a model would
learn to read the label, not the text."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import partial

import regex

from tunesmith.desk.clean import SPAN_LOST
from tunesmith.desk.rows import Path, Row
from tunesmith.desk.spans import SpanLost, replaced
from tunesmith.desk.steps import Outcome, excerpt

RULE = "label_in_text"
_NAMES = "labels?|class|category|intent|topic|tags?|department|type|target|answer|sentiment"


@dataclass(frozen=True)
class Stated:
    """Takes the lines out that say `Category: billing` in a row whose label is billing."""

    name: str = "clean: stated labels"

    def apply(self, row: Row) -> Outcome | None:
        texts = row.texts
        labels = [text.text.strip() for text in texts if text.part == "label" and text.text.strip()]
        if not labels:
            return None
        states = _line(tuple(sorted(labels)))
        changed: dict[Path, str] = {}
        for text in texts:
            if text.part != "prompt" or not states.search(text.text):
                continue
            rest = _without(states, text.text)
            if not rest:
                return Outcome(None, (RULE,), excerpt([text.text]))
            changed[text.path] = rest
        if not changed:
            return None
        try:
            values = replaced(row, changed, lambda path: [partial(_without, states)])
        except SpanLost as error:
            return Outcome(None, (RULE, SPAN_LOST), str(error))
        return Outcome(values, (RULE,))


def _without(states: regex.Pattern[str], text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not states.fullmatch(line)).strip()


@functools.lru_cache(4096)
def _line(labels: tuple[str, ...]) -> regex.Pattern[str]:
    """A line that says one of these labels, and that it is one."""
    values = "|".join(map(regex.escape, labels))
    return regex.compile(
        rf"^[\W_]*(?:{_NAMES})\s*(?:is|[:=])\s*[\"'\[]?(?:{values})[\W_]*$",
        regex.IGNORECASE | regex.MULTILINE,
    )
