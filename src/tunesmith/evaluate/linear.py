"""Linear models on features that stand still: standardised for the fit, then folded back into weight and bias."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_ITER = 200
DEAD = 1e-3
"""A feature that varies less than this share of the median feature is noise, and is not blown up to unit variance."""
NEVER = -30.0
"""Logit of a class that no fitted row has."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """weight (C, H), bias (C,): features -> logits, or scaled numbers."""

    weight: Floats
    bias: Floats

    def __call__(self, x: Floats) -> Floats:
        """(K, H) -> (K, C)."""
        return np.asarray(x @ self.weight.T + self.bias, np.float64)

    def before(self, center: Floats, scale: Floats) -> Linear:
        """The same model of features that were not yet standardised."""
        weight = self.weight / scale
        return Linear(weight, self.bias - weight @ center)


def standards(x: Floats) -> tuple[Floats, Floats]:
    """(H,) center and (H,) scale of features x (N, H)."""
    scale = x.std(axis=0)
    scale = np.maximum(scale, DEAD * np.median(scale))
    return x.mean(axis=0), np.where(scale == 0, 1.0, scale)


def softmax_of(x: Floats, y: NDArray[np.int64], num_classes: int, strength: float = 1.0) -> Linear:
    """A logistic regression (scikit-learn's, C = strength) on standardised x (N, H), y (N,) class numbers; a class
    that no row has is never chosen."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, NEVER)
    present = np.unique(y)
    if len(present) == 1:
        bias[present[0]] = -NEVER
        return Linear(weight, bias)
    model = LogisticRegression(C=strength, max_iter=MAX_ITER)
    with warnings.catch_warnings():  # a probe that has not wholly converged is a probe all the same
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    two = len(present) == 2  # scikit-learn then has one row: the log-odds of the second class
    weight[present] = np.vstack([-model.coef_ / 2, model.coef_ / 2]) if two else model.coef_
    bias[present] = np.r_[-model.intercept_ / 2, model.intercept_ / 2] if two else model.intercept_
    return Linear(weight, bias)
