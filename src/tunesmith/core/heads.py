"""Heads: what reads hidden states in place of the language-model head.

The states come from the backbone, flat (layout) or padded; the head then runs on the states that it reads and on
nothing else; an embedding is the pooled state itself, of length 1. A stock head (transformers'
...ForSequenceClassification, ...ForTokenClassification) runs as it stands, around a backbone that hands it those
states. Shapes: T tokens, R rows, S texts of rows, M read tokens, H hidden size, C outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from tunesmith.core.batch import Batch
from tunesmith.types import IGNORED

Pooling = Literal["cls", "mean", "last"]


class PooledHead(nn.Module):
    """A backbone and one linear layer on a pooled state: for poolings that no stock head of the family has.

    num_outputs None: no linear layer, for embeddings.
    """

    def __init__(self, backbone: Any, num_outputs: int | None, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.classifier: nn.Linear | None = None
        if num_outputs is None:
            return
        width = backbone.config.get_text_config().hidden_size
        self.classifier = nn.Linear(width, num_outputs, dtype=backbone.dtype)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    @property
    def config(self) -> Any:
        return self.backbone.config

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = self.backbone.dtype
        return found


@dataclass
class Head:
    """kind: one output a row, a token or a completion, or an embedding of each text of a row. carrier: the module that
    holds head and backbone.

    The references stay right under PEFT, which changes layers inside them. causal: of the backbone. offset: added to
    positions (families that count from their padding id).
    """

    kind: Literal["sequence", "token", "completion", "embedding"]
    pooling: Pooling
    carrier: Any
    backbone: Any
    causal: bool
    offset: int = 0

    def outputs(self, states: Tensor, batch: Batch) -> Tensor:
        """(T, H) -> (R, C), (M, C) for the tokens that have a tag, (K, C) for completions, or (S, H) of length 1."""
        branch = any(parent >= 0 for parent in batch.layout.parents)
        assert not branch or (self.kind == "completion" and self.pooling == "last"), "rows share no tokens"
        if self.kind == "token":
            return self._stock(states[tagged(batch)][None])[0]
        pooled = pool(states, batch, self.pooling)
        if self.kind == "completion":
            pooled = pooled[batch.completions]
        if self.kind == "embedding":
            return functional.normalize(pooled.to(torch.promote_types(pooled.dtype, torch.float32)), dim=-1)
        if isinstance(self.carrier, PooledHead):
            assert self.carrier.classifier is not None
            found: Tensor = self.carrier.classifier(self.carrier.dropout(pooled))
            return found
        return self._stock(pooled[:, None])

    def reads_one_state(self) -> bool:
        """Does a stock head say of the states that it is handed what the whole model says? Some families' heads read
        more, or have a pooler that is no module by itself."""
        pad = self.carrier.config.get_text_config().pad_token_id
        ids = torch.tensor([[i for i in range(3, 12) if i != pad]])
        training = self.carrier.training
        self.carrier.eval()
        with torch.no_grad():
            whole = self.carrier(input_ids=ids).logits
            states = self.backbone(input_ids=ids).last_hidden_state
            picked = {"cls": states[:, :1], "last": states[:, -1:], "mean": states.mean(1, keepdim=True)}
            try:
                said = self._stock(states if self.kind == "token" else picked[self.pooling])
            except AttributeError:  # it asks the backbone for more than states
                return False
        self.carrier.train(training)
        gap = (said - whole).abs().max() if said.shape == whole.shape else torch.inf
        return bool(gap <= 0.05 * whole.abs().max())

    def _stock(self, states: Tensor) -> Tensor:
        """(N, L, H) -> the stock head's own result on these states."""
        with _handing(self.backbone, states):
            ids = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
            found: Tensor = self.carrier(input_ids=ids).logits
        return found


@contextmanager
def _handing(backbone: Any, states: Tensor) -> Iterator[None]:
    """The backbone's forward gives these states, whatever it is called with."""
    pooler = backbone._modules.get("pooler")
    output = BaseModelOutputWithPoolingAndCrossAttentions(
        last_hidden_state=states, pooler_output=None if pooler is None else pooler(states)
    )
    backbone.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del backbone.forward


def pool(states: Tensor, batch: Batch, pooling: Pooling) -> Tensor:
    """(T, H) -> (S, H): each text's first state, last state, or mean (in float32 or better)."""
    offsets = batch.layout.starts
    if pooling == "cls":
        return states.index_select(0, offsets[:-1])
    if pooling == "last":
        return states.index_select(0, offsets[1:] - 1)
    lengths = offsets.diff()
    text_of = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    high = torch.promote_types(states.dtype, torch.float32)
    sums = states.new_zeros(len(lengths), states.shape[1], dtype=high).index_add(0, text_of, states.to(high))
    return (sums / lengths[:, None]).to(states.dtype)


def targets(batch: Batch) -> Tensor:
    """What the head should have said: (R,) classes, (R, C) shares or numbers, or (M,) tags."""
    found = [row.target for row in batch.rows if row.target is not None]
    assert len(found) == batch.num_rows, "rows for a head carry a target"
    if found[0].dtype == np.int64:
        numbers = torch.from_numpy(np.concatenate(found))
        return numbers[numbers != IGNORED]
    return torch.from_numpy(np.stack(found))


def tagged(batch: Batch) -> Tensor:
    """(M,) flat indices of the tokens that have a tag."""
    tags = np.concatenate([row.target for row in batch.rows if row.target is not None])
    return torch.from_numpy(np.flatnonzero(tags != IGNORED))
