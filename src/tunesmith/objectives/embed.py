"""Embeddings: an anchor lies nearer to its positive than to the other candidates, by the cosine s of unit vectors.

Contrastive, of one anchor a with positive p among candidates c: -log(exp(s(a, p) / t) / sum_c exp(s(a, c) / t))
(InfoNCE, arXiv:1807.03748, equation 4). Triplet: max(0, m - s(a, p) + max over c != p of s(a, c)) (arXiv:1503.03832,
equation 3, in cosine, with the hardest negative). Both are summed over the anchors and divided by their number.

The candidates are all positives and negatives of the step, of equal texts one, without the anchor's own text and the
texts of other rows of its class, where rows have one; or the row's own negatives alone. So a row's loss depends on rows
of other micro-batches: `begin_step` embeds them all without gradient, and each micro-batch then puts its own, live, in
their place in the loss of the whole step. The gradients add up to that of the undivided step (arXiv:2101.06983). Random
numbers (dropout) are the same in both passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.config.methods import EmbedConfig
from tunesmith.core.batch import Batch
from tunesmith.core.device import random_state, set_random_state
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives import OBJECTIVES
from tunesmith.types import TokenRow

TERM = "embed"


@dataclass(frozen=True)
class _Other:
    """A micro-batch of the step: its embeddings (S, H), and the random state that made them."""

    batch: Batch
    embeddings: Tensor
    random: list[Tensor]


class Embed:
    def __init__(self, config: EmbedConfig) -> None:
        self.config = config
        self._step: list[_Other] = []

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        return {TERM: torch.tensor(float(batch.num_rows))}

    def begin_step(self, model: Model, batches: Sequence[Batch]) -> None:
        self._step = []
        if len(batches) == 1 or self.config.candidates == "own":
            return
        for batch in batches:
            random = random_state(model.device)
            with torch.no_grad():
                self._step.append(_Other(batch, model.outputs(batch), random))

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        at = next((i for i, other in enumerate(self._step) if other.batch is batch), None)
        if at is None:
            losses, nearest = row_losses(self.config, batch.rows, model.outputs(batch))
            return _output(losses.sum(), nearest)
        set_random_state(model.device, self._step[at].random)
        pieces = [other.embeddings for other in self._step]
        pieces[at] = model.outputs(batch)
        rows = [row for other in self._step for row in other.batch.rows]
        losses, nearest = row_losses(self.config, rows, torch.cat(pieces))
        first = sum(other.batch.num_rows for other in self._step[:at])
        own = slice(first, first + batch.num_rows)
        whole = losses.sum()
        return _output(whole - whole.detach() + losses[own].sum().detach(), nearest[own])


OBJECTIVES.register("embed")(Embed)


def _output(loss: Tensor, nearest: Tensor) -> LossOutput:
    return LossOutput(
        terms={TERM: loss},
        metrics={"accuracy": nearest.sum()},
        metric_weights={"accuracy": torch.tensor(float(len(nearest)))},
    )


def row_losses(config: EmbedConfig, rows: Sequence[TokenRow], embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """(S, H) of the texts of R rows -> (R,) losses, and whether the positive is the nearest candidate."""
    anchors, allowed, positive = _held_against(rows, config.candidates == "own")
    cosines = embeddings[anchors] @ embeddings.T
    right = cosines.gather(1, positive[:, None])[:, 0]
    others = cosines.masked_fill(~allowed, -torch.inf)
    hardest = others.amax(1)
    nearest = (right.detach() > hardest.detach()).to(right.dtype)
    if config.criterion == "triplet":
        return functional.relu(config.margin - right + hardest), nearest
    allowed = allowed.scatter(1, positive[:, None], True)
    logits = (cosines / config.temperature).masked_fill(~allowed, -torch.inf)
    return functional.cross_entropy(logits, positive, reduction="none"), nearest


def _held_against(rows: Sequence[TokenRow], own: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(R,) places of the anchors among the S texts; (R, S) the texts that each positive is held against; (R,) places
    of the positives."""
    names: dict[bytes, int] = {}
    texts = [segment.ids.tobytes() for row in rows for segment in row.segments]
    text = torch.tensor([names.setdefault(t, len(names)) for t in texts])  # equal texts, equal numbers
    sizes = torch.tensor([len(row.segments) for row in rows])
    anchors = sizes.cumsum(0) - sizes
    positive = anchors + 1
    group = torch.arange(len(rows)).repeat_interleave(sizes)
    candidate = torch.ones(len(text), dtype=torch.bool).index_fill(0, anchors, False)
    scope = group if own else torch.zeros_like(group)  # equal texts count once: in their row, or in the step
    allowed = (candidate & _first(scope * len(names) + text, candidate)).repeat(len(rows), 1)
    allowed &= (text != text[anchors, None]) & (text != text[positive, None])
    mine = group == torch.arange(len(rows))[:, None]
    kind = torch.tensor([-1 if row.target is None else int(row.target[0]) for row in rows])
    allowed &= mine | (kind[:, None] < 0) | (kind[group] != kind[:, None])
    if own:
        allowed &= mine
    return anchors, allowed, positive


def _first(keys: Tensor, counted: Tensor) -> Tensor:
    """(S,) bool: the first of equal keys among those that are counted."""
    seen: set[int] = set()
    first = torch.zeros(len(keys), dtype=torch.bool)
    for place in torch.nonzero(counted)[:, 0].tolist():
        key = int(keys[place])
        first[place] = key not in seen
        seen.add(key)
    return first
