"""Scrubbing: personal data in any text of a row gives way to what stands in for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunesmith.config.desk import Scrub
from tunesmith.desk.finding import Finder, Found, Names
from tunesmith.desk.rows import Path, Row, Text
from tunesmith.desk.spans import SpanLost, replaced
from tunesmith.desk.stand_ins import StandIn, stand_in
from tunesmith.desk.steps import Outcome
from tunesmith.desk.without import without
from tunesmith.errors import ConfigError, near_miss

IN_FIXED = "in_fixed_text"
"""The rule by which a row is dropped: personal data in a text that other columns count words of, or over the border of
a span."""


@dataclass(frozen=True)
class Scrubbing:
    """Labels are left as they are: they are classes, and the same in many rows."""

    finder: Finder
    stand_in: StandIn
    columns_kept: frozenset[str]
    name: str = "scrub"

    @classmethod
    def of(cls, config: Scrub, names: Names | None = None) -> Scrubbing:
        with without("torch", "transformers"):  # Presidio's recognisers, which are loaded here, use neither
            finder = Finder.of(config, names)
        return cls(finder, stand_in(config), frozenset(config.columns_kept))

    def check_kept(self, rows: Iterable[Row]) -> None:
        """Raises ConfigError for a column that is to be kept and that none of these rows has: it is called otherwise,
        and would be scrubbed."""
        unseen, seen = set(self.columns_kept), set[str]()
        for row in rows if unseen else ():
            seen.update(row.values)
            unseen -= row.values.keys()
            if not unseen:
                return
        for column in sorted(unseen):
            raise ConfigError(
                f"no row has a column '{column}' (scrub.columns_kept)", near_miss(column, seen), "correct it"
            )

    def apply(self, row: Row) -> Outcome | None:
        changed: dict[Path, str] = {}
        kinds: dict[str, None] = {}
        fixed: list[Text] = []
        for text in row.texts:
            if text.path[0] in self.columns_kept or text.part == "label":
                continue
            if text.part == "fixed":
                fixed.append(text)
            elif found := self.finder.found(text.text):
                changed[text.path] = self.replaced(text.text, found)
                kinds |= dict.fromkeys(one.kind for one in found)
        # Words of one list are read as the text that they are of.
        if in_fixed := [kind for text in _joined(fixed) for kind in self._kinds(text)]:
            return Outcome(None, (*sorted({*kinds, *in_fixed}), IN_FIXED), ", ".join(sorted(set(in_fixed))))
        if not changed:
            return None
        try:
            values = replaced(row, changed, lambda path: [self._scrubbed])
        except SpanLost:  # its message would show the text
            return Outcome(None, (*sorted(kinds), IN_FIXED), "over the border of a span")
        return Outcome(values, tuple(sorted(kinds)))

    def _scrubbed(self, text: str) -> str:
        return self.replaced(text, self.finder.found(text))

    def _kinds(self, text: str) -> list[str]:
        return [one.kind for one in self.finder.found(text)]

    def replaced(self, text: str, found: Iterable[Found]) -> str:
        out, at = [], 0
        for one in found:
            out += [text[at : one.start], self.stand_in(one.kind, text[one.start : one.end])]
            at = one.end
        return "".join((*out, text[at:]))


@dataclass(frozen=True)
class Veil:
    """What may be kept of rows, and shown: everything with the kind in the place of personal data.

    keeps: the ledger keeps rows as they were all the same.
    """

    finder: Finder
    keeps: bool

    def over_entry(self, entry: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """A line of the ledger as it may be shown, and as it is kept; `hidden` where it is not what was there."""
        veiled = {**entry, "before": self.over(entry["before"]), "message": self.over(entry["message"])}
        if self.keeps:
            return veiled, entry
        return veiled, veiled | ({} if veiled["before"] is entry["before"] else {"hidden": True})

    def over(self, value: Any) -> Any:
        """Every string in it; the same object where there is nothing to hide."""
        if isinstance(value, str):
            found = self.finder.found(value)
            return _masked(value, found) if found else value
        if isinstance(value, list):
            out = [self.over(one) for one in value]
            return out if any(a is not b for a, b in zip(out, value, strict=True)) else value
        if isinstance(value, dict):
            veiled = {key: self.over(one) for key, one in value.items()}
            return veiled if any(veiled[key] is not one for key, one in value.items()) else value
        return value


def _masked(text: str, found: Iterable[Found]) -> str:
    out, at = [], 0
    for one in found:
        out += [text[at : one.start], f"<{one.kind}>"]
        at = one.end
    return "".join((*out, text[at:]))


def _joined(fixed: list[Text]) -> list[str]:
    lists: dict[Path, list[str]] = {}
    for text in fixed:
        lists.setdefault(text.path[:-1] if isinstance(text.path[-1], int) else text.path, []).append(
            text.text
        )
    return [" ".join(words) for words in lists.values()]
