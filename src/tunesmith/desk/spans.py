"""Spans that follow their text: a row may hold places in its text (start, end), and they must be right when it changes.

A change is a chain of functions of the whole text, and none says where a character went. So each is asked again: with a
mark at every border, or of every piece between borders by itself. Where one of the two gives the same text, the borders
are known exactly; where neither does, the change went over a border, and nobody knows where it is now.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tunesmith.data.strict_json import parse_object
from tunesmith.desk.rows import Path, Row, Values, with_texts
from tunesmith.errors import RowError

Mend = Callable[[str], str]
MARKS = [chr(code) for code in range(0xE000, 0xE010)]
"""Of private use: no rule knows them."""


class SpanLost(Exception):
    """A change went over the border of a span. message: which."""


@dataclass(frozen=True)
class _Spans:
    """A column of spans as it was read. packed: it holds them as JSON, as CSV does."""

    column: str
    items: list[Any]
    packed: bool

    def borders(self) -> list[tuple[int, int]]:
        return [_ends(item) for item in self.items]

    def at(self, borders: Sequence[tuple[int, int]]) -> Any:
        """The column with its spans between other borders."""
        moved = [
            {**item, "start": start, "end": end} if isinstance(item, dict) else [start, end, *item[2:]]
            for item, (start, end) in zip(self.items, borders, strict=True)
        ]
        return json.dumps(moved, ensure_ascii=False) if self.packed else moved


def replaced(row: Row, changed: Mapping[Path, str], mends: Callable[[Path], Iterable[Mend]]) -> Values:
    """The row with these texts in place of those that were there, and its spans where they are now. mends: of a text,
    the functions by which it became what it is.

    Spans are those of a column of {start, end, label} or [start, end, label], and count characters of the row's text
    (or prompt). Blanks at their edges are left out. Raises SpanLost for one whose border was changed over.
    """
    out = with_texts(row.values, changed)
    path = _counted(row)
    if path in changed:
        text = row.values[path[0]]
        for spans in _spans_of(out, len(text)):
            out[spans.column] = spans.at(moved(text, changed[path], spans.borders(), mends(path)))
    return out


def holds_spans(row: Row) -> bool:
    text = row.values.get(_counted(row)[0])
    return isinstance(text, str) and bool(_spans_of(row.values, len(text)))


def _counted(row: Row) -> tuple[str]:
    """The text that spans count characters of."""
    columns = row.shape.meaning.columns
    return (columns.get("text") or columns.get("prompt") or "",)


def moved(
    text: str, now: str, spans: Sequence[tuple[int, int]], mends: Iterable[Mend]
) -> list[tuple[int, int]]:
    """(start, end) of each span in `now`, which the functions, one after another, make of the text."""
    tight = [_tight(text, start, end) for start, end in spans]
    cuts = sorted({border for span in tight for border in span})
    at = dict(zip(cuts, cuts, strict=True))
    here = text
    for mend in mends:
        then = mend(here)
        if then != here:
            places = [at[cut] for cut in cuts]
            found = _marked(here, then, places, mend) or _pieces(here, then, places, mend)
            if found is None:
                raise SpanLost(f"a change over the border of a span: {text[:80]!r}")
            at = dict(zip(cuts, found, strict=True))
        here = then
    assert here == now
    borders = [(at[start], at[end]) for start, end in tight]
    for (start, end), (first, last) in zip(borders, tight, strict=True):
        if start == end:
            raise SpanLost(f"nothing is left of {text[first:last]!r}")
    return borders


def _marked(text: str, then: str, cuts: Sequence[int], mend: Mend) -> list[int] | None:
    """Where the cuts are, by a mark at each; None where the text would become another by the marks."""
    mark = next((mark for mark in MARKS if mark not in text), None)
    if mark is None:
        return None
    pieces = mend(mark.join(_between(text, cuts))).split(mark)
    return _ends_of(pieces, then) if len(pieces) == len(cuts) + 1 else None


def _pieces(text: str, then: str, cuts: Sequence[int], mend: Mend) -> list[int] | None:
    """Where the cuts are, where each piece can be changed by itself."""
    return _ends_of([mend(piece) for piece in _between(text, cuts)], then)


def _between(text: str, cuts: Sequence[int]) -> list[str]:
    return [text[a:b] for a, b in pairwise((0, *cuts, len(text)))]


def _ends_of(pieces: Sequence[str], whole: str) -> list[int] | None:
    if "".join(pieces) != whole:
        return None
    ends, at = [], 0
    for piece in pieces[:-1]:
        at += len(piece)
        ends.append(at)
    return ends


def _tight(text: str, start: int, end: int) -> tuple[int, int]:
    """Without blanks at the edges, but for a span of blanks alone."""
    piece = text[start:end]
    if not piece.strip():
        return start, end
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


# Which columns they are in -------------------------------------------------------------------------------


def _spans_of(values: Values, length: int) -> list[_Spans]:
    """Columns that hold nothing but spans of a text of this length: what two numbers are, only a label beside them
    tells."""
    found = []
    for column, value in values.items():
        items = _unpacked(value) if isinstance(value, str) else value
        if isinstance(items, list) and items and all(_is_span(item, length) for item in items):
            found.append(_Spans(column, items, isinstance(value, str)))
    return found


def _unpacked(value: str) -> Any:
    if not value.lstrip().startswith("["):
        return None
    try:
        return parse_object('{"value": ' + value + "}")["value"]
    except RowError:
        return None


def _is_span(item: Any, length: int) -> bool:
    if not isinstance(item, dict | list) or (isinstance(item, list) and len(item) != 3):
        return False
    start, end = _ends(item)
    label = item.get("label") if isinstance(item, dict) else item[2]
    numbers = type(start) is int and type(end) is int and type(label) is str
    return numbers and 0 <= start < end <= length


def _ends(item: Any) -> tuple[Any, Any]:
    return (item.get("start"), item.get("end")) if isinstance(item, dict) else (item[0], item[1])
