"""The language-model head and its cross-entropy in one.

loss = sum_m w_m * (logsumexp(z_m) - (1 - e) * z_m[target] - e * mean(z_m)), z_m = W h_m, e the label smoothing
(arXiv:1512.00567, 7). dh_m = w_m * W^T s_m and dW = sum_m w_m * s_m h_m^T, with s_m the loss' gradient by z_m.

By tiles (head.cpp) logits are never written: dh_m / w_m is made with the loss, dW on the way back, from logits that are
computed again. Elsewhere logits of a chunk of rows live until they are gradients: both are made in the forward pass,
and the backward pass multiplies them by one number, in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunesmith.core.native.call import DTYPES, call, takes
from tunesmith.core.native.sums import Sum, fill, product, tell, tiles

CHUNK = 2048
"""Rows whose logits, or by tiles sums of the weight's rows, exist at once."""


def fuses(weight: Tensor) -> bool:
    """Whether a head of this weight is computed here: by the kernels, or on a GPU."""
    return takes(weight) or (weight.is_cuda and weight.dtype in DTYPES)


class _ByTiles(torch.autograd.Function):
    """Each row's loss and likeliest token; the loss has a gradient of its own."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        for_states, for_weight = ctx.needs_input_grad[:2]
        losses, best = _unfilled(states, targets)
        normalisers, of_states = torch.empty_like(losses), torch.empty_like(states) if for_states else None
        for rows in _chunks(len(targets)):
            some, into = states[rows], None if of_states is None else of_states[rows]
            outs = (losses[rows], normalisers[rows], best[rows], into)
            call("head_losses", None, some, weight, len(some), *weight.shape, targets[rows], *outs)
        _tell(states, weight, 2 if for_states else 1)
        kept = (states, weight, targets, normalisers, torch.expm1(-losses) + smoothing)
        ctx.save_for_backward(of_states, *(kept if for_weight else ()))
        ctx.smoothing = smoothing
        if smoothing:
            toward = smoothing * (weight[targets].float() - weight.mean(0, dtype=torch.float32))
            losses += (states * toward).sum(-1)
            if of_states is not None:
                of_states += toward
        ctx.mark_non_differentiable(best)
        return losses, best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        of_states, *kept = ctx.saved_tensors
        scaled = None if of_states is None else (of_states * grad[:, None]).to(of_states.dtype)
        if not kept:
            return scaled, None, None, None
        states, weight, targets, normalisers, own = kept
        of_weight, rest = torch.empty_like(weight), ctx.smoothing / len(weight)
        sizes, of_rows = (len(states), *weight.shape), (targets, normalisers, own - rest, grad.contiguous())
        call("head_of_weight", None, states, weight, *sizes, *of_rows, rest, of_weight)
        _tell(states, weight, 2)
        return scaled, of_weight, None, None


def _tell(states: Tensor, weight: Tensor, products: int) -> None:
    tell(*[(1, len(states), states.shape[1], len(weight))] * products)


def _losses_by_tiles(
    states: Tensor, weight: Tensor, targets: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    losses, best = _ByTiles.apply(states.contiguous(), weight, targets.contiguous(), smoothing)  # type: ignore[no-untyped-call]
    return losses, best


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        for_states, for_weight = ctx.needs_input_grad[:2]
        losses, best = _unfilled(states, targets)
        of_states = torch.empty_like(states) if for_states else None
        of_weight: Tensor | None = None
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            logits = product(states[rows], weight.t())
            needed = for_states or for_weight
            _cross_entropy(logits, targets[rows], losses[rows], best[rows], needed, smoothing)
            factors = weights[rows, None].to(states.dtype)
            if of_states is not None:
                fill(Sum(of_states[rows], [(logits, weight)]))
                of_states[rows].mul_(factors)
            if for_weight:
                of_weight = _added(of_weight, logits.t(), states[rows] * factors, len(targets) > CHUNK)
        # No saved tensors: the way back scales them where they lie, and so there is one way back.
        ctx.made = (of_states, None if of_weight is None else of_weight.to(weight.dtype))
        ctx.mark_non_differentiable(losses, best)
        return (losses * weights).sum(), losses, best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.made is None:
            raise RuntimeError("a second backward pass: the head's gradient went with the first")
        made, ctx.made = ctx.made, None
        return (*(None if g is None else g.mul_(grad.item()) for g in made), None, None, None)


def linear_cross_entropy(
    states: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """states (M, H), weight (V, H), targets and weights (M,) -> the weighted sum (), in nats and float32; the losses
    (M,) and the likeliest token (M,) of each row, without gradient."""
    if not torch.is_grad_enabled():  # a trained weight would get its gradient, which nobody asks for
        states, weight = states.detach(), weight.detach()
    if tiles(states, weight) and weight.is_contiguous():
        losses, best = _losses_by_tiles(states, weight, targets, smoothing)
        return (losses * weights).sum(), losses.detach(), best
    found = _LinearCrossEntropy.apply(states, weight, targets, weights, smoothing)  # type: ignore[no-untyped-call]
    total, losses, best = found
    return total, losses, best


class _LinearLosses(torch.autograd.Function):
    """Of each row by itself, for losses whose weights are known only after all of them. The states' gradient is made
    in the forward pass and scaled in the backward. The weight's is no sum of known parts: for it the gradient by the
    last chunk's logits, which are there anyway, is kept, and that by the logits before is computed again; so the last
    one is whole."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        for_states, for_weight = ctx.needs_input_grad[:2]
        losses, best = _unfilled(states, targets)
        of_states = torch.empty_like(states) if for_states else None
        logits: Tensor | None = None
        for rows in _chunks(len(targets)):
            logits = product(states[rows], weight.t())
            _cross_entropy(logits, targets[rows], losses[rows], best[rows], for_states or for_weight)
            if of_states is not None:
                fill(Sum(of_states[rows], [(logits, weight)]))
        ctx.save_for_backward(of_states, *((states, weight, targets, logits) if for_weight else ()))
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        of_states, *kept = ctx.saved_tensors
        scaled = None if of_states is None else of_states * grad[:, None].to(of_states.dtype)
        if not kept:
            return scaled, None, None
        states, weight, targets, last = kept
        of_weight: Tensor | None = None
        for rows in _chunks(len(targets)):
            logits = last
            if rows.stop < len(targets):
                logits = product(states[rows], weight.t())
                _cross_entropy(logits, targets[rows], *_unfilled(states, targets[rows]), True)
            factors = grad[rows, None].to(states.dtype)
            of_weight = _added(of_weight, logits.t(), states[rows] * factors, len(targets) > CHUNK)
        return scaled, torch.zeros_like(weight) if of_weight is None else of_weight.to(weight.dtype), None


def _added(so_far: Tensor | None, left: Tensor, right: Tensor, more: bool) -> Tensor:
    """so_far + left @ right; in float32 where more than one is added."""
    part = product(left, right)
    if so_far is None:
        return part.float() if more else part
    return so_far.add_(part)


def _chunks(count: int) -> list[slice]:
    """Of so many rows, the one that is not whole first."""
    ends = range(count, 0, -CHUNK)
    return [slice(max(end - CHUNK, 0), end) for end in reversed(ends)]


def _unfilled(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Losses in float32 and likeliest tokens, to be filled."""
    return states.new_empty(len(targets), dtype=torch.float32), torch.empty_like(targets)


def _cross_entropy(
    logits: Tensor, targets: Tensor, losses: Tensor, best: Tensor, gradient: bool, smoothing: float = 0.0
) -> None:
    """Fills losses and best; with `gradient` the logits become the losses' gradient by them."""
    if takes(logits):
        into = (logits, targets, losses, best)
        call("cross_entropy", logits.dtype, *into, *logits.shape, smoothing, int(gradient))
        return
    wide = logits.float()
    normalisers, index = wide.logsumexp(-1), targets[:, None]
    scores = (1 - smoothing) * wide.gather(1, index)[:, 0]
    losses.copy_(normalisers - (scores + smoothing * wide.mean(-1) if smoothing else scores))
    best.copy_(wide.max(-1).indices)
    if gradient:
        shares = (wide - normalisers[:, None]).exp_().sub_(smoothing / logits.shape[1])
        logits.copy_(shares.scatter_add_(1, index, shares.new_full(index.shape, smoothing - 1)))


def linear_losses(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """states (M, H), weight (V, H), targets (M,) -> the loss (M,) of each row in nats and float32, with gradient."""
    if not torch.is_grad_enabled():
        states, weight = states.detach(), weight.detach()
    if tiles(states, weight) and weight.is_contiguous():
        return _losses_by_tiles(states, weight, targets)[0]
    losses: Tensor = _LinearLosses.apply(states, weight, targets)  # type: ignore[no-untyped-call]
    return losses
