"""What a head on the untuned model would do: a linear model on its frozen features (arXiv:1610.01644).

This is the base row for heads, as free generation is for language models: the base has no head of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.encode import HeadEncoder
from tunesmith.evaluate.heads import HeadAnswerer, Outputs
from tunesmith.types import IGNORED, TokenRow

MOST_VECTORS = 20_000
"""Rows (or tagged tokens) that the linear model is fitted on, drawn by the seed: more changes little."""
MAX_ITER = 200
DEAD = 1e-3
"""A feature that varies less than this share of the median feature is noise, and is not blown up to unit variance."""
NEVER = -30.0
"""Logit of a class that no fitted row has."""

NOTE = (
    "a linear probe on the untuned model's frozen features (scikit-learn: standardised; LogisticRegression C=1, "
    "Ridge alpha=1 for numbers)"
)


def linear_probe(
    answerer: HeadAnswerer, train: Sequence[TokenRow], test: Sequence[TokenRow], seed: int
) -> list[Outputs]:
    """Fitted on the training rows' features; its outputs for the test rows, in the form of the head's own."""
    probe = fit_probe(answerer, train, seed)
    found = [probe(np.atleast_2d(f)) for f in answerer.features(test)]
    return found if answerer.encoder.kind == "tag" else [f[0] for f in found]


def _some(rows: Sequence[TokenRow], kind: str, seed: int) -> list[TokenRow]:
    chosen, used = [], 0
    for i in np.random.default_rng((seed, 4)).permutation(len(rows)):
        if used >= MOST_VECTORS:
            break
        chosen.append(rows[i])
        used += rows[i].num_tokens if kind == "tag" else 1
    return chosen


def _targets(rows: Sequence[TokenRow], kind: str) -> NDArray[np.float64]:
    found = [r.target for r in rows if r.target is not None]
    if kind == "tag":
        tags = np.concatenate(found)
        return np.asarray(tags[tags != IGNORED], np.float64)
    joined = np.concatenate(found) if kind == "classify" else np.stack(found)
    return np.asarray(joined, np.float64)


@dataclass(frozen=True)
class Linear:
    """weight (C, H), bias (C,): features -> logits, or scaled numbers."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K, H) -> (K, C)."""
        return np.asarray(x @ self.weight.T + self.bias, np.float64)


def fit_probe(answerer: HeadAnswerer, train: Sequence[TokenRow], seed: int) -> Linear:
    """Fitted on the training rows' features."""
    kind = answerer.encoder.kind
    chosen = _some(train, kind, seed)
    features = np.concatenate([np.atleast_2d(f) for f in answerer.features(chosen)])
    return _fit(answerer.encoder, features, _targets(chosen, kind))


def _fit(encoder: HeadEncoder, x: NDArray[np.float64], y: NDArray[np.float64]) -> Linear:
    """x (N, H), y (N,) or (N, C); standardised for the fit, and folded back into weight and bias."""
    from sklearn.linear_model import Ridge

    center, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.maximum(scale, DEAD * np.median(scale))
    scaled = (x - center) / scale
    if encoder.kind == "regress":
        ridge = Ridge(alpha=1.0).fit(scaled, y)
        weight, bias = np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_)
    elif encoder.kind == "classify_many":
        fitted = [_softmax(scaled, y[:, c], 2) for c in range(y.shape[1])]
        weight = np.stack([w[1] - w[0] for w, _ in fitted])
        bias = np.array([b[1] - b[0] for _, b in fitted])
    else:
        weight, bias = _softmax(scaled, y, len(encoder.labels))
    weight = weight / scale
    return Linear(weight, bias - weight @ center)


def _softmax(
    x: NDArray[np.float64], y: NDArray[np.float64], num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C, H), (C,) of a logistic regression; a class that no row has is never chosen."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, NEVER)
    present = np.unique(y).astype(int)
    if len(present) == 1:
        bias[present[0]] = -NEVER
        return weight, bias
    model = LogisticRegression(max_iter=MAX_ITER)
    with warnings.catch_warnings():  # a probe that has not wholly converged is a probe all the same
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    two = len(present) == 2  # scikit-learn then has one row: the log-odds of the second class
    weight[present] = np.vstack([-model.coef_ / 2, model.coef_ / 2]) if two else model.coef_
    bias[present] = np.r_[-model.intercept_ / 2, model.intercept_ / 2] if two else model.intercept_
    return weight, bias
