"""References and predictions -> metrics, and the row scores they are means of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.scoring import json_answers, text
from tunesmith.scoring import labels as classes
from tunesmith.scoring.labels import Codes
from tunesmith.scoring.metrics import PRIMARY, Task

JSON_SHARE = 0.95
"""Share of references that must be JSON objects for the task to be `json`."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How one system did on N rows.

    metrics: name -> value; the names are those of METRICS, plus `accuracy.<field>` and `macro_f1.<field>`.
    per_row: name -> (N,) float64, for the metrics that are means of rows; NaN where a row does not count.
    codes: name -> class numbers, for the metrics that are not means of rows (`macro_f1`, `macro_f1.<field>`).
    confusion: (L, L + 1) int64 for labels (last column: no valid label), else None.
    per_class: label -> precision, recall, f1, support, predicted.
    answers: what each prediction was read as: a label, an object in canonical JSON, text; None if invalid.
    """

    task: Task
    metrics: dict[str, float]
    per_row: dict[str, NDArray[np.float64]]
    codes: dict[str, Codes] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    confusion: NDArray[np.int64] | None = None
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    answers: tuple[str | None, ...] = ()

    @property
    def num_rows(self) -> int:
        return len(self.answers)

    @property
    def primary(self) -> NDArray[np.float64]:
        """(N,) row scores of the task's primary metric."""
        return self.per_row[PRIMARY[self.task]]


def detect_task(references: Sequence[str], row_labels: Sequence[str | None] = ()) -> Task:
    """`label` if every row has a label; `json` if 95 % of references are JSON objects; else `text`."""
    if row_labels and all(label is not None for label in row_labels):
        return "label"
    num_json = sum(json_answers.parse_object(r) is not None for r in references)
    return "json" if references and num_json >= JSON_SHARE * len(references) else "text"


def score(
    task: Task,
    references: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str] = (),
    *,
    hit_limit: Sequence[bool] | None = None,
) -> Scores:
    """Score predictions against references.

    labels: the known classes, for task `label` (a reference outside them is an error). hit_limit: for each
    prediction whether it was cut off at the limit of new tokens; without it `overlong_rate` is not measured.
    Raises DataError for lists of unequal length, no rows, or references that do not fit the task.
    """
    if len(references) != len(predictions) or not references:
        raise DataError(
            f"{len(references)} references and {len(predictions)} predictions",
            "one of each for at least one row",
        )
    if hit_limit is not None and len(hit_limit) != len(predictions):
        raise DataError(f"{len(hit_limit)} limit flags for {len(predictions)} predictions", "one for each")
    if task == "label":
        scores = _score_labels(references, predictions, labels)
    elif task == "json":
        scores = _score_json(references, predictions)
    else:
        scores = _score_text(references, predictions)
    rows = _failures(references, predictions, hit_limit)
    scores.per_row.update(rows)
    scores.metrics.update({name: float(values.mean()) for name, values in rows.items()})
    return scores


def flips(base: Scores, tuned: Scores) -> tuple[list[int], list[int]]:
    """Rows that became right, and rows that became wrong: exact right/wrong by `accuracy`, `json_exact` or
    `exact_match`, whichever the task has."""
    name = "exact_match" if base.task == "text" else PRIMARY[base.task]
    before, after = base.per_row[name] > 0, tuned.per_row[name] > 0
    return np.flatnonzero(~before & after).tolist(), np.flatnonzero(before & ~after).tolist()


def _score_labels(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Scores:
    codes = classes.label_codes(references, predictions, labels)
    valid = codes.predicted < len(labels)
    rows = {
        "accuracy": (codes.reference == codes.predicted).astype(np.float64),
        "valid_label": valid.astype(np.float64),
    }
    return Scores(
        task="label",
        metrics=_means(rows) | classes.averages(codes),
        per_row=rows,
        codes={"macro_f1": codes},
        labels=tuple(labels),
        confusion=classes.confusion(codes),
        per_class=classes.per_class(codes),
        answers=tuple(labels[i] if ok else None for i, ok in zip(codes.predicted, valid, strict=True)),
    )


def _score_json(references: Sequence[str], predictions: Sequence[str]) -> Scores:
    wanted: list[dict[str, Any]] = []
    kept: list[int] = []
    for row, reference in enumerate(references):
        value = json_answers.parse_object(reference)
        if value is not None:
            wanted.append(value)
            kept.append(row)
    if not kept:
        raise DataError("none of the references is a JSON object", "JSON objects, for task 'json'")
    got = [json_answers.parse_object(predictions[row]) for row in kept]
    by_field = json_answers.field_rows(wanted, got)
    schema = np.array([g is not None and g.keys() == w.keys() for w, g in zip(wanted, got, strict=True)])
    exact = np.array(
        [g is not None and json_answers.same_value(w, g) for w, g in zip(wanted, got, strict=True)]
    )
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
    codes = json_answers.field_codes(wanted, got)
    at = np.asarray(kept, np.int64)
    named = {f"macro_f1.{name}": replace(c, rows=at[c.rows]) for name, c in codes.items()}
    f1 = {name: classes.averages(c)["macro_f1"] for name, c in named.items()}
    parsed = [json_answers.parse_object(p) for p in predictions]
    answers = tuple(None if p is None else json_answers.canonical(p) for p in parsed)
    return Scores("json", _means(every) | f1, every, named, answers=answers)


def _score_text(references: Sequence[str], predictions: Sequence[str]) -> Scores:
    measures = {"rouge_l": text.rouge_l, "token_f1": text.token_f1, "exact_match": text.exact_match}
    rows = {
        name: np.array([float(measure(r, p)) for r, p in zip(references, predictions, strict=True)])
        for name, measure in measures.items()
    }
    return Scores("text", _means(rows), rows, answers=tuple(predictions))


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


def _means(rows: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    return {name: float(np.nanmean(values)) for name, values in rows.items()}


def _spread(values: NDArray[np.float64], kept: list[int], num_rows: int) -> NDArray[np.float64]:
    out = np.full(num_rows, np.nan)
    out[kept] = values
    return out
