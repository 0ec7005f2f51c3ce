"""What a head on the untuned model would do: a linear model on its frozen features (arXiv:1610.01644).

This is the base row for heads, as free generation is for language models: the base has no head of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.encode import HeadEncoder
from tunesmith.evaluate.heads import HeadAnswerer, Outputs
from tunesmith.evaluate.linear import Linear, softmax_of, standards
from tunesmith.types import IGNORED, TokenRow

MOST_VECTORS = 20_000
"""Rows (or tagged tokens) that the linear model is fitted on, drawn by the seed: more changes little."""

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


def fit_probe(answerer: HeadAnswerer, train: Sequence[TokenRow], seed: int) -> Linear:
    """Fitted on the training rows' features."""
    kind = answerer.encoder.kind
    chosen = _some(train, kind, seed)
    features = np.concatenate([np.atleast_2d(f) for f in answerer.features(chosen)])
    return _fit(answerer.encoder, features, _targets(chosen, kind))


def _fit(encoder: HeadEncoder, x: NDArray[np.float64], y: NDArray[np.float64]) -> Linear:
    """x (N, H), y (N,) or (N, C)."""
    from sklearn.linear_model import Ridge

    center, scale = standards(x)
    scaled = (x - center) / scale
    if encoder.kind == "regress":
        ridge = Ridge(alpha=1.0).fit(scaled, y)
        found = Linear(np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_))
    elif encoder.kind == "classify_many":
        fitted = [softmax_of(scaled, y[:, c].astype(int), 2) for c in range(y.shape[1])]
        weight = np.stack([one.weight[1] - one.weight[0] for one in fitted])
        found = Linear(weight, np.array([one.bias[1] - one.bias[0] for one in fitted]))
    else:
        found = softmax_of(scaled, y.astype(int), len(encoder.labels))
    return found.before(center, scale)
