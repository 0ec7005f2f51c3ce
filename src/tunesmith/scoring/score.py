"""References and predictions -> metrics, and what their intervals stand on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.scoring import json_answers, text
from tunesmith.scoring.metrics import Task, metric
from tunesmith.scoring.pooled import Floats
from tunesmith.scoring.scores import Scores
from tunesmith.scoring.tasks import TASKS

JSON_SHARE = 0.95
"""Share of references that must be JSON objects for the task to be `json`."""


def detect_task(references: Sequence[str], row_labels: Sequence[str | None] = ()) -> Task:
    """`label` if every row has a label; `json` if 95 % of references are JSON objects; else `text`."""
    if row_labels and all(label is not None for label in row_labels):
        return "label"
    num_json = sum(json_answers.parse_object(r) is not None for r in references)
    return "json" if references and num_json >= JSON_SHARE * len(references) else "text"


def known_classes(task: Task, references: Sequence[str], labels: Iterable[str] = ()) -> tuple[str, ...]:
    """What `score` takes as `labels`: for tasks with classes, the given ones and those of the references,
    sorted; else the given ones as they are (the names of targets)."""
    found = TASKS[task].classes
    return tuple(labels) if found is None else tuple(sorted({*labels, *found(references)}))


def score(
    task: Task,
    references: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str] = (),
    *,
    hit_limit: Sequence[bool] | None = None,
    probabilities: Floats | None = None,
) -> Scores:
    """Score predictions against references.

    labels: the known classes, for tasks `label`, `labels` and `spans` (a reference outside them is an error);
    names of the targets, for `number` (none: they are counted). hit_limit: for each prediction whether it was
    cut off at the limit of new tokens; without it `overlong_rate` is not measured. probabilities: (N, L) of
    the classes in the order of `labels`, for `label` (rows sum to 1) and `labels` (each class by itself).
    Raises DataError for lists of unequal length, no rows, or references or probabilities that do not fit the
    task.
    """
    if len(references) != len(predictions) or not references:
        raise DataError(
            f"{len(references)} references and {len(predictions)} predictions",
            "one of each for at least one row",
        )
    if hit_limit is not None and len(hit_limit) != len(predictions):
        raise DataError(f"{len(hit_limit)} limit flags for {len(predictions)} predictions", "one for each")
    kind = TASKS[task]
    scores = kind.score(references, predictions, labels)
    said = [answer or "" for answer in scores.answers] if task == "rewarded" else predictions
    rows = _failures(references, said, hit_limit)
    scores.per_row.update(rows)
    scores.metrics.update({name: float(values.mean()) for name, values in rows.items()})
    if probabilities is None:
        return scores
    if kind.probabilities is None:
        able = ", ".join(name for name, k in TASKS.items() if k.probabilities)
        raise DataError(f"probabilities for task '{task}'", f"none, or one of the tasks {able}")
    return kind.probabilities(scores, np.asarray(probabilities, np.float64))


def flips(base: Scores, tuned: Scores) -> tuple[list[int], list[int]]:
    """Rows that became better, and rows that became worse, by the row metric that the task is judged by:
    wholly right and wrong (`accuracy`, `json_exact`, `exact_match` ...), or nearer and farther (`mae`)."""
    name = _of_rows(base, TASKS[base.task].turned)
    gain = tuned.per_row[name] - base.per_row[name]
    gain = gain if metric(name).higher_is_better else -gain
    return np.flatnonzero(gain > 0).tolist(), np.flatnonzero(gain < 0).tolist()


def goodness(scores: Scores) -> NDArray[np.float64]:
    """(N,) how good each answer is, 1 for right: the task's graded row metric; of an error e, 1 / (1 + e)."""
    name = _of_rows(scores, TASKS[scores.task].graded)
    values = scores.per_row[name]
    return values if metric(name).higher_is_better else 1 / (1 + values)


def _of_rows(scores: Scores, name: str) -> str:
    """The metric itself, or its form by row where it is one of all rows together."""
    return name if name in scores.per_row else f"{name}_by_row"


def _failures(
    references: Sequence[str], predictions: Sequence[str], hit_limit: Sequence[bool] | None
) -> dict[str, NDArray[np.float64]]:
    """Answers that are none, counted only where the reference is not itself a refusal or empty."""
    pairs = list(zip(references, predictions, strict=True))
    rows = {
        "refusal_rate": np.array([float(text.is_refusal(p) and not text.is_refusal(r)) for r, p in pairs]),
        "empty_rate": np.array([float(text.is_empty(p) and not text.is_empty(r)) for r, p in pairs]),
    }
    if hit_limit is not None:
        rows["overlong_rate"] = np.asarray(hit_limit, np.float64)
    return rows
