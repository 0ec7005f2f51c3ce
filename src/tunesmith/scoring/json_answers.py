"""Answers that are JSON objects: is it JSON, has it the right keys, is each field right."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tunesmith.scoring.labels import Codes

MAX_CATEGORIES = 50
"""A field with more distinct values than this is not treated as a set of classes."""

MAX_DEPTH = 100
"""Deepest nesting of an answer; deeper ones are a model that repeats brackets."""

_FENCE = re.compile(r"\A\s*```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that an answer is; None when it is not one.

    One Markdown code fence around the whole answer is taken off first, so that an untuned chat model is not
    marked down for good manners. Text before or after the object, NaN and Infinity are not JSON; nor is what
    nests deeper than MAX_DEPTH.
    """
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not _too_deep(value) else None


def same_value(a: object, b: object) -> bool:
    """Equality of JSON values: 1 equals 1.0, true does not equal 1, strings are compared without outer white
    space (and otherwise to the letter), lists in order, objects by key."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, str) and isinstance(b, str):
        return a.strip() == b.strip()
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_value(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same_value(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def canonical(value: object) -> str:
    """One text for each JSON value: sorted keys, strings stripped, whole numbers without '.0'."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False)


def field_rows(
    references: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any] | None]
) -> dict[str, NDArray[np.float64]]:
    """field -> (N,) 1 where that field is right, 0 where it is wrong or missing, NaN where the reference
    has no such field. Fields stand in the order in which references first show them."""
    fields = dict.fromkeys(key for reference in references for key in reference)
    out = {field: np.full(len(references), np.nan) for field in fields}
    for row, (wanted, got) in enumerate(zip(references, predictions, strict=True)):
        for field, value in wanted.items():
            right = got is not None and field in got and same_value(value, got[field])
            out[field][row] = float(right)
    return out


def categories(values: Sequence[object]) -> tuple[str, ...] | None:
    """The classes of a categorical field (canonical JSON, sorted): all values text, bool or whole numbers and
    at most MAX_CATEGORIES distinct ones. None where the field is not categorical."""
    if not values or not all(isinstance(v, (str, bool, int)) for v in values):
        return None
    distinct = sorted({canonical(v) for v in values})
    return tuple(distinct) if len(distinct) <= MAX_CATEGORIES else None


def field_codes(
    references: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any] | None]
) -> dict[str, Codes]:
    """field -> class numbers, for the categorical fields with at least two classes in the references,
    over the rows whose reference has the field."""
    out: dict[str, Codes] = {}
    for field in dict.fromkeys(key for reference in references for key in reference):
        rows = [row for row, reference in enumerate(references) if field in reference]
        classes = categories([references[row][field] for row in rows])
        if classes is None or len(classes) < 2 or len(classes) == len(rows) > 2:
            continue  # a value of its own in every row is an identifier, not a class
        index = {value: number for number, value in enumerate(classes)}
        got = [predictions[row] for row in rows]
        out[field] = Codes(
            np.asarray([index[canonical(references[row][field])] for row in rows], np.int64),
            np.asarray(
                [
                    index.get(canonical(p[field]), len(classes)) if p and field in p else len(classes)
                    for p in got
                ],
                np.int64,
            ),
            classes,
            np.asarray(rows, np.int64),
        )
    return out


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [list(v.values()) if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list))]
        level = [item for items in inner for item in items]
        if not level:
            return False
    return True


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
