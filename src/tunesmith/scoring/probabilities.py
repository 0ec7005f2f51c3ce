"""Probabilities of classes: do they rank the rows, can they be believed, what does abstaining buy. Pure
functions.

Shapes: N rows, L classes, U distinct rows, B samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tunesmith.errors import DataError
from tunesmith.scoring.pooled import Array, Columns, Floats

NUM_BINS = 15
"""Equal-width bins of confidence, as in arXiv:1706.04599."""

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Confidences below which a report says what abstaining would do."""

LEAST = float(np.finfo(np.float64).eps)
"""A probability below this counts as this in logarithms, as in scikit-learn's log_loss."""


@dataclass(frozen=True, slots=True)
class Bin:
    """The `count` rows whose confidence lies in (low, high]: their mean confidence, and the share that is
    right."""

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, slots=True)
class Abstention:
    """Answering only where confidence is at least `threshold`: the share of rows answered (`coverage`), and
    the share of those that is right (NaN where none is answered)."""

    threshold: float
    coverage: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far the probability of the chosen class can be believed; of pairs of completions, that of the one that is
    preferred."""

    bins: tuple[Bin, ...]
    abstention: tuple[Abstention, ...]

    @property
    def ece(self) -> float:
        """Mean distance of accuracy from confidence over the bins, weighted by their rows."""
        gaps = sum(b.count * abs(b.accuracy - b.confidence) for b in self.bins)
        return gaps / sum(b.count for b in self.bins)


def indicators(reference: NDArray[np.int64], num_classes: int) -> Floats:
    """(N,) class numbers -> (N, L) of 0 and 1."""
    return np.asarray(reference[:, None] == np.arange(num_classes), np.float64)


def auroc(reference: Floats, probabilities: Floats) -> float:
    """Area under the ROC curve: how often a row of the class ranks above a row that is not of it.

    reference: (N, L) of 0 and 1. Mean over the classes that some, but not all rows have (one-vs-rest); NaN
    where there is none. For two classes that exclude each other give one column: the second class is the
    positive one.
    """
    from sklearn.metrics import roc_auc_score

    return _mean_over_classes(roc_auc_score, reference, probabilities)


def auprc(reference: Floats, probabilities: Floats) -> float:
    """Area under the precision-recall curve as average precision; averaged as `auroc`."""
    from sklearn.metrics import average_precision_score

    return _mean_over_classes(average_precision_score, reference, probabilities)


def weighted_auroc(reference: Array, probabilities: Array, weights: Floats) -> Floats:
    """`auroc` of many reweighted samples at once: (U, L), (U, L), (B, U) -> (B,)."""
    return _over_classes(_auroc, reference, probabilities, weights)


def weighted_auprc(reference: Array, probabilities: Array, weights: Floats) -> Floats:
    """`auprc` of many reweighted samples at once."""
    return _over_classes(_auprc, reference, probabilities, weights)


def chosen(reference: NDArray[np.int64], probabilities: Floats) -> tuple[Floats, Floats]:
    """(confidence, right), both (N,): the probability of the likeliest class, and whether it is the
    reference's."""
    return probabilities.max(axis=1), (probabilities.argmax(axis=1) == reference).astype(np.float64)


def reliability(confidence: Floats, right: Floats, num_bins: int = NUM_BINS) -> tuple[Bin, ...]:
    """The bins that have rows, from low to high confidence."""
    of_bin = bin_of(confidence, num_bins)
    return tuple(
        Bin(
            low=int(i) / num_bins,
            high=(int(i) + 1) / num_bins,
            confidence=float(confidence[of_bin == i].mean()),
            accuracy=float(right[of_bin == i].mean()),
            count=int((of_bin == i).sum()),
        )
        for i in np.unique(of_bin)
    )


def expected_calibration_error(confidence: Floats, right: Floats, num_bins: int = NUM_BINS) -> float:
    """Mean distance of accuracy from confidence over bins, weighted by their rows (arXiv:1706.04599, equation
    3)."""
    rows = np.stack([confidence, right], axis=1)
    return float(weighted_ece(np.empty((len(rows), 0)), rows, np.ones((1, len(rows))), num_bins)[0])


def weighted_ece(reference: Array, predicted: Array, weights: Floats, num_bins: int = NUM_BINS) -> Floats:
    """The same of many reweighted samples at once. predicted: (U, 2) confidence and right."""
    confidence, right = predicted.T
    in_bin = indicators(bin_of(confidence, num_bins), num_bins)
    gaps = np.abs(weights @ (in_bin * (right - confidence)[:, None])).sum(axis=1)
    return np.asarray(gaps / weights.sum(axis=1))


def brier_rows(reference: NDArray[np.int64], probabilities: Floats) -> Floats:
    """(N,) squared distance of the probabilities from the right answer, summed over the classes (Brier 1950):
    0 to 2."""
    return np.asarray(((probabilities - indicators(reference, probabilities.shape[1])) ** 2).sum(axis=1))


def nll_rows(reference: NDArray[np.int64], probabilities: Floats) -> Floats:
    """(N,) negative log-likelihood of the right class in nats."""
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(reference)), reference], LEAST)))


def abstention(confidence: Floats, right: Floats, threshold: float) -> Abstention:
    """Coverage and accuracy when answers of less confidence are withheld."""
    kept = confidence >= threshold
    accuracy = float(right[kept].mean()) if kept.any() else float("nan")
    return Abstention(threshold, float(kept.mean()), accuracy)


def align(probabilities: Floats, of: Sequence[str], labels: Sequence[str]) -> Floats:
    """Columns in the order of `labels`, from columns in the order of `of`; 0 for a label that a model does
    not know.

    Raises DataError where a column's class is not among `labels`.
    """
    missing = [name for name in of if name not in labels]
    if missing or probabilities.shape[1:] != (len(of),):
        raise DataError(
            f"probabilities of shape {probabilities.shape} for {len(of)} classes"
            + (f", of which '{missing[0]}' is not among the labels" if missing else ""),
            "one column for each class, and each class among the labels",
        )
    out = np.zeros((len(probabilities), len(labels)))
    out[:, [list(labels).index(name) for name in of]] = probabilities
    return out


def check(probabilities: Floats, num_rows: int, num_classes: int, *, sums_to_one: bool) -> None:
    """Raises DataError unless this is (N, L) of probabilities."""
    wanted = f"({num_rows}, {num_classes}): one row each, one column for each label"
    if probabilities.shape != (num_rows, num_classes):
        raise DataError(f"probabilities of shape {probabilities.shape}", wanted)
    bad = ~((probabilities >= 0) & (probabilities <= 1)).all(axis=1)
    if sums_to_one:
        bad |= np.abs(probabilities.sum(axis=1) - 1) > 1e-3
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        what = "numbers in [0, 1]" + (" that sum to 1" if sums_to_one else "")
        raise DataError(f"row {row} of the probabilities is {probabilities[row].tolist()}", what)


def ranking(reference: Floats, probabilities: Floats, labels: tuple[str, ...]) -> dict[str, Columns]:
    """What `auroc` and `auprc` stand on; empty where no class can be told from the others.

    reference: (N, L) of 0 and 1.
    """
    told_apart = (reference.min(axis=0) < reference.max(axis=0)).any()
    functions = {"auroc": weighted_auroc, "auprc": weighted_auprc} if told_apart else {}
    return {name: Columns(reference, probabilities, f, labels) for name, f in functions.items()}


def ranking_metrics(ranked: dict[str, Columns]) -> dict[str, float]:
    """Their values over all rows."""
    functions = {"auroc": auroc, "auprc": auprc}
    return {name: functions[name](c.reference, c.predicted) for name, c in ranked.items()}


def bin_of(confidence: Floats, num_bins: int) -> NDArray[np.int64]:
    """(m / M, (m + 1) / M] -> m."""
    return np.asarray(np.clip(np.ceil(confidence * num_bins) - 1, 0, num_bins - 1), np.int64)


def _mean_over_classes(measure: Callable[..., float], reference: Floats, probabilities: Floats) -> float:
    pairs = zip(reference.T, probabilities.T, strict=True)
    found = [measure(r, p) for r, p in pairs if 0 < r.mean() < 1]
    return float(np.mean(found)) if found else float("nan")


def _over_classes(
    measure: Callable[..., Floats], reference: Array, probabilities: Array, weights: Floats
) -> Floats:
    """(B,): the mean over the classes for which a sample defines the measure; NaN where there is none."""
    columns = np.ascontiguousarray(weights.T)
    found = np.array(
        [_by_rank(measure, r, p, columns) for r, p in zip(reference.T, probabilities.T, strict=True)]
    )
    defined = ~np.isnan(found)
    total = np.where(defined, found, 0.0).sum(axis=0)
    out: Floats = np.divide(
        total, defined.sum(axis=0), out=np.full(len(weights), np.nan), where=defined.any(axis=0)
    )
    return out


def _by_rank(measure: Callable[..., Floats], reference: Array, scores: Array, weights: Floats) -> Floats:
    """measure of (positives, negatives above, negatives beside), each (G, B): how many rows of a sample have each of
    the G distinct scores of positives, highest first, or lie between it and the one above. weights: (U, B). NaN where
    a sample lacks positives or negatives.

    Only positives' scores are steps of either curve, so a rare class costs little.
    """
    positive = reference > 0
    levels = np.unique(scores[positive])[::-1]
    out = np.full(weights.shape[1], np.nan)
    if not len(levels):
        return out
    higher = np.searchsorted(-levels, -scores)  # how many levels lie above each score
    level = np.minimum(higher, len(levels) - 1)
    beside = levels[level] == scores
    of_level = _sums(level[positive], len(levels), weights[positive])
    above = _sums(higher[~positive & ~beside], len(levels) + 1, weights[~positive & ~beside])
    ties = _sums(level[~positive & beside], len(levels), weights[~positive & beside])
    defined = (of_level.sum(axis=0) > 0) & (above.sum(axis=0) + ties.sum(axis=0) > 0)
    out[defined] = measure(of_level[:, defined], above[:, defined], ties[:, defined])
    return out


def _sums(group: NDArray[np.int64], num_groups: int, weights: Floats) -> Floats:
    """(n,) group numbers, (n, B) -> (num_groups, B)."""
    member = csr_array((np.ones(len(group)), (group, np.arange(len(group)))), shape=(num_groups, len(group)))
    found: Floats = member @ weights
    return found


def _auroc(positive: Floats, above: Floats, beside: Floats) -> Floats:
    """Share of (positive, negative) pairs in which the positive ranks higher; equal scores count half."""
    negatives = above.sum(axis=0) + beside.sum(axis=0)
    passed = np.cumsum(above[:-1], axis=0) + np.cumsum(beside, axis=0) - beside / 2
    pairs = (positive * (negatives - passed)).sum(axis=0)
    return np.asarray(pairs / (positive.sum(axis=0) * negatives))


def _auprc(positive: Floats, above: Floats, beside: Floats) -> Floats:
    """Precision at each score, weighted by the recall that it adds."""
    found = np.cumsum(positive, axis=0)
    named = found + np.cumsum(above[:-1] + beside, axis=0)
    precision = np.divide(found, named, out=np.zeros_like(found), where=named > 0)
    return np.asarray((positive * precision).sum(axis=0) / positive.sum(axis=0))
