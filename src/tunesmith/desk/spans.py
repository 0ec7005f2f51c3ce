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
from typing import Any, Protocol

from tunesmith.data import peer_formats
from tunesmith.data.strict_json import parse_object
from tunesmith.desk.rows import JSON, Path, Row, Values, unpacked, with_texts
from tunesmith.errors import RowError

Mend = Callable[[str], str]
MARKS = [chr(code) for code in range(0xE000, 0xE010)]
"""Of private use: no rule knows them."""


class SpanLost(Exception):
    """A change went over the border of a span. message: which."""


class Places(Protocol):
    """Places in a text of the row, `counted`, as they were read."""

    @property
    def counted(self) -> Path: ...

    def borders(self) -> list[tuple[int, int]]: ...

    def at(self, borders: Sequence[tuple[int, int]], now: str) -> dict[Path, Any]:
        """What stands where in the row, of places between these borders in the text as it is now."""
        ...


def replaced(row: Row, changed: Mapping[Path, str], mends: Callable[[Path], Iterable[Mend]]) -> Values:
    """The row with these texts in place of those that were there, and places in them where they are now. mends: of a
    text, the functions by which it became what it is.

    Spans are lists of {start, end, label} or [start, end, label]: those of a column count characters of the row's text
    (or prompt), those beside the content of a message characters of that. Answers with an `answer_start` count those of
    the column in which they stand there. Blanks at their edges are left out. Raises SpanLost for one whose border was
    changed over, and for an answer that would be another than what stands at its place.
    """
    out: dict[Path, Any] = dict(changed)
    for places in _places(row, changed):
        path, before = places.counted, _text_at(row.values, places.counted)
        now, borders = changed.get(path, before), places.borders()
        if path in changed:
            borders = moved(before, now, borders, mends(path))
        put = places.at(borders, now)
        if path in changed:
            out |= put
    return with_texts(row.values, out)


def holds_spans(row: Row) -> bool:
    try:
        return bool(_places(row, {text.path: text.text for text in row.texts}))
    except SpanLost:
        return True


def _places(row: Row, changed: Mapping[Path, str]) -> list[Places]:
    """Those that these texts may have to do with."""
    found: list[Places] = []
    for path in changed:
        key = path[-1]
        if path == _counted(row):
            found += _spans_of(row.values, (), path[0], len(row.values[path[0]]), changed)
        elif len(path) > 1 and key in _contents(row):
            message = _found(row.values, path[:-1])
            found += _spans_of(message, path[:-1], key, len(message[key]), changed)
    return [*found, *answers_of(row.values, changed)]


def _counted(row: Row) -> tuple[str]:
    """The text that spans count characters of."""
    columns = row.shape.meaning.columns
    return (columns.get("text") or columns.get("prompt") or "",)


def _contents(row: Row) -> set[str]:
    """What the content of a message, or of a part of it, may be called."""
    return {
        *peer_formats.MESSAGE_KEYS["content"],
        "text",
        row.shape.meaning.turns.keys.get("content", "content"),
    }


def _found(values: Values, path: Path) -> Any:
    here: Any = values
    for step in path:
        here = unpacked(here) if step == JSON else here[step]
    return here


def _text_at(values: Values, path: Path) -> str:
    text = _found(values, path)
    assert isinstance(text, str)
    return text


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


# Where they are ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spans:
    """A list of spans as it was read, at a place of the row. packed: it is held as JSON, as CSV does."""

    counted: Path
    path: Path
    items: list[Any]
    packed: bool

    def borders(self) -> list[tuple[int, int]]:
        return [_ends(item) for item in self.items]

    def at(self, borders: Sequence[tuple[int, int]], now: str) -> dict[Path, Any]:
        inside: Path = (_PACKED,) if self.packed else self.path
        put: dict[Path, Any] = {}
        for at, (item, (start, end)) in enumerate(zip(self.items, borders, strict=True)):
            first, last = ("start", "end") if isinstance(item, dict) else (0, 1)
            put |= {(*inside, at, first): start, (*inside, at, last): end}
        return _repacked(self.items, put, self.path) if self.packed else put


_PACKED = "packed"


def _repacked(value: Any, put: Mapping[Path, Any], path: Path) -> dict[Path, Any]:
    """Of a value that is held as JSON at this path. put: what stands where in it, under _PACKED."""
    return {path: json.dumps(with_texts({_PACKED: value}, put)[_PACKED], ensure_ascii=False)}


def _spans_of(
    holder: Values, at: Path, key: str | int, length: int, changed: Mapping[Path, str]
) -> list[Spans]:
    """Lists beside a text of this length that hold nothing but spans of it: what two numbers are, only a label beside
    them tells. at: the path of what holds both; key: of the text in it."""
    found = []
    for name, value in holder.items():
        packed = isinstance(value, str)
        items = _unpacked(changed.get((*at, name), value)) if packed else value
        if isinstance(items, list) and items and all(_is_span(item, length) for item in items):
            found.append(Spans((*at, key), (*at, name), items, packed))
    return found


def _unpacked(value: str) -> Any:
    if not value.lstrip().startswith(("[", "{")):
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


# Answers that stand in a text ----------------------------------------------------------------------------


ANSWER_START = "answer_start"
FLAT = ("answer", "answer_text", "answers")
"""Columns whose text stands at the row's own `answer_start`."""


@dataclass(frozen=True)
class Slot:
    """An answer: its first character's place, its text, and where both are."""

    start: int
    text: str
    start_path: Path
    text_path: Path


@dataclass(frozen=True)
class Answers:
    """Answers as SQuAD has them: each is a piece of a text, of which its first character is counted. value: all that a
    column holds, where it is held as JSON. changed: texts of the row as they are now."""

    counted: Path
    column: str
    slots: Sequence[Slot]
    value: Any
    changed: Mapping[Path, str]

    def borders(self) -> list[tuple[int, int]]:
        return [(slot.start, slot.start + len(slot.text)) for slot in self.slots]

    def at(self, borders: Sequence[tuple[int, int]], now: str) -> dict[Path, Any]:
        put: dict[Path, Any] = {}
        for slot, (start, end) in zip(self.slots, borders, strict=True):
            put |= {slot.start_path: start, slot.text_path: now[start:end]}
        if self.value is not None:
            put = _repacked(self.value, put, (self.column,))
        for where, value in put.items():
            if self.changed.get(where, value) != value:
                raise SpanLost(
                    f"an answer would be another than what stands at its place: {str(value)[:80]!r}"
                )
        return put


def answers_of(values: Values, changed: Mapping[Path, str]) -> list[Answers]:
    """Of every column. Raises SpanLost for answers that stand in no column where they say."""
    found = []
    for column, value in values.items():
        inner = _unpacked(value) if isinstance(value, str) else None
        slots = _slots(value, (column,)) if inner is None else _slots(inner, (_PACKED,))
        if column == ANSWER_START and type(value) is int:
            name = next((name for name in FLAT if isinstance(values.get(name), str)), None)
            slots = [] if name is None else [Slot(value, values[name], (column,), (name,))]
        slots = [slot for slot in slots if slot.text]
        if slots:
            found.append(Answers((_standing(slots, values),), column, slots, inner, changed))
    return found


def _slots(value: Any, path: Path) -> list[Slot]:
    """{text: [...], answer_start: [...]}, or {text, answer_start}, or a list of such."""
    if isinstance(value, list):
        return [slot for at, item in enumerate(value) for slot in _slots(item, (*path, at))]
    if not isinstance(value, dict) or not {"text", ANSWER_START} <= value.keys():
        return []
    starts, texts = value[ANSWER_START], value["text"]
    if not isinstance(starts, list) and not isinstance(texts, list):
        pairs = [(starts, texts, (*path, ANSWER_START), (*path, "text"))]
    elif isinstance(starts, list) and isinstance(texts, list) and len(starts) == len(texts):
        pairs = [
            (starts[at], texts[at], (*path, ANSWER_START, at), (*path, "text", at))
            for at in range(len(starts))
        ]
    else:
        return []
    return [Slot(*pair) for pair in pairs if type(pair[0]) is int and type(pair[1]) is str]


def _standing(slots: Sequence[Slot], values: Values) -> str:
    """The column that all of them stand in."""
    for column, value in values.items():
        if isinstance(value, str) and all(
            slot.start >= 0 and value.startswith(slot.text, slot.start) for slot in slots
        ):
            return column
    raise SpanLost(f"no text has {slots[0].text[:80]!r} at {slots[0].start}")
