"""Running a model that embeds texts: vectors of texts, the ranking of test rows' candidates, and the loss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from tunesmith.config.methods import EmbedConfig
from tunesmith.data.embed_rows import texts_in
from tunesmith.evaluate.answers import Answers
from tunesmith.evaluate.heads import HeadAnswerer, Outputs
from tunesmith.evaluate.ranking import Offered
from tunesmith.evaluate.report import Losses
from tunesmith.objectives.embed import row_losses
from tunesmith.types import Example, TokenRow

ROWS_HELD_TOGETHER = 64
"""Rows of a loss that is measured: each positive is held against the candidates of so many neighbours in the file."""
DIGITS = 7
"""Of the numbers of an embedding, as written: what float32 holds."""


@dataclass(frozen=True)
class Retriever(HeadAnswerer):
    """A model that embeds texts. Rows with answers are ranked; rows without one are answered with their embedding."""

    method: EmbedConfig = field(default_factory=EmbedConfig)

    def read(self, examples: Sequence[Example], outputs: Sequence[Outputs]) -> Answers:
        none = [False] * len(examples)
        if any(len(found) == 1 for found in outputs):
            return Answers(
                [json.dumps([float(f"{x:.{DIGITS}g}") for x in found[0]]) for found in outputs], none
            )
        offered = Offered.of(examples)
        place: dict[str, NDArray[np.float64]] = {}
        for example, found in zip(examples, outputs, strict=True):
            for text, vector in zip(texts_in(example)[1:], found[1:], strict=True):
                place.setdefault(text, vector)
        candidates = np.stack([place[text] for text in offered.texts])
        anchors = np.stack([found[0] for found in outputs])
        return Answers(offered.ranked(lambda rows: anchors[rows] @ candidates.T), none)

    def losses_of(self, rows: Sequence[TokenRow], outputs: Sequence[Outputs]) -> Losses:
        """Of each anchor, among the candidates of ROWS_HELD_TOGETHER rows."""
        found = []
        for start in range(0, len(rows), ROWS_HELD_TOGETHER):
            part = slice(start, start + ROWS_HELD_TOGETHER)
            losses, _ = row_losses(self.method, rows[part], torch.from_numpy(np.concatenate(outputs[part])))
            found.append(losses.double().numpy())
        return Losses(np.concatenate(found), np.ones(len(rows), np.int64))
