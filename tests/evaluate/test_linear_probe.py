"""The linear probe's folded weights, against scikit-learn's own pipeline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tunesmith.evaluate.linear_probe import _fit

RNG = np.random.default_rng(0)
X, NEW = RNG.normal(size=(200, 8)) * 3 + 1, RNG.normal(size=(50, 8)) * 3 + 1


@dataclass
class Encoder:
    kind: str
    labels: tuple[str, ...]


@pytest.mark.parametrize("count", [2, 5])
def test_classes(count: int) -> None:
    y = np.argmax(X[:, :count] + RNG.normal(size=(200, count)), axis=1).astype(float)
    probe = _fit(Encoder("classify", tuple("abcde"[:count])), X, y)  # type: ignore[arg-type]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(X, y)
    logits = probe(NEW)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    assert shares / shares.sum(1, keepdims=True) == pytest.approx(model.predict_proba(NEW), abs=1e-6)


def test_numbers_and_a_class_that_no_row_has() -> None:
    y = X @ RNG.normal(size=(8, 2))
    probe = _fit(Encoder("regress", ("a", "b")), X, y)  # type: ignore[arg-type]
    assert probe(NEW) == pytest.approx(make_pipeline(StandardScaler(), Ridge()).fit(X, y).predict(NEW))
    probe = _fit(Encoder("classify", ("a", "b", "c")), X, np.where(X[:, 0] > 1, 2.0, 0.0))  # type: ignore[arg-type]
    assert set(probe(NEW).argmax(1)) == {0, 2}


def test_a_feature_that_is_only_rounding_noise_is_not_blown_up() -> None:
    x = np.concatenate([X, 1e-32 * RNG.normal(size=(200, 1))], axis=1)
    probe = _fit(Encoder("classify", ("a", "b")), x, (X[:, 0] > 1).astype(float))  # type: ignore[arg-type]
    assert np.abs(probe.weight).max() < 100
