"""What texts mean, as vectors of a sentence encoder: for de-duplication, which asks for a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.run import ModelConfig
from tunesmith.data.embed_rows import TextsEncoder
from tunesmith.evaluate.heads import HeadAnswerer
from tunesmith.models.heads import HeadSpec
from tunesmith.models.load import load_model
from tunesmith.types import RowRef, Segment, TokenRow
from tunesmith.workflow.heads import context_of


def meanings_of(model: str) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """n texts -> (n, H), each of length 1. model: a sentence encoder, or a run of method.type=embed.

    Of a text that does not fit the model's context, the mean over pieces that do, by their tokens.
    Raises ModelError for a model that has another head or does not embed.
    """
    loaded = load_model(
        ModelConfig.model_validate({"base": model, "dtype": "float32"}), head=HeadSpec("embed", ())
    )
    context = context_of(loaded.model.module.config, loaded.tokenizer, loaded.model.virtual_tokens)
    answerer = HeadAnswerer(loaded.model, TextsEncoder(loaded.tokenizer), context)

    def meanings(texts: Sequence[str]) -> NDArray[np.float32]:
        encoded = loaded.tokenizer(
            [text or " " for text in texts],  # a decoder has no token of an empty text
            split_special_tokens=True,
            truncation=True,
            max_length=context,
            return_overflowing_tokens=True,
            verbose=False,
        )
        rows = [_row(np.asarray(ids, np.int64)) for ids in encoded["input_ids"]]
        pieces = np.stack([found[0] for found in answerer.outputs(rows)])
        sizes = np.array([row.num_tokens for row in rows], np.float64)
        whole = np.zeros((len(texts), pieces.shape[1]))
        np.add.at(whole, encoded["overflow_to_sample_mapping"], pieces * sizes[:, None])
        return np.asarray(whole / np.linalg.norm(whole, axis=1, keepdims=True), np.float32)

    return meanings


def _row(ids: NDArray[np.int64]) -> TokenRow:
    segment = Segment(ids, np.zeros(len(ids), np.float32))
    return TokenRow(RowRef("input", 1), (segment,), alone=True)
