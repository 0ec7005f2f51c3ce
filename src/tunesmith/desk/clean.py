"""Cleaning: rules that mend a text, and rules that drop a row. Each acts alone, and is counted by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tunesmith.config.desk import Clean
from tunesmith.desk import mending
from tunesmith.desk.language import language_of
from tunesmith.desk.rows import CONTENT, Path, Row, Text
from tunesmith.desk.spans import SpanLost, replaced
from tunesmith.desk.steps import Outcome, excerpt
from tunesmith.desk.worthless import HALF, is_placeholder, is_refusal, repeated_share

MENDING: dict[str, Callable[[str], str]] = {
    "html": mending.html,
    "encoding": mending.encoding,
    "unicode": mending.unicode,
    "special_tokens": mending.special_tokens,
    "boilerplate": mending.boilerplate,
    "whitespace": mending.whitespace,
}
"""In the order in which they act: an entity may stand for what the next ones mend."""
SPAN_LOST = "span_lost"
"""The rule by which a row is dropped: a text was mended over the border of a span, or nothing of the span is left."""


@dataclass(frozen=True)
class Cleaning:
    config: Clean
    name: str = "clean"

    def apply(self, row: Row) -> Outcome | None:
        changed, rules = self._mended(row.texts)
        try:
            mended = row.but(replaced(row, changed, self._rules)) if changed else row
        except SpanLost as error:
            return Outcome(None, (*rules, SPAN_LOST), str(error))
        fault = self._fault(mended)
        if fault is not None:
            return Outcome(None, (*rules, fault[0]), fault[1])
        return Outcome(mended.values, tuple(rules)) if changed else None

    @cached_property
    def _on(self) -> list[tuple[str, Callable[[str], str]]]:
        said = dict(self.config)
        return [(name, mend) for name, mend in MENDING.items() if said[name]]

    def _rules(self, path: Path) -> list[Callable[[str], str]]:
        """Those that act on the text at a place."""
        inner = _is_part(path)
        return [mending.blanks if name == "whitespace" and inner else rule for name, rule in self._on]

    def _mended(self, texts: list[Text]) -> tuple[dict[Path, str], list[str]]:
        changed: dict[Path, str] = {}
        acted: dict[str, None] = {}
        for text in texts:
            if text.part not in CONTENT or mending.is_plain(text.text):
                continue
            now = text.text
            for name, rule in self._on:
                mend = mending.blanks if name == "whitespace" and _is_part(text.path) else rule
                before, now = now, mend(now)
                if now is not before and now != before:
                    acted[name] = None
            if now is not text.text and now != text.text:
                changed[text.path] = now
        return changed, [name for name in MENDING if name in acted]

    def _fault(self, row: Row) -> tuple[str, str] | None:
        """The first rule by which the row is dropped, and what was found."""
        config = self.config
        if config.usable and (error := row.error) is not None:
            return error.reason, error.got.removeprefix(f"{row.ref}: ")
        content = [text for text in row.texts if text.part in ("prompt", "answer")]
        if config.min_words or config.max_words is not None:
            words = sum(len(text.text.split()) for text in content)
            if words < config.min_words:
                return "too_short", f"{words} words"
            if config.max_words is not None and words > config.max_words:
                return "too_long", f"{words} words"
        for text in row.doubtful if config.repetition >= HALF else content:
            if (share := repeated_share(text.text, config.repetition)) > config.repetition:
                return "repetition", f"{share:.0%} of it repeats: {excerpt([text.text])}"
            if config.placeholders and is_placeholder(text.text):
                return "placeholder", excerpt([text.text])
            if config.refusals and text.part == "answer" and is_refusal(text.text):
                return "refusal", excerpt([text.text])
        if config.languages:
            found = language_of(" ".join(text.text for text in content))
            if found is not None and found not in config.languages:
                return "language", f"{found}: {excerpt(t.text for t in content)}"
        return None


def _is_part(path: Path) -> bool:
    """Whether it is one of several texts that are joined to a content: a blank at its end parts two words."""
    return len(path) > 1 and path[-1] == "text" and isinstance(path[-2], int)
