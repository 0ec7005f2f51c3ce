"""AdamW (arXiv:1711.05101) with all of its state in bfloat16: 8 bytes a weight in place of 14, gradients not counted.

A weight is a bfloat16 and the bfloat16 of what its rounding lost: together 16 bits of precision. That rest and the
mean square are rounded stochastically (as in arXiv:2010.06192), so that changes too small for a bfloat16 add up as they
would in float32. What is rounded up is decided by a hash (MurmurHash3's finaliser) of the weight's place and the step:
the same run has the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tunesmith.core.device import CPU
from tunesmith.core.native.call import call, takes

PARTS = ("error", "exp_avg", "exp_avg_sq", "step")
MASK = 0xFFFFFFFF


@dataclass
class LeanWeight:
    """One bfloat16 parameter. decay: of AdamW. factor: its learning rate as a multiple of the run's. salt: its number
    among the parameters."""

    weight: nn.Parameter
    decay: float
    factor: float
    salt: int
    state: dict[str, Tensor] = field(default_factory=dict)
    """PARTS -> tensor; empty before the first step."""

    @torch.no_grad()
    def step(self, grad: Tensor, rate: float, clip: float, betas: tuple[float, float], eps: float) -> None:
        """grad: bfloat16 or float32, to be scaled by `clip`."""
        if not self.state:
            self.state = {name: torch.zeros_like(self.weight) for name in PARTS[:-1]}
            self.state["step"] = torch.zeros(())
        self.state["step"] += 1
        count = int(self.state["step"].item())
        factors = (clip, rate * self.factor, *betas, eps, self.decay)
        corrections = tuple(1 - beta**count for beta in betas)
        tensors = (self.weight.detach(), *(self.state[name] for name in PARTS[:-1]))
        seed = (count * 0x9E3779B1 + self.salt * 0x85EBCA77) & MASK
        if takes(*tensors):
            flat = grad.contiguous()
            call("adamw_lean", flat.dtype, *tensors, flat, flat.numel(), *factors, *corrections, seed)
        else:
            _plain(tensors, grad, factors, corrections, seed)

    def restore(self, weight: Tensor, parts: Mapping[str, Tensor]) -> None:
        """parts: of `state`, or none."""
        self.weight.detach().copy_(weight)
        self.state = {n: part.clone() if n == "step" else part.to(self.weight) for n, part in parts.items()}


def _plain(
    tensors: tuple[Tensor, ...],
    grad: Tensor,
    factors: tuple[float, ...],
    corrections: tuple[float, ...],
    seed: int,
) -> None:
    """The kernel's formula by PyTorch's operators."""
    weight, error, first, second = tensors
    clip, rate, beta1, beta2, eps, decay = factors
    g = grad.float() * clip
    mean = first.float() + (1 - beta1) * (g - first.float())
    square = beta2 * second.float() + (1 - beta2) * g * g
    change = rate / corrections[0] * mean / (square.sqrt() / corrections[1] ** 0.5 + eps)
    value = (weight.float() + error.float()) * (1 - rate * decay) - change
    random = hashed(value.numel(), seed, value.device).view(value.shape)
    first.copy_(mean)
    second.copy_(rounded(square, random & 0xFFFF))
    weight.copy_(value)
    error.copy_(rounded(value - weight.float(), random >> 16))


def rounded(x: Tensor, random: Tensor) -> Tensor:
    """float32 -> bfloat16, up with the probability that makes the mean exact; random: int64 below 2^16."""
    bits = x.view(torch.int32).long() & MASK
    high = ((bits + random) & MASK) >> 16
    return torch.where(high < 2**15, high, high - 2**16).to(torch.int16).view(torch.bfloat16)


def hashed(count: int, seed: int, device: torch.device = CPU) -> Tensor:
    """(count,) int64 below 2^32: MurmurHash3's finaliser of place x an odd constant + seed."""
    x = (torch.arange(count, device=device) * 0x9E3779B9 + seed) & MASK
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & MASK
    return x ^ (x >> 16)
