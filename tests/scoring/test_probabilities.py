"""Probabilities: scikit-learn where it has the measure, the papers' formulas by hand where it has not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from tunesmith.errors import DataError
from tunesmith.scoring import align, score
from tunesmith.scoring import probabilities as p


def rows(num_classes: int, seed: int = 0, num: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """(classes (N,), probabilities (N, L)); rounded, so that there are ties."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, num_classes, num)
    logits = rng.normal(size=(num, num_classes)) + 1.5 * np.eye(num_classes)[reference]
    shares = np.exp(logits).round(0) + 0.1
    return reference, shares / shares.sum(axis=1, keepdims=True)


def scored(reference: np.ndarray, shares: np.ndarray) -> dict[str, float]:
    names = [str(i) for i in range(shares.shape[1])]
    answers = [names[i] for i in shares.argmax(axis=1)]
    return score("label", [names[i] for i in reference], answers, names, probabilities=shares).metrics


def test_two_classes_are_scikit_learns() -> None:
    reference, shares = rows(2)
    found = scored(reference, shares)
    assert found["auroc"] == pytest.approx(roc_auc_score(reference, shares[:, 1]))
    assert found["auprc"] == pytest.approx(average_precision_score(reference, shares[:, 1]))
    assert found["brier"] == pytest.approx(brier_score_loss(reference, shares[:, 1], scale_by_half=False))
    assert found["nll"] == pytest.approx(log_loss(reference, shares))


def test_more_classes_are_the_mean_of_one_against_the_rest() -> None:
    reference, shares = rows(4)
    found = scored(reference, shares)
    onehot = np.eye(4)[reference]
    assert found["auroc"] == pytest.approx(roc_auc_score(reference, shares, multi_class="ovr"))
    assert found["auprc"] == pytest.approx(average_precision_score(onehot, shares))
    assert found["nll"] == pytest.approx(log_loss(reference, shares, labels=range(4)))
    assert found["brier"] == pytest.approx(np.mean(np.sum((shares - onehot) ** 2, axis=1)))


def test_a_class_that_no_row_has_is_left_out_and_one_alone_is_not_ranked() -> None:
    reference, shares = rows(3)
    padded = align(shares, ["0", "1", "2"], ["0", "1", "2", "9"])
    assert padded[:, 3].tolist() == [0] * 80
    assert scored(reference, padded)["auroc"] == pytest.approx(scored(reference, shares)["auroc"])
    assert "auroc" not in scored(np.zeros(80, int), shares)


@pytest.mark.parametrize(
    ("function", "reference"),
    [(p.weighted_auroc, roc_auc_score), (p.weighted_auprc, average_precision_score)],
)
def test_a_reweighted_sample_is_one_with_repeated_rows(function, reference) -> None:  # type: ignore[no-untyped-def]
    numbers, shares = rows(3, seed=1, num=25)
    onehot = np.eye(3)[numbers]
    weights = np.random.default_rng(2).integers(0, 3, (6, 25)).astype(float)
    weights[1, numbers == 2] = 0  # a class that a sample misses
    weights[2, numbers != 0] = 0  # a sample of one class
    found = function(onehot, shares, weights)
    for i, row in enumerate(weights):
        repeated = np.repeat(np.arange(25), row.astype(int))
        there = [c for c in range(3) if 0 < onehot[repeated, c].mean() < 1]
        if not there:
            assert np.isnan(found[i])
            continue
        each = [reference(onehot[repeated, c], shares[repeated, c]) for c in there]
        assert found[i] == pytest.approx(np.mean(each))


def test_calibration_error_by_hand() -> None:
    # equation 3: two bins of (0.8, 0.8667] and (0.9333, 1]: |0.5 - 0.85| on 2 rows, |1 - 0.97| on 3, |0 - 1| on none
    confidence = np.array([0.84, 0.86, 0.96, 0.97, 0.98])
    right = np.array([1.0, 0.0, 1.0, 1.0, 1.0])
    assert p.expected_calibration_error(confidence, right) == pytest.approx(2 / 5 * 0.35 + 3 / 5 * 0.03)
    first, last = p.reliability(confidence, right)
    assert (first.low, first.high, first.count) == pytest.approx((12 / 15, 13 / 15, 2))
    assert (last.confidence, last.accuracy, last.count) == pytest.approx((0.97, 1.0, 3))


def test_calibration_error_is_the_sum_over_bins() -> None:
    reference, shares = rows(3, seed=4, num=200)
    confidence, right = p.chosen(reference, shares)
    total = 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert p.expected_calibration_error(confidence, right) == pytest.approx(total)
    bins = p.reliability(confidence, right)
    assert sum(b.count for b in bins) == 200
    assert sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / 200 == pytest.approx(total)


def test_the_edges_of_bins() -> None:
    bins = p.reliability(np.array([0.0, 1 / 15, 0.5, 1.0]), np.ones(4))
    assert [(round(b.low * 15), b.count) for b in bins] == [(0, 2), (7, 1), (14, 1)]


def test_abstaining() -> None:
    confidence, right = np.array([0.4, 0.6, 0.9, 0.95]), np.array([0.0, 0.0, 1.0, 1.0])
    assert p.abstention(confidence, right, 0.6) == p.Abstention(0.6, 0.75, pytest.approx(2 / 3))
    none = p.abstention(confidence, right, 0.99)
    assert none.coverage == 0
    assert np.isnan(none.accuracy)


def test_a_certain_mistake_costs_much_but_not_everything() -> None:
    found = p.nll_rows(np.array([0]), np.array([[0.0, 1.0]]))
    assert 30 < found[0] < 40


def test_several_classes_a_row_are_ranked_class_by_class() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.random((40, 3)) < 0.4
    shares = np.clip(wanted * 0.4 + rng.random((40, 3)) * 0.6, 0, 1)  # rows need not sum to 1
    references = [json.dumps([n for n, on in zip("abc", row, strict=True) if on]) for row in wanted]
    found = score("labels", references, references, list("abc"), probabilities=shares)
    assert found.metrics["auroc"] == pytest.approx(roc_auc_score(wanted, shares, average="macro"))
    assert found.metrics["auprc"] == pytest.approx(average_precision_score(wanted, shares, average="macro"))
    assert found.calibration is None


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(1, 3\)(.|\n)*\(1, 2\)"):
        score("label", ["a"], ["a"], ["a", "b"], probabilities=np.ones((1, 3)) / 3)
    for bad in ([0.5, 0.4], [1.5, -0.5], [np.nan, 1.0]):
        with pytest.raises(DataError, match=r"row 0 of the probabilities"):
            score("label", ["a"], ["a"], ["a", "b"], probabilities=np.array([bad]))
    with pytest.raises(DataError, match="probabilities for task 'text'"):
        score("text", ["a"], ["a"], probabilities=np.ones((1, 1)))
    with pytest.raises(DataError, match="'z' is not among the labels"):
        align(np.ones((1, 1)), ["z"], ["a"])
