"""What a text is to be answered with when it is not words: names, numbers, spans. All become one line of JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from tunesmith.data.peer_formats import json_value
from tunesmith.errors import RowError

Span = tuple[int, int, str]

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,300}", re.ASCII)
# The letter of the tag schemes BIO, BIOES and BILOU. Only B- and I- may stand before any label: a plain tag may
# well be called "E-mail".
_SCHEME = re.compile(r"([BI])-(.+)|([ESLU])-([A-Z].*)", re.DOTALL)
BEGIN, END = ("B", "S", "U"), ("E", "L", "S", "U")


def class_name(value: object, field: str = "label") -> str:
    """A class as its name; a boolean is true or false. Raises RowError (bad_label, not_a_string, empty_answer)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        fix = "write it as a string"
        raise RowError("bad_label", f"{value}; a class is a name or a whole number", field=field, fix=fix)
    if not isinstance(value, str):
        fix = "write it as a string"
        raise RowError("not_a_string", f"{type(value).__name__} {str(value)[:40]!r}", field=field, fix=fix)
    if not value.strip():
        raise RowError("empty_answer", "nothing in it", field=field)
    return value.strip()


def names_answer(value: object) -> str:
    """The JSON list of the sorted names, each once; `[]` is an answer. Raises RowError (bad_labels, …)."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # as CSV holds it
        value = json_value(value, "bad_labels", "labels")
    if not isinstance(value, list):
        fix = 'write a list of names: ["billing", "urgent"]'
        raise RowError(
            "bad_labels", f"a {type(value).__name__}, not a list of names", field="labels", fix=fix
        )
    return _json(sorted({class_name(name, f"labels[{i}]") for i, name in enumerate(value)}))


def number_answer(values: Sequence[tuple[str, object]]) -> str:
    """The number (Python's shortest text of it) for one column, the JSON list for several.

    values: (column, value) pairs. Raises RowError (missing_field, bad_number).
    """
    numbers = [number(value, column) for column, value in values]
    return repr(numbers[0]) if len(numbers) == 1 else _json(numbers)


def number(value: object, column: str) -> int | float:
    """A finite number. Raises RowError (missing_field, bad_number)."""
    if value is None or value == "":
        raise RowError("missing_field", "no number", field=column)
    if isinstance(value, str):  # as CSV holds it
        text = value.strip()
        if _INTEGER.fullmatch(text):
            return int(text)
        value = float(text) if _NUMBER.fullmatch(text) else value
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        fix = "write a finite number, with a point for decimals"
        raise RowError("bad_number", f"{str(value)[:40]!r} is no number", field=column, fix=fix)
    return value


def spans_answer(spans: Sequence[Span]) -> str:
    """The JSON list of [start, end, label], sorted."""
    return _json(sorted(spans))


def spans_of(text: str, value: object) -> list[Span]:
    """Spans of a text from {start, end, label} or [start, end, label] each, or from JSON of them.

    start, end: characters of `text`, end exclusive. Raises RowError (bad_spans).
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = json_value(value, "bad_spans", "spans")
    if not isinstance(value, list):
        raise RowError("bad_spans", f"a {type(value).__name__}, not a list of spans", field="spans")
    return [_span(text, item, f"spans[{index}]") for index, item in enumerate(value)]


def _span(text: str, item: object, field: str) -> Span:
    fix = "write {start, end, label} or [start, end, label]; characters count from 0, the end is exclusive"
    if isinstance(item, dict):
        item = [item.get(name) for name in ("start", "end", "label")]
    if not isinstance(item, list) or len(item) != 3:
        raise RowError("bad_spans", "no start, end and label", field=field, fix=fix)
    start, end, label = item
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        got = f"from {str(start)[:20]} to {str(end)[:20]} of a text of {len(text)} characters"
        raise RowError("bad_spans", got, field=field, fix=fix)
    return start, end, class_name(label, f"{field}.label")


def words_of(value: object) -> tuple[str, list[tuple[int, int]]]:
    """Words joined by one space, and where each begins and ends. Raises RowError (bad_tokens, empty_text)."""
    words = json_value(value, "bad_tokens", "tokens") if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise RowError("bad_tokens", "not a list of words", field="tokens")
    text = " ".join(words)
    if not text.strip():
        raise RowError("empty_text", "nothing in it", field="tokens")
    places, at = [], 0
    for word in words:
        places.append((at, at + len(word)))
        at += len(word) + 1
    return text, places


def spans_of_tags(places: Sequence[tuple[int, int]], value: object) -> tuple[list[Span], int]:
    """Spans from one tag a word, and how many began with an inside tag, which was taken as a begin.

    `O`, empty or null is outside. Tags with B-, I- (E-, L-, S-, U-) follow that scheme; of other tags each run of
    one name is a span. Raises RowError (bad_tags).
    """
    tags = json_value(value, "bad_tags", "tags") if isinstance(value, str) else value
    if not isinstance(tags, list) or len(tags) != len(places):
        got = f"{len(tags)} tags for {len(places)} words" if isinstance(tags, list) else "not a list of tags"
        raise RowError("bad_tags", got, field="tags", fix="write one tag for each word")
    spans: list[Span] = []
    repaired = 0
    inside = False  # whether the last span may go on
    schemes = {tag: _parsed(tag, index) for index, tag in enumerate(tags) if not _outside(tag)}
    if len({letter == "" for letter, _ in schemes.values()}) > 1:
        raise RowError(
            "bad_tags", "tags with B- or I- beside tags without", field="tags", fix="use one way of tagging"
        )
    for (start, end), tag in zip(places, tags, strict=True):
        if _outside(tag):
            inside = False
            continue
        letter, label = schemes[tag]
        if start == end:
            raise RowError("bad_tags", f"an empty word with the tag {tag}", field="tokens")
        if inside and spans[-1][2] == label and letter not in BEGIN:
            spans[-1] = (spans[-1][0], end, label)
        else:
            spans.append((start, end, label))
            repaired += letter in ("I", "E", "L")
        inside = letter not in END
    return spans, repaired


def _outside(tag: object) -> bool:
    return tag is None or tag in ("O", "")


def _parsed(tag: object, index: int) -> tuple[str, str]:
    """(letter of the scheme or "", label)."""
    if isinstance(tag, str):
        found = _SCHEME.fullmatch(tag)
        return (found[1] or found[3], found[2] or found[4]) if found else ("", tag)
    fix = "write the tags' names; numbers mean nothing without them"
    raise RowError("bad_tags", f"{type(tag).__name__} {str(tag)[:20]!r}", field=f"tags[{index}]", fix=fix)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
