"""Examples -> token rows for embeddings: every text of a row (anchor, positive, negatives) is a root by itself."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.data.backend import Asking
from tunesmith.data.encode import HeadEncoder, texts_of
from tunesmith.types import Example, Segment, TokenRow


class TextsEncoder(HeadEncoder):
    """A row that is only asked (no answer) has its anchor alone. Rows with a label have its number as their target:
    texts of one class are not held against one another."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, "embed", ())

    def describe(self) -> str:
        return f"{self.around()}; its embedding is a pooled state"

    def _encode_all(self, texts: Sequence[Any], max_length: int | None) -> Sequence[list[int]]:
        """The ids of each text, of at most `max_length` tokens, cut at its end."""
        found: list[list[int]] = self.tokenizer(
            texts,
            split_special_tokens=True,
            truncation=bool(max_length),
            max_length=max_length,
            verbose=False,
        )["input_ids"]
        return found

    def _row(self, example: Example) -> Asking[TokenRow]:
        texts = []
        for text in texts_in(example):
            ids = yield text
            texts.append(np.asarray(ids, np.int64))
        segments = tuple(Segment(ids, np.zeros(len(ids), np.float32)) for ids in texts)
        group = None if example.label is None else np.array([zlib.crc32(example.label.encode())], np.int64)
        return TokenRow(example.ref, segments, group, alone=True)

    def size(self, row: TokenRow) -> int:
        return max(len(segment.ids) for segment in row.segments)


def texts_in(example: Example) -> list[str]:
    """The anchor, its positive and its negatives."""
    rest = [example.answer, *example.negatives] if example.answer else []
    return [texts_of(example)[0], *rest]
