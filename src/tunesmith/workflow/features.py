"""Rows as vectors, for probes: states of a pre-trained model, or a bag of words made dense."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.run import ModelConfig
from tunesmith.data.backend import one
from tunesmith.data.encode import HeadEncoder
from tunesmith.evaluate.baselines import asked
from tunesmith.evaluate.heads import HeadAnswerer
from tunesmith.evaluate.vectorizer import vectorizer_of
from tunesmith.models.heads import HeadSpec
from tunesmith.models.load import load_model
from tunesmith.types import Example
from tunesmith.workflow.heads import context_of

Floats = NDArray[np.float64]
DIMENSIONS = 256
"""Of a bag of words, after a truncated singular value decomposition (latent semantic analysis)."""
PLACEHOLDERS = ("a", "b")
"""Labels of a head that is never asked: only the states that it would read are."""


def states(model: str, examples: Sequence[Example]) -> Floats:
    """(N, H) what a head on this model would read of each text; a text that is too long is cut at its end."""
    spec = HeadSpec("classify", PLACEHOLDERS)
    loaded = load_model(ModelConfig.model_validate({"base": model, "dtype": "float32"}), head=spec)
    encoder = HeadEncoder(loaded.tokenizer, "classify", PLACEHOLDERS)
    context = context_of(loaded.model.module.config, loaded.tokenizer, loaded.model.virtual_tokens)
    rows = [one([row]) for row in encoder.rows_of(examples, context)]
    return np.stack(HeadAnswerer(loaded.model, encoder, context).features(rows))


def words(examples: Sequence[Example], seed: int) -> Floats:
    """(N, D) TF-IDF of words and pairs of words; of more than DIMENSIONS columns, as many components of them."""
    from sklearn.decomposition import TruncatedSVD

    texts = [asked(example) for example in examples]
    vectorizer = vectorizer_of(texts)
    if vectorizer is None:
        return np.zeros((len(texts), 1))
    counts = vectorizer.fit_transform(texts)
    if min(counts.shape) <= DIMENSIONS:
        return np.asarray(counts.toarray(), np.float64)
    return np.asarray(TruncatedSVD(DIMENSIONS, random_state=seed).fit_transform(counts), np.float64)
