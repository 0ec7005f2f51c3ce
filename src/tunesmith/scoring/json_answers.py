"""Answers that are JSON objects: is it JSON, has it the right keys, is each field right."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.scoring.labels import Codes, averages
from tunesmith.scoring.scores import Scores, means

MAX_CATEGORIES = 50
"""A field with more distinct values than this is not treated as a set of classes."""

MAX_DEPTH = 100
"""Deepest nesting of an answer; deeper ones are a model that repeats brackets."""

_FENCE = re.compile(r"\A\s*```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)


def parse_json(text: str) -> Any | None:
    """The JSON value that an answer is; None when it is not one (or is `null`).

    One Markdown code fence around the whole answer is taken off first, so that an untuned chat model is not
    marked down for good manners. Text before or after the value, NaN and Infinity are not JSON; nor is what
    nests deeper than MAX_DEPTH.
    """
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return None if _too_deep(value) else value


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that an answer is, by `parse_json`; None when it is not one."""
    value = parse_json(text)
    return value if isinstance(value, dict) else None


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


def score_json(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Scores:
    """Scores of JSON objects, whole and by field; `labels` play no part. References that are none do not
    count."""
    wanted: list[dict[str, Any]] = []
    kept: list[int] = []
    for row, reference in enumerate(references):
        value = parse_object(reference)
        if value is not None:
            wanted.append(value)
            kept.append(row)
    if not kept:
        raise DataError("none of the references is a JSON object", "JSON objects, for task 'json'")
    got = [parse_object(predictions[row]) for row in kept]
    by_field = field_rows(wanted, got)
    schema = np.array([g is not None and g.keys() == w.keys() for w, g in zip(wanted, got, strict=True)])
    exact = np.array([g is not None and same_value(w, g) for w, g in zip(wanted, got, strict=True)])
    right = np.array([np.nansum([v[i] for v in by_field.values()]) for i in range(len(kept))])
    num_fields = np.array([len(w) for w in wanted])
    rows = {
        "json_exact": exact,
        # a reference without fields ({}) is right when the answer is {} too
        "field_accuracy": np.where(num_fields > 0, right / np.maximum(num_fields, 1), exact),
        "json_valid": np.array([g is not None for g in got]),
        "json_schema": schema,
        **{f"accuracy.{name}": values for name, values in by_field.items()},
    }
    every = {name: _spread(values.astype(np.float64), kept, len(references)) for name, values in rows.items()}
    codes = field_codes(wanted, got)
    at = np.asarray(kept, np.int64)
    named = {f"macro_f1.{name}": replace(c, rows=at[c.rows]) for name, c in codes.items()}
    f1 = {name: averages(c)["macro_f1"] for name, c in named.items()}
    parsed = [parse_object(p) for p in predictions]
    answers = tuple(None if p is None else canonical(p) for p in parsed)
    return Scores("json", means(every) | f1, every, named, answers=answers)


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


def _spread(values: NDArray[np.float64], kept: list[int], num_rows: int) -> NDArray[np.float64]:
    out = np.full(num_rows, np.nan)
    out[kept] = values
    return out
