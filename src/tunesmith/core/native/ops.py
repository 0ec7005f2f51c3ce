"""What a transformer layer computes beside its products, as autograd functions over the kernels.

Each takes what `takes` accepts; the formulas stand in kernels.cpp. Shapes: T tokens, H width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunesmith.core.native.call import call


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        out, rstd = torch.empty_like(x), torch.empty(len(x))
        call("rms_norm", x.dtype, x, weight, out, rstd, *x.shape, eps)
        ctx.save_for_backward(x, weight, rstd)
        ctx.set_materialize_grads(False)
        return out, x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor | None, passed: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None]:
        if grad is None:
            return passed, None, None
        x, weight, rstd = ctx.saved_tensors
        grad, passed = grad.contiguous(), None if passed is None else passed.contiguous()
        of_x = torch.empty_like(x)
        sums = torch.zeros(torch.get_num_threads(), x.shape[1]) if ctx.needs_input_grad[1] else None
        call("rms_norm_backward", x.dtype, x, weight, rstd, grad, passed, of_x, sums, *x.shape)
        return of_x, None if sums is None else sums.sum(0).to(weight.dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x (T, H) -> its norm, and x itself for what goes past the norm: their gradients are added in one pass."""
    out, past = _RmsNorm.apply(x.contiguous(), weight, eps)  # type: ignore[no-untyped-call]
    return out, past


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        out = torch.empty_like(gate)
        call("swiglu", gate.dtype, gate, up, out, gate.numel())
        ctx.save_for_backward(gate, up)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
        call("swiglu_backward", gate.dtype, gate, up, grad.contiguous(), of_gate, of_up, gate.numel())
        return of_gate, of_up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, element by element."""
    out: Tensor = _SwiGlu.apply(gate.contiguous(), up.contiguous())  # type: ignore[no-untyped-call]
    return out
