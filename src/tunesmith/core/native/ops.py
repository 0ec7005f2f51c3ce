"""What a transformer layer computes beside its products, as autograd functions over the kernels.

The formulas stand in kernels.cpp and encoder.cpp; what the kernels do not take, PyTorch's operators or Liger's kernels
compute (`tunesmith.core.liger`). Shapes: T tokens, H width.
Dropout's masks come from a seed that each call draws from PyTorch's generator, and are drawn again on the way back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tunesmith.core import liger
from tunesmith.core.native.call import DTYPES, call, now, takes, takes_each, whole
from tunesmith.core.native.tape import apply


def norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x (T, H) -> its norm, and what it was divided by (T,), inverted."""
    out, rstd = torch.empty_like(x), torch.empty(len(x))
    call("rms_norm", x.dtype, x, weight, out, rstd, *x.shape, eps)
    return out, rstd


def norm_back(
    grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, passed: Tensor | None, trained: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradients of x and, where it is `trained`, of the weight; the norm is written in place of its gradient
    `grad`, contiguous. passed: the gradient of what goes past the norm."""
    of_x = torch.empty_like(x)
    sums = torch.zeros(torch.get_num_threads(), x.shape[1]) if trained else None
    call("rms_norm_backward", x.dtype, x, weight, rstd, grad, passed, of_x, sums, *x.shape)
    return of_x, None if sums is None else column_sums(sums, weight.dtype)


def column_sums(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x (R, N), rows' elements side by side -> (N,), added up in float32."""
    if not takes_each(x) or dtype not in DTYPES:
        now()
        return x.sum(0, dtype=dtype)
    out = torch.empty(x.shape[1], dtype=dtype)
    call("column_sums", x.dtype, x, x.stride(0), *x.shape, out, int(dtype is torch.float32))
    return out


def _copied(grad: Tensor) -> Tensor:
    """Autograd's own is not to be written over."""
    now()
    return grad.clone(memory_format=torch.contiguous_format)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        out, rstd = norm(x, weight, eps)
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
        passed = None if passed is None else whole(passed)
        x, weight, rstd = ctx.saved_tensors
        return (*norm_back(_copied(grad), x, weight, rstd, passed, ctx.needs_input_grad[1]), None)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x (T, H) -> its norm, and x itself for what goes past the norm: their gradients are added in one pass."""
    if not takes(x, weight):
        return liger.rms_norm(x, weight, eps), x
    out, past = apply(_RmsNorm, whole(x), weight, eps)
    return out, past


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """`swiglu` of contiguous tensors that the kernels take, without gradient."""
    out = torch.empty_like(gate)
    call("swiglu", gate.dtype, gate, up, out, gate.numel())
    return out


def gated_back(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of both; swiglu itself is written in place of its gradient `grad`, contiguous."""
    of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
    call("swiglu_backward", gate.dtype, gate, up, grad, of_gate, of_up, gate.numel())
    return of_gate, of_up


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return gated(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return gated_back(_copied(grad), *ctx.saved_tensors)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, element by element."""
    if not takes(gate, up):
        return liger.swiglu(gate, up)
    out: Tensor = apply(_SwiGlu, whole(gate), whole(up))
    return out


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        out = torch.empty_like(x)
        call("gelu", x.dtype, x, out, x.numel())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        of_x = torch.empty_like(x)
        call("gelu_backward", x.dtype, x, whole(grad), of_x, x.numel())
        return of_x


def gelu(x: Tensor) -> Tensor:
    """x * Phi(x), element by element (arXiv:1606.08415)."""
    return apply(_Gelu, whole(x)) if takes(x) else functional.gelu(x)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape, ctx.padding = weight.shape, padding
        return functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (ids,) = ctx.saved_tensors
        found, place = ids.flatten().unique(return_inverse=True)
        sums = torch.zeros(len(found), ctx.shape[1])
        sums.index_add_(0, place, grad.flatten(0, -2).float())
        if ctx.padding is not None:
            sums[found == ctx.padding] = 0
        rows = (found[None], sums.to(grad.dtype), ctx.shape)
        return None, torch.sparse_coo_tensor(*rows, is_coalesced=True, check_invariants=False), None


def embed(ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
    """ids (..., L), weight (V, H) -> (..., L, H). The weight's gradient is sparse, rows (K, H) of the K ids that there
    are; that of `padding` is zero, as `nn.Embedding` has it."""
    if not (takes(weight) and weight.requires_grad and torch.is_grad_enabled()):
        return functional.embedding(ids, weight, padding)
    return apply(_Embed, ids, weight, padding)  # type: ignore[no-any-return]


def seed() -> int:
    """For the masks of one call."""
    return int(torch.randint(2**62, ()))


def dropped(x: Tensor, seed: int, p: float, out: Tensor | None = None) -> Tensor:
    """x, contiguous, each element 0 with probability p, else divided by 1 - p: by seed and place alone."""
    out = torch.empty_like(x) if out is None else out
    call("dropout", x.dtype, x, out, x.numel(), seed, float(p))
    return out


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: int, p: float) -> Tensor:
        ctx.seed, ctx.p = seed, p
        return dropped(x, seed, p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return dropped(whole(grad), ctx.seed, ctx.p), None, None


def dropout(x: Tensor, p: float) -> Tensor:
    """arXiv:1207.0580; x itself where p is 0."""
    return apply(_Dropout, whole(x), seed(), p) if p else x


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, past: Tensor, weight: Tensor, bias: Tensor, eps: float, p: float
    ) -> Tensor:
        ctx.seed, ctx.p = seed() if p else 0, float(p)
        sums, out = torch.empty_like(x), torch.empty_like(x)
        mean, rstd = torch.empty(len(x)), torch.empty(len(x))
        inputs, made = (x, past, weight, bias), (sums, out, mean, rstd)
        call("add_norm", x.dtype, *inputs, *made, *x.shape, eps, ctx.seed, ctx.p)
        ctx.save_for_backward(sums, weight, mean, rstd)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        of_past = torch.empty_like(x)
        of_x = torch.empty_like(x) if ctx.p else None
        trained = any(ctx.needs_input_grad[2:4])
        sums = torch.zeros(torch.get_num_threads(), 2, x.shape[1]) if trained else None
        inputs, made = (x, weight, mean, rstd, whole(grad)), (of_past, of_x, sums)
        call("add_norm_backward", x.dtype, *inputs, *made, *x.shape, ctx.seed, ctx.p)
        of_both = None if sums is None else column_sums(sums.view(len(sums), -1), weight.dtype)
        of_weight, of_bias = (None, None) if of_both is None else of_both.view(2, -1)
        return of_past if of_x is None else of_x, of_past, of_weight, of_bias, None, None


def add_norm(x: Tensor, past: Tensor, norm: nn.LayerNorm, p: float) -> Tensor:
    """x, past (T, H) -> the layer norm (arXiv:1607.06450) of past + dropout(x), probability p."""
    if not takes(x, past):
        return norm(past + functional.dropout(x, p))  # type: ignore[no-any-return]
    inputs = (whole(x), whole(past), norm.weight, norm.bias)
    return apply(_AddNorm, *inputs, norm.eps, p)  # type: ignore[no-any-return]
