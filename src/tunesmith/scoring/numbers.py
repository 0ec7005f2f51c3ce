"""Answers that are numbers, or JSON lists of numbers: how far they lie from the references.

Shapes: N rows, T targets, U distinct rows, B samples.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np

from tunesmith.errors import DataError
from tunesmith.scoring.json_answers import parse_json
from tunesmith.scoring.pooled import Array, Columns, Floats, Value, wholes
from tunesmith.scoring.scores import Scores, means

LARGEST = 1e100
"""A greater answer is none: a model that repeats digits, and no square of it fits a float."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def parse_numbers(text: str) -> tuple[float, ...] | None:
    """The numbers of an answer: one as text ('4.5', '-1e3'), or a JSON list of at least one. None for
    anything else: words around it, a thousands separator, a unit, NaN, infinity, or a number beyond
    LARGEST."""
    stripped = text.strip()
    value = [float(stripped)] if _NUMBER.fullmatch(stripped) else parse_json(text)
    if not isinstance(value, list) or not value:
        return None
    if not all(type(x) in (int, float) and abs(x) <= LARGEST for x in value):
        return None
    return tuple(float(x) for x in value)


def score_numbers(references: Sequence[str], predictions: Sequence[str], targets: Sequence[str]) -> Scores:
    """Errors and correlations; with several targets, their mean over the targets, and `mae`, `r2` of each.

    targets: names of the numbers, or none: then they are called 0, 1, 2 ... An answer that is not as many
    numbers as the reference counts as the worst that was possible: the end of the references' range that lies
    farther away. Raises DataError for references that are not numbers, or not equally many.
    """
    wanted = _references(references, targets)
    num_targets = wanted.shape[1]
    parsed = [parse_numbers(text) for text in predictions]
    valid = np.array([answer is not None and len(answer) == num_targets for answer in parsed])
    low, high = wanted.min(axis=0), wanted.max(axis=0)
    got = np.where(wanted - low > high - wanted, low, high)
    for row in np.flatnonzero(valid):
        got[row] = parsed[row]
    errors = np.abs(wanted - got)
    rows = {
        "mae": errors.mean(axis=1),
        "mse": (errors**2).mean(axis=1),
        "valid_number": valid.astype(np.float64),
    }
    pooled = {
        name: Columns(wanted, got, function)
        for name, function in (("rmse", rmse), ("r2", r2), ("pearson", pearson), ("spearman", spearman))
    }
    names = tuple(targets) or tuple(map(str, range(num_targets)))
    if num_targets > 1:
        for i, name in enumerate(names):
            rows[f"mae.{name}"] = errors[:, i]
            pooled[f"r2.{name}"] = Columns(wanted[:, [i]], got[:, [i]], r2)
    return Scores(
        task="number",
        metrics=means(rows) | wholes(pooled),
        per_row=rows,
        pooled=pooled,
        labels=names if num_targets > 1 else (),
        answers=tuple(
            json.dumps(list(answer) if num_targets > 1 else answer[0]) if ok and answer else None
            for answer, ok in zip(parsed, valid, strict=True)
        ),
    )


def _each_target(function: Value) -> Value:
    """The mean over the targets of a function of one reference column and one predicted column."""

    def mean(reference: Array, predicted: Array, weights: Floats) -> Floats:
        columns = range(reference.shape[1])
        values = [function(reference[:, i], predicted[:, i], weights) for i in columns]
        return np.asarray(np.mean(values, axis=0))

    return mean


@_each_target
def rmse(reference: Array, predicted: Array, weights: Floats) -> Floats:
    """Root of the mean squared error."""
    return np.asarray(np.sqrt(_mean((reference - predicted) ** 2, weights)))


@_each_target
def r2(reference: Array, predicted: Array, weights: Floats) -> Floats:
    """1 - squared error / squared distance from the sample's mean. References all equal: 1 if met, else 0."""
    error = _mean((reference - predicted) ** 2, weights)
    spread = _variance(_centred(reference), weights)
    share = np.divide(error, spread, out=np.zeros_like(error), where=spread > 0)
    return np.asarray(np.where(spread > 0, 1 - share, error == 0))


@_each_target
def pearson(reference: Array, predicted: Array, weights: Floats) -> Floats:
    """Linear correlation. A side that is the same in all rows of the sample says nothing: 0."""
    return _correlation(_centred(reference), _centred(predicted), weights)


@_each_target
def spearman(reference: Array, predicted: Array, weights: Floats) -> Floats:
    """Correlation of the ranks in each sample; equal values share their mean rank."""
    return _correlation(_ranks(reference, weights), _ranks(predicted, weights), weights)


def _correlation(a: Floats, b: Floats, weights: Floats) -> Floats:
    """(B,) of columns (U,), or (B, U) where they differ from sample to sample."""
    spread = np.sqrt(_variance(a, weights)) * np.sqrt(_variance(b, weights))
    shared = _mean(a * b, weights) - _mean(a, weights) * _mean(b, weights)
    out: Floats = np.divide(shared, spread, out=np.zeros(len(weights)), where=spread > 0)
    return np.clip(out, -1.0, 1.0)


def _mean(values: Floats, weights: Floats) -> Floats:
    return np.asarray((weights * values).sum(axis=1) / weights.sum(axis=1))


def _variance(values: Floats, weights: Floats) -> Floats:
    """(B,); what is left by rounding where all rows of a sample are equal counts as 0."""
    square = _mean(values**2, weights)
    found = square - _mean(values, weights) ** 2
    return np.asarray(np.where(found > 1e-13 * square, found, 0.0))


def _centred(values: Floats) -> Floats:
    """About the median, which is exact where all are equal, and near the mean of any sample."""
    return np.asarray(values - np.median(values))


def _ranks(values: Floats, weights: Floats) -> Floats:
    """(B, U): the mean rank of each row's value in each sample, about the middle rank."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    size = np.add.reduceat(weights[:, order], starts, axis=1)
    rank: Floats = (np.cumsum(size, axis=1) - (size + size.sum(axis=1, keepdims=True)) / 2)[:, group]
    return rank


def _references(references: Sequence[str], targets: Sequence[str]) -> Floats:
    out: list[tuple[float, ...]] = []
    for row, text in enumerate(references):
        numbers = parse_numbers(text)
        if numbers is None:
            raise DataError(f"reference of row {row} is '{text}'", "a finite number, or a JSON list of them")
        size = len(targets) or len(out[0] if out else numbers)
        if len(numbers) != size:
            raise DataError(
                f"reference of row {row} has {len(numbers)} numbers: '{text}'", f"{size}, as others"
            )
        out.append(numbers)
    return np.array(out)
