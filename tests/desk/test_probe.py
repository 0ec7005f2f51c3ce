"""The probe of labels: folds that keep alike rows together, and confident learning against a count by hand."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from tunesmith.desk.probe import doubtful, folds_of, judged, out_of_fold

RNG = np.random.default_rng(3)
CENTERS = np.array([[6.0, 0.0], [0.0, 6.0], [-6.0, -6.0]])


def clouds(each: int) -> tuple[np.ndarray, np.ndarray]:
    y = np.repeat(np.arange(3), each)
    return CENTERS[y] + RNG.normal(size=(3 * each, 2)), y


def pruned_by_hand(y: np.ndarray, p: np.ndarray) -> set[int]:
    """Confident learning (arXiv:1911.00068, equations 1 to 3), a class at a time: thresholds are the mean confidence of
    a class's own rows; a row counts as (given i, true j) where p_j is over its threshold and the largest such; the
    counts, brought to the classes' sizes, say how many rows of each pair are pruned, those of the largest p_j - p_i."""
    n, classes = p.shape
    thresholds = [p[y == k, k].mean() for k in range(classes)]
    joint = np.zeros((classes, classes))
    for row in range(n):
        over = [k for k in range(classes) if p[row, k] >= thresholds[k]]
        if over:
            joint[y[row], max(over, key=lambda k: p[row, k])] += 1
    joint *= (np.bincount(y) / joint.sum(1))[:, None]
    found: set[int] = set()
    for i in range(classes):
        for j in set(range(classes)) - {i}:
            members = [row for row in range(n) if y[row] == i]
            members.sort(key=lambda row: p[row, j] - p[row, i], reverse=True)
            found |= set(members[: round(joint[i, j])])
    return found


def test_candidates_are_those_that_a_count_by_hand_prunes() -> None:
    p = np.array(
        [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.15, 0.85], [0.95, 0.05]]
    )
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1])  # the fourth and the last are wrong
    assert pruned_by_hand(y, p) == {3, 7}
    assert set(np.flatnonzero(doubtful(y, p))) == {3, 7}


def test_candidates_of_noisy_clouds_are_those_that_were_flipped() -> None:
    x, true = clouds(60)
    y = true.copy()
    flipped = RNG.choice(len(y), 9, replace=False)
    y[flipped] = (y[flipped] + 1) % 3
    found = judged(x, y, np.arange(len(y)), folds=5, repeats=2, strength=1.0, seed=0)
    assert set(found.worst_first[:9]) == set(flipped)
    assert set(np.flatnonzero(found.doubtful)) == pruned_by_hand(y, found.probabilities) <= set(flipped)
    assert (found.suggested[flipped] == true[flipped]).all()
    assert (found.margin[flipped] < 0).all()
    np.testing.assert_allclose(found.loss, -np.log(found.probabilities[np.arange(len(y)), y]))


def test_a_row_is_judged_by_a_probe_that_did_not_see_it() -> None:
    x, y = clouds(20)
    folds = folds_of(y, np.arange(len(y)), 4, seed=1)
    found = out_of_fold(x, y, 3, folds, 0.5, seed=1)
    held = folds == 2
    center, scale = x[~held].mean(0), x[~held].std(0)
    model = LogisticRegression(C=0.5, max_iter=200).fit((x[~held] - center) / scale, y[~held])
    logits = (x[held] - center) / scale @ model.coef_.T + model.intercept_
    np.testing.assert_allclose(found[held], softmax(logits, -1), atol=1e-3)


def test_rows_that_belong_together_are_in_one_fold_and_classes_in_all() -> None:
    y = np.tile(np.arange(4), 30)
    groups = np.arange(120) // 8
    folds = folds_of(y, groups, 5, seed=0)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    assert all(set(y[folds == fold]) == {0, 1, 2, 3} for fold in range(5))


def test_a_class_of_fewer_rows_than_folds_is_judged() -> None:
    x, y = clouds(12)
    y[-2:] = 3
    found = judged(x, y, np.arange(len(y)), folds=5, repeats=1, strength=1.0, seed=0)
    assert np.isfinite(found.loss).all()
    assert (found.difficulty == 0).all()
