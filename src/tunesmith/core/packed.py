"""Products of one weight with few rows, again and again: the weight is laid out once, as oneDNN's kernels read it.

PyTorch's own product in float32 lays the weight out anew each time, which with 8 to 64 rows takes as long as the
arithmetic. In bfloat16 its product is oneDNN's already, or tiles compute it (core/native/sums.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.config.machine import total_memory
from tunesmith.core.native.sums import Laid, Sum, fill, lay_out, tiles

ROWS = 64
"""For how many rows the layout is chosen; it serves any number."""
SHARE = 1 / 8
"""Of the machine's memory, free or not, that second copies of weights may take: what is free now would decide otherwise
the next time, and numbers would not be rounded alike."""


Product = Callable[[Tensor], Tensor]
MakeProduct = Callable[[Tensor, Tensor | None], Product]


def stock_product(weight: Tensor, bias: Tensor | None) -> Product:
    """x (T, in) -> x weight^T + bias, from the weight as it lies."""
    if tiles(weight):
        return Tiled(weight.detach().t(), None if bias is None else bias.detach())
    return partial(functional.linear, weight=weight.detach(), bias=bias)


@dataclass(frozen=True)
class Tiled:
    """A product that tiles compute: right (in, out)."""

    right: Tensor | Laid
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        out = x.new_empty(len(x), self.right.shape[1])
        fill(
            Sum(out, [(x.contiguous(), self.right)], None if self.bias is None else self.bias.expand_as(out))
        )
        return out


def product(weight: Tensor, bias: Tensor | None) -> Product:
    """x (T, in) -> x weight^T + bias, (T, out), for calls without gradient between which weight (out, in) and bias
    (out,) do not change. Where the weight is laid out, that takes its size once more in memory."""
    if (laid := lay_out(weight.detach().t())) is not None:
        return Tiled(laid, None if bias is None else bias.detach())
    if not packs(weight):
        return stock_product(weight, bias)
    ops = torch.ops.mkldnn
    packed, added = ops._reorder_linear_weight(weight.detach(), ROWS), None if bias is None else bias.detach()
    return lambda x: ops._linear_pointwise(x.contiguous(), packed, added, "none", [], "")


def affordable(module: nn.Module) -> bool:
    """Whether a second copy of its weights is small beside the machine's memory."""
    return sum(p.numel() * p.element_size() for p in module.parameters()) <= SHARE * total_memory()


def packs(weight: Tensor) -> bool:
    """Whether it is laid out: float32 on a CPU, by a PyTorch that was built with oneDNN."""
    return (
        weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
