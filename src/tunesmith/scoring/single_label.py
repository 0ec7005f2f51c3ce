"""Answers that name one class each: scores, and what probabilities of the classes add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tunesmith.scoring import labels as classes
from tunesmith.scoring import probabilities as p
from tunesmith.scoring.pooled import Columns, Floats, Pooled
from tunesmith.scoring.scores import Scores, means


def score_label(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Scores:
    """Scores of class names; an answer that names no known class is wrong."""
    codes = classes.label_codes(references, predictions, labels)
    valid = codes.predicted < len(labels)
    rows = {
        "accuracy": (codes.reference == codes.predicted).astype(np.float64),
        "valid_label": valid.astype(np.float64),
    }
    return Scores(
        task="label",
        metrics=means(rows) | classes.averages(codes),
        per_row=rows,
        pooled={"macro_f1": codes},
        labels=tuple(labels),
        confusion=classes.confusion(codes),
        per_class=classes.per_class(codes),
        answers=tuple(labels[i] if ok else None for i, ok in zip(codes.predicted, valid, strict=True)),
    )


def label_probabilities(scores: Scores, probabilities: Floats) -> Scores:
    """`scores` with what probabilities (N, L), columns in the order of its labels, say of every row.

    auroc and auprc: of the second class where there are two, else the mean over the classes. ece and the
    calibration: of the likeliest class, whatever the answer was read as.
    """
    p.check(probabilities, scores.num_rows, len(scores.labels), sums_to_one=True)
    reference = scores.codes["macro_f1"].reference
    wanted = p.indicators(reference, len(scores.labels))
    apart = slice(1, None) if len(scores.labels) == 2 else slice(None)
    confidence, right = p.chosen(reference, probabilities)
    rows = {
        "brier": p.brier_rows(reference, probabilities),
        "nll": p.nll_rows(reference, probabilities),
    }
    ranked = p.ranking(wanted[:, apart], probabilities[:, apart], scores.labels)
    ece = Columns(np.empty((len(right), 0)), np.stack([confidence, right], axis=1), p.weighted_ece)
    pooled: dict[str, Pooled] = {**ranked, "ece": ece}
    metrics = {
        **p.ranking_metrics(ranked),
        "ece": p.expected_calibration_error(confidence, right),
        **means(rows),
    }
    return replace(
        scores,
        metrics=scores.metrics | metrics,
        per_row=scores.per_row | rows,
        pooled={**scores.pooled, **pooled},
        calibration=p.Calibration(
            p.reliability(confidence, right),
            tuple(p.abstention(confidence, right, threshold) for threshold in p.THRESHOLDS),
        ),
    )
