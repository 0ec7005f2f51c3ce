"""Attention of short rows that see themselves in both directions, a head of a row at once within the cache.

For the rows of encoders: batched products of a few dozen tokens cost more in calls and copies than in arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunesmith.core.layout import Layout
from tunesmith.core.native.call import call, whole
from tunesmith.core.native.ops import seed

LONGEST = 128
"""Tokens of a row: for longer ones batched products are faster."""


def are_short(layout: Layout) -> bool:
    """Whether all segments are rows of their own with at most LONGEST tokens."""
    count = len(layout.parents)
    return max(layout.parents) < 0 and max(layout.length(s) for s in range(count)) <= LONGEST


class AttendShort(torch.autograd.Function):
    """query, key, value (T, heads * dim), each token's heads side by side, and the rows' offsets (R + 1,) -> (T, heads
    * dim); zero for filler tokens after the last row."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        offsets: Tensor,
        sizes: tuple[int, int, float],
        dropout: float,
    ) -> Tensor:
        ctx.sizes = (len(offsets) - 1, *sizes, seed() if dropout else 0, float(dropout))
        out = query.new_zeros(query.shape)
        call("attend_short", query.dtype, *_strided(query, key, value), offsets, out, *ctx.sizes)
        ctx.save_for_backward(query, key, value, offsets)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, offsets = ctx.saved_tensors
        out = [grad.new_zeros(grad.shape) for _ in inputs]
        call(
            "attend_short_backward",
            grad.dtype,
            *_strided(*inputs),
            offsets,
            whole(grad),
            *out,
            *ctx.sizes,
        )
        return (*out, None, None, None)


def _strided(*tensors: Tensor) -> list[Tensor | int]:
    return [part for tensor in tensors for part in (tensor, tensor.stride(0))]
