"""A causal language model behind one call: logits at the loss positions of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tunesmith.core.batch import Batch, PaddedBatch
from tunesmith.core.loss import cross_entropy
from tunesmith.errors import ModelError

ROUND_TO = 64


@dataclass
class Model:
    """module: a transformers causal LM, or a PEFT model around one. path: how rows reach it.

    `layout` needs the module to run under the attention of `tunesmith.core.attention`, for an architecture that
    `tunesmith.core.gate` accepted; `padded` runs on any.
    """

    module: Any
    path: Literal["layout", "padded"]
    num_layers: int

    def logits(self, batch: Batch) -> Tensor:
        """(M, V): the head runs on loss positions only (layout), or on the columns that hold any (padded)."""
        return self._layout_logits(batch) if self.path == "layout" else self._padded_logits(batch)

    def _layout_logits(self, batch: Batch) -> Tensor:
        layout = batch.layout
        calls = layout.calls
        output = self.module(
            input_ids=_filled(batch.input_ids)[None],
            position_ids=_filled(layout.positions)[None],
            attention_mask=_no_mask(),
            logits_to_keep=_filled(batch.predict_from),
            use_cache=False,
            layout=layout,
        )
        if layout.calls - calls != self.num_layers:
            raise ModelError(
                f"the layout reached {layout.calls - calls} of {self.num_layers} attention layers",
                "every attention layer sees the layout",
                "set model.path=padded",
            )
        return output.logits[0, : len(batch.predict_from)]  # type: ignore[no-any-return]

    def _padded_logits(self, batch: Batch) -> Tensor:
        padded = PaddedBatch.of(batch)
        columns, column_of = padded.column.unique(return_inverse=True)
        output = self.module(
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            logits_to_keep=columns,
            use_cache=False,
        )
        flat = padded.row * len(columns) + column_of
        return output.logits.flatten(0, 1).index_select(0, flat)  # type: ignore[no-any-return]


def _filled(x: Tensor) -> Tensor:
    """(n,) -> (n rounded up,) with zeros: kernels are compiled and kept for each shape, so there should be few.

    Filler tokens belong to no segment: no token sees them, and no loss position reads them.
    """
    return torch.nn.functional.pad(x, (0, -len(x) % ROUND_TO))


def _no_mask() -> Tensor:
    """An empty 4-D mask: transformers hands a 4-D mask on as it is, so no T x T mask is built."""
    return torch.empty(1, 1, 0, 0)


def token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """(M, V), (M,) -> (M,) log-probability of each target, in float32 or better."""
    return -cross_entropy(logits, targets)[0]
