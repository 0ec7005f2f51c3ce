"""AdamW (arXiv:1711.05101) of weights in bfloat16 with 6 bytes beside each, in place of 12; gradients not counted.

A weight is a float32: its bfloat16, rounded to the nearest, and the 16 bits by which that is off, as a signed number.
So the master is exact and takes half the room of a second copy. Moments are bfloat16. The mean changes by a tenth at a
time and is rounded to the nearest; the mean square, whose changes may be too small for a bfloat16, is rounded
stochastically (as in arXiv:2010.06192), so that they add up in the mean. What is rounded up is decided by a hash
(MurmurHash3's finaliser) of the weight's place and the step: the same run has the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tunesmith.core.device import CPU, zeros_apart
from tunesmith.core.native.adamw import Update
from tunesmith.errors import CheckpointError

PARTS = ("rest", "exp_avg", "exp_avg_sq", "step")
MASK = 0xFFFFFFFF
BLOCK = 1 << 20
"""Elements that PyTorch's operators take at once: their intermediate results are eight bytes each."""


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

    def update(self, gradient: Tensor, rate: float, clip: float) -> Update:
        """For the kernel. gradient: bfloat16 or float32, to be scaled by `clip`."""
        if not self.state:
            here = self.weight.detach()
            kinds = (torch.int16, torch.bfloat16, torch.bfloat16)
            self.state = {n: zeros_apart(here.view(k)) for n, k in zip(PARTS, kinds, strict=False)}
            self.state["step"] = torch.zeros(())
        rest, first, second, done = (self.state[name] for name in PARTS)
        factors = (clip, rate * self.factor, self.decay, self.salt)
        return Update(self.weight.detach(), gradient, first, second, done, rest, *factors)

    def restore(self, weight: Tensor, parts: Mapping[str, Tensor]) -> None:
        """parts: of `state`, or none."""
        if parts and parts.keys() != set(PARTS):
            raise CheckpointError(
                f"a checkpoint with {', '.join(sorted(parts))} of a weight in bfloat16",
                ", ".join(PARTS),
                "resume it with the version that wrote it, or begin anew with --force",
            )
        device = self.weight.device
        self.weight.detach().copy_(weight)
        self.state = {
            n: part.clone() if n == "step" else part.to(device, copy=True) for n, part in parts.items()
        }


@torch.no_grad()
def plain(update: Update, betas: tuple[float, float], eps: float) -> None:
    """The kernel's formula by PyTorch's operators; the gradient is whole."""
    weight, gradient, first, second, done, rest, clip, rate, decay, salt = update
    assert rest is not None
    done += 1
    count = int(done.item())
    seed = (count * 0x9E3779B1 + salt * 0x85EBCA77) & MASK
    corrections = [1 - beta**count for beta in betas]
    for start in range(0, weight.numel(), BLOCK):
        w, low, g, m, v = (
            x.reshape(-1)[start : start + BLOCK] for x in (weight, rest, gradient, first, second)
        )
        g = g.float() * clip
        mean = m.float() + (1 - betas[0]) * (g - m.float())
        square = betas[1] * v.float() + (1 - betas[1]) * g * g
        change = rate / corrections[0] * mean / (square.sqrt() / corrections[1] ** 0.5 + eps)
        high, below = split(joined(w, low) * (1 - rate * decay) - change)
        w.copy_(high)
        low.copy_(below)
        m.copy_(mean)
        v.copy_(rounded(square, hashed(len(v), seed, start, v.device) & 0xFFFF))


def joined(weight: Tensor, rest: Tensor) -> Tensor:
    """The float32 whose bfloat16, int16 these are."""
    return (weight.float().view(torch.int32) + rest).view(torch.float32)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """float32 -> its bfloat16, halves away from zero; and the bits by which that is off."""
    bits = x.view(torch.int32).long() & MASK
    return _bfloat16((bits + 0x8000) >> 16), _int16(bits & 0xFFFF)


def rounded(x: Tensor, random: Tensor) -> Tensor:
    """float32 -> bfloat16, up with the probability that makes the mean exact; random: int64 below 2^16."""
    bits = x.view(torch.int32).long() & MASK
    return _bfloat16(((bits + random) & MASK) >> 16)


def _bfloat16(high: Tensor) -> Tensor:
    return _int16(high).view(torch.bfloat16)


def _int16(bits: Tensor) -> Tensor:
    """int64 below 2^16, as a signed number of 16 bits."""
    return torch.where(bits < 2**15, bits, bits - 2**16).to(torch.int16)


def hashed(count: int, seed: int, start: int = 0, device: torch.device = CPU) -> Tensor:
    """(count,) int64 below 2^32: MurmurHash3's finaliser of places from `start` on x an odd constant + seed."""
    x = (torch.arange(start, start + count, device=device) * 0x9E3779B9 + seed) & MASK
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & MASK
    return x ^ (x >> 16)
