"""The norm of gradients and AdamW's step, one call for all tensors of a model (adamw.cpp): an adapter has hundreds of
small ones, for which a call each takes longer than the work in it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

import torch
from torch import Tensor

from tunesmith.core.native.call import entry

VALUES, UPDATE = Struct("3q"), Struct("10q3f2q")
"""As adamw.cpp has them."""


class Update(NamedTuple):
    """A step of one tensor; all but a gradient are contiguous, and changed in place."""

    weight: Tensor
    """float32; or bfloat16, with `beside` what it lacks of a float32."""
    gradient: Tensor
    """Of the weight's shape, float32 or bfloat16; or sparse and coalesced, some rows of a matrix."""
    first: Tensor
    second: Tensor
    """Moments, of the weight's type."""
    done: Tensor
    """() float32: steps so far."""
    beside: Tensor | None
    """The weight in bfloat16, before as after; of one in bfloat16 the 16 bits below, int16 (`tunesmith.train.lean`)."""
    clip: float
    """What the gradient is multiplied by."""
    rate: float
    decay: float
    salt: int = 0
    """Of what is rounded stochastically."""


def square_sum(tensors: Sequence[Tensor]) -> Tensor:
    """() the sum of all elements' squares, in float64; tensors: float32 or bfloat16."""
    kept = [x.contiguous() for x in tensors]
    table = b"".join([VALUES.pack(x.data_ptr(), x.dtype == torch.bfloat16, x.numel()) for x in kept])
    function = entry("square_sum", ctypes.c_char_p, ctypes.c_int64, result=ctypes.c_double)
    return torch.tensor(function(table, len(kept), torch.get_num_threads()), dtype=torch.float64)


def adamw(updates: Sequence[Update], betas: tuple[float, float], eps: float) -> None:
    """Makes each and counts it in `done`. eps as in `torch.optim.AdamW`."""
    table, kept = [], []
    for weight, gradient, first, second, done, beside, clip, rate, decay, salt in updates:
        values, rows, width = gradient, None, 0
        if gradient.is_sparse:
            values, rows, width = gradient.values(), _rows(gradient), gradient.shape[1]
        values = values.contiguous()
        kept.append((values, rows))  # addresses alone would not keep tensors alive
        row = UPDATE.pack(
            *(weight.data_ptr(), values.data_ptr(), values.dtype == torch.bfloat16),
            *(0 if rows is None else rows.data_ptr(), width),
            *(first.data_ptr(), second.data_ptr(), done.data_ptr()),
            *(0 if beside is None else beside.data_ptr(), weight.numel(), clip, rate, decay),
            *(weight.dtype == torch.bfloat16, salt),
        )
        table.append(row)
    kinds = (ctypes.c_char_p, ctypes.c_int64, ctypes.c_double, ctypes.c_double, ctypes.c_float)
    entry("adamw", *kinds)(b"".join(table), len(table), *betas, eps, torch.get_num_threads())


def _rows(gradient: Tensor) -> Tensor:
    """(V,) where each of a sparse gradient's rows stands among its values, or -1."""
    ids = gradient.indices()[0]
    rows = ids.new_full((len(gradient),), -1)
    rows[ids] = torch.arange(len(ids))
    return rows
