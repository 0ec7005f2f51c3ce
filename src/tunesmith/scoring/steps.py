"""Answers whose steps people judged: does a system know which steps are right, and where the first wrong one is?

A system answers a row with a JSON list of one probability for each step, that it is right (null where it gives none).
From one half on, a probability says right, and so does a label. Steps that nobody judged count nowhere. Rows whose
answer is no such list count as wrong in all their steps; what measures the probabilities themselves (log loss,
calibration) knows nothing of them.

Shapes: N rows, S judged steps in all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.scoring import probabilities as p
from tunesmith.scoring.json_answers import parse_json
from tunesmith.scoring.judged import calibration_error
from tunesmith.scoring.pooled import Array, Columns, Floats, Pooled, whole
from tunesmith.scoring.scores import Scores, means
from tunesmith.types import Example

RIGHT = 0.5
"""A step is right from this label, or probability, on."""
LEAST = 1e-7
"""Nothing is held to be less likely than this, in the log loss."""


def reference_of(example: Example) -> str:
    """What people said of a row: the JSON list of its steps' labels, null where nobody said."""
    labels = [None if math.isnan(c.score) else float(c.score) for c in example.completions]
    return json.dumps(labels)


def parse_steps(text: str) -> list[float | None] | None:
    """The probabilities of an answer; None for anything but a JSON list of numbers from 0 to 1 and nulls."""
    value = parse_json(text)
    if not isinstance(value, list) or not value:
        return None
    if not all(x is None or (type(x) in (int, float) and 0 <= x <= 1) for x in value):
        return None
    return [None if x is None else float(x) for x in value]


def score_steps(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Scores:
    """references: as `reference_of` says. predictions: lists as long. `labels` play no part.

    Raises DataError for references that are none.
    """
    found = _read(references, predictions)
    right, said = found.labels >= RIGHT, found.said >= RIGHT
    agrees = (found.given & (said == right)).astype(np.float64)
    rows = {
        "step_accuracy": found.mean(agrees, np.ones(len(agrees), bool)),
        "first_wrong": _first_wrong(found, right, agrees > 0),
        "valid_scores": found.valid.astype(np.float64),
    }
    if found.given.any():
        likely = np.clip(found.said, LEAST, 1 - LEAST)
        loss = -found.labels * np.log(likely) - (1 - found.labels) * np.log1p(-likely)
        rows["step_nll"] = found.mean(loss, found.given)
    # Of an answer that is none no step is named wrong, so that it costs recall alone.
    named, wrong = found.given & ~said, ~right
    counts = np.column_stack([found.sums(x) for x in (named & wrong, named)])
    actual = found.sums(wrong)
    pooled: dict[str, Pooled] = {
        name: Columns(actual, counts, value)
        for name, value in (("wrong_f1", _f1), ("wrong_precision", _precision), ("wrong_recall", _recall))
    }
    calibration = None
    if found.given.any():
        sure = np.maximum(found.said, 1 - found.said)[found.given]
        correct = agrees[found.given]
        pooled["step_ece"] = calibration_error(sure, correct, found.row[found.given], len(found.valid))
        thresholds = tuple(p.abstention(sure, correct, threshold) for threshold in p.THRESHOLDS)
        calibration = p.Calibration(p.reliability(sure, correct), thresholds)
    metrics = means(rows) | {name: whole(columns) for name, columns in pooled.items()}
    return Scores("steps", metrics, rows, pooled, answers=found.answers, calibration=calibration)


@dataclass(frozen=True, slots=True)
class _Steps:
    """labels, said (S,): people's, and the system's probability where it gave one (`given`). row (S,): the step's row,
    rising. valid (N,): rows with a list as long as people's."""

    labels: Floats
    said: Floats
    given: NDArray[np.bool_]
    row: NDArray[np.int64]
    valid: NDArray[np.bool_]
    answers: tuple[str | None, ...]

    def sums(self, values: Array) -> Floats:
        """(N,) of each row's steps."""
        return np.asarray(np.bincount(self.row, values, len(self.valid)), np.float64)

    def mean(self, values: Floats, which: NDArray[np.bool_]) -> Floats:
        """(N,) over those of each row's steps that are among `which`; NaN where none is."""
        count = self.sums(which)
        out = np.full(len(self.valid), np.nan)
        np.divide(self.sums(np.where(which, values, 0.0)), count, out=out, where=count > 0)
        return out


def _read(references: Sequence[str], predictions: Sequence[str]) -> _Steps:
    labels: list[float] = []
    said: list[float | None] = []
    rows: list[int] = []
    answers: list[str | None] = []
    for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        wanted, found = parse_steps(reference), parse_steps(prediction)
        if wanted is None or all(label is None for label in wanted):
            raise DataError(
                f"reference of row {row} is '{reference}'", "a JSON list of labels from 0 to 1, at least one"
            )
        valid = found is not None and len(found) == len(wanted)
        answers.append(json.dumps(found) if valid else None)
        for label, probability in zip(
            wanted, found if valid and found else [None] * len(wanted), strict=True
        ):
            if label is not None:
                labels.append(label)
                said.append(probability)
                rows.append(row)
    given = np.array([probability is not None for probability in said])
    return _Steps(
        labels=np.array(labels),
        said=np.array([0.0 if probability is None else probability for probability in said]),
        given=given,
        row=np.array(rows, np.int64),
        valid=np.array([answer is not None for answer in answers]),
        answers=tuple(answers),
    )


def _first_wrong(found: _Steps, right: NDArray[np.bool_], agrees: NDArray[np.bool_]) -> Floats:
    """(N,) 1 where the system agrees on every step up to people's first wrong one, or on all where there is none: so
    where its own first wrong step is the same."""
    wrong = (~right).astype(np.int64)
    before = np.cumsum(wrong) - wrong  # wrong steps before each, of all rows
    first = np.searchsorted(found.row, np.arange(len(found.valid)))
    counts = before == before[first][found.row]
    missed = found.sums(counts & ~agrees)
    return np.asarray(missed == 0, np.float64)


def _ratio(above: Floats, below: Floats) -> Floats:
    """0 / 0 is 0."""
    out: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return out


def _f1(actual: Array, counts: Array, weights: Floats) -> Floats:
    both, named = (weights @ counts).T
    return _ratio(2 * both, named + (weights @ actual)[:, 0])


def _precision(actual: Array, counts: Array, weights: Floats) -> Floats:
    both, named = (weights @ counts).T
    return _ratio(both, named)


def _recall(actual: Array, counts: Array, weights: Floats) -> Floats:
    both, _ = (weights @ counts).T
    return _ratio(both, (weights @ actual)[:, 0])
