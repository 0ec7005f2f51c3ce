"""Cross-entropy over a vocabulary in chunks of rows that stay in the cache: nothing of (M, V) is kept but the logits.

The formula is the usual one (label smoothing as in arXiv:1512.00567, section 7), computed in float32 or better; what is
saved for the backward pass is one normaliser a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 64


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        high = torch.promote_types(logits.dtype, torch.float32)
        normalisers = logits.new_empty(len(targets), dtype=high)
        losses, best = torch.empty_like(normalisers), torch.empty_like(targets)
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            part = logits[rows].to(high)
            normaliser = part.logsumexp(-1)
            score = part.gather(-1, targets[rows, None])[:, 0]
            if smoothing:
                score = (1 - smoothing) * score + smoothing * part.mean(-1)
            normalisers[rows], losses[rows], best[rows] = normaliser, normaliser - score, part.argmax(-1)
        ctx.save_for_backward(logits, targets, normalisers)
        ctx.smoothing = smoothing
        ctx.mark_non_differentiable(best)
        return losses, best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, normalisers = ctx.saved_tensors
        out, rest = torch.empty_like(logits), ctx.smoothing / logits.shape[-1]
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            part = (logits[rows] - normalisers[rows, None]).exp_()
            if rest:
                part -= rest
            part.scatter_add_(-1, targets[rows, None], part.new_full((len(part), 1), ctx.smoothing - 1))
            out[rows] = part.mul_(grad[rows, None])
        return out, None, None


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """(M, V), (M,) -> losses (M,) in nats, in float32 or better, and (M,) the likeliest token of each row."""
    losses, best = _CrossEntropy.apply(logits, targets, smoothing)  # type: ignore[no-untyped-call]
    return losses, best
