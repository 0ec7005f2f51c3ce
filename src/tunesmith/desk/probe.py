"""A quick probe of labels: what a linear model says of each row that it was not fitted on.

Of labels that may be wrong the probe's out-of-fold probabilities tell which are doubtful: confident learning
(arXiv:1911.00068) by cleanlab. Rows that are alike are always in one fold, else a wrong label would vouch for itself.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from tunesmith.errors import ConfigError
from tunesmith.evaluate.linear import Floats, softmax_of, standards

Ints = NDArray[np.int64]
MOST_FITTED = 20_000
"""Rows that a probe is fitted on, drawn by the seed: more changes little."""


@dataclass(frozen=True)
class Judged:
    """Of N rows: probabilities (N, C), the mean over repeats; confidence (N,) that of the row's own label; margin (N,)
    that less the best other one's; difficulty (N,) standard deviation of the confidence over repeats; doubtful (N,)
    whether confident learning takes the label for wrong."""

    probabilities: Floats
    confidence: Floats
    margin: Floats
    difficulty: Floats
    doubtful: NDArray[np.bool_]

    @property
    def loss(self) -> Floats:
        """(N,) in nats."""
        return np.asarray(-np.log(np.maximum(self.confidence, np.finfo(float).tiny)))

    @property
    def suggested(self) -> Ints:
        return np.asarray(self.probabilities.argmax(1))

    @property
    def worst_first(self) -> Ints:
        """(N,) rows by their confidence, the lowest first; of equals the first row."""
        return np.asarray(np.argsort(self.confidence, kind="stable"))


def judged(
    x: Floats, y: Ints, groups: Ints, *, folds: int, repeats: int, strength: float, seed: int
) -> Judged:
    """x (N, H) features, y (N,) classes from 0, each with rows in two groups at least; groups (N,) rows that stay in
    one fold."""
    classes = int(y.max()) + 1
    found = np.stack(
        [
            out_of_fold(x, y, classes, folds_of(y, groups, folds, seed + at), strength, seed + at)
            for at in range(repeats)
        ]
    )
    own = found[:, np.arange(len(y)), y]
    mean = found.mean(0)
    others = mean.copy()
    others[np.arange(len(y)), y] = -np.inf
    confidence = mean[np.arange(len(y)), y]
    return Judged(mean, confidence, confidence - others.max(1), own.std(0), doubtful(y, mean))


def folds_of(y: Ints, groups: Ints, folds: int, seed: int) -> Ints:
    """(N,) the fold of each row, classes as evenly as groups let them; fewer folds where there are fewer groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(folds, len(np.unique(groups)), int(np.bincount(y).max()))
    out = np.zeros(len(y), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class of fewer rows than folds is in as many of them as it has rows
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for fold, (_, held) in enumerate(splitter.split(y, y, groups)):
            out[held] = fold
    return out


def out_of_fold(x: Floats, y: Ints, classes: int, folds: Ints, strength: float, seed: int) -> Floats:
    """(N, C) of each row the probabilities by a probe of the other folds."""
    out = np.zeros((len(y), classes))
    for fold in np.unique(folds):
        rest = np.flatnonzero(folds != fold)
        some = np.random.default_rng((seed, int(fold))).permutation(rest)[:MOST_FITTED]
        center, scale = standards(x[some])
        probe = softmax_of((x[some] - center) / scale, y[some], classes, strength).before(center, scale)
        out[folds == fold] = softmax(probe(x[folds == fold]), axis=-1)
    return out


def doubtful(y: Ints, probabilities: Floats) -> NDArray[np.bool_]:
    """(N,) rows whose label confident learning would prune, by the noise rate of each pair of classes."""
    try:
        from cleanlab.filter import find_label_issues
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"candidates for wrong labels are found by cleanlab ({error})",
            "cleanlab in this environment",
            "pip install 'tunesmith[quality]'",
        ) from None
    return np.asarray(find_label_issues(y, probabilities, filter_by="prune_by_noise_rate", n_jobs=1))
