"""Rows as vectors of words, for probes: a bag of words made dense."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluate.baselines import asked
from tunesmith.evaluate.vectorizer import vectorizer_of
from tunesmith.types import Example

Floats = NDArray[np.float64]
Vectors = Callable[[Sequence[Example]], Floats]
DIMENSIONS = 256
"""Of a bag of words, after a truncated singular value decomposition (latent semantic analysis)."""


def words(examples: Sequence[Example], seed: int) -> Floats:
    """(N, D) TF-IDF of words and pairs of words; of more than DIMENSIONS columns, as many components of them."""
    return words_of(examples, seed)[0]


def words_of(examples: Sequence[Example], seed: int) -> tuple[Floats, Vectors]:
    """`words` of these, and what makes such of further ones: their columns and weights are those of these."""
    from sklearn.decomposition import TruncatedSVD

    texts = [asked(example) for example in examples]
    vectorizer = vectorizer_of(texts)
    if vectorizer is None:
        return np.zeros((len(texts), 1)), lambda more: np.zeros((len(more), 1))
    counts = vectorizer.fit_transform(texts)
    if min(counts.shape) <= DIMENSIONS:
        return np.asarray(counts.toarray(), np.float64), lambda more: np.asarray(
            vectorizer.transform(map(asked, more)).toarray(), np.float64
        )
    components = TruncatedSVD(DIMENSIONS, random_state=seed)
    found = np.asarray(components.fit_transform(counts), np.float64)
    return found, lambda more: np.asarray(
        components.transform(vectorizer.transform(map(asked, more))), np.float64
    )
