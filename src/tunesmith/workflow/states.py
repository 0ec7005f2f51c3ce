"""Texts as vectors of a pre-trained model, for probes: what a head on it would read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.run import ModelConfig
from tunesmith.data.backend import one
from tunesmith.data.encode import HeadEncoder
from tunesmith.evaluate.heads import HeadAnswerer
from tunesmith.models.heads import HeadSpec
from tunesmith.models.load import load_model
from tunesmith.types import Example
from tunesmith.workflow.heads import context_of

PLACEHOLDERS = ("a", "b")
"""Labels of a head that is never asked: only the states that it would read are."""


def states_of(model: str) -> Callable[[Sequence[Example]], NDArray[np.float64]]:
    """N examples -> (N, H) what a head on this model would read of each text; a text that is too long is cut at its
    end."""
    spec = HeadSpec("classify", PLACEHOLDERS)
    loaded = load_model(ModelConfig.model_validate({"base": model, "dtype": "float32"}), head=spec)
    encoder = HeadEncoder(loaded.tokenizer, "classify", PLACEHOLDERS)
    context = context_of(loaded.model.module.config, loaded.tokenizer, loaded.model.virtual_tokens)
    answerer = HeadAnswerer(loaded.model, encoder, context)

    def states(examples: Sequence[Example]) -> NDArray[np.float64]:
        return np.stack(answerer.features([one([row]) for row in encoder.rows_of(examples, context)]))

    return states
