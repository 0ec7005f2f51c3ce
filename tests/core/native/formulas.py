"""What the tests of kernels compare with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from tunesmith.core import native
from tunesmith.core.native import tape
from tunesmith.core.native.sums import tiles
from tunesmith.models import fast, fast_linear

T = TypeVar("T")

DTYPES = [torch.float32, torch.bfloat16]
# Relative to the largest value: float32 sums of some hundred numbers; bfloat16 keeps 8 bits and rounds several times.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}

needs_library = pytest.mark.skipif(native.library() is None, reason=native.why_not())
needs_tiles = pytest.mark.skipif(
    not tiles(torch.zeros(1, dtype=torch.bfloat16)), reason="a processor without AMX, or no library"
)


def near(got: Tensor, wanted: Tensor, times: float = 1.0) -> None:
    gap = (got.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp_min(1e-12)
    assert gap <= times * TOLERANCE[got.dtype], f"{gap:.2e}"


def both(
    ours: Callable[..., Tensor], formula: Callable[..., Tensor], inputs: list[Tensor], times: float = 1.0
) -> None:
    """Values and gradients of `ours` in the inputs' type equal those of `formula` in float64."""
    mine = [x.clone().requires_grad_() for x in inputs]
    wanted = [x.double().requires_grad_() for x in inputs]
    got, reference = ours(*mine), formula(*wanted)
    near(got.detach(), reference.detach(), times)
    upstream = torch.randn_like(got)
    got.backward(upstream)
    reference.backward(upstream.double())
    for a, b in zip(mine, wanted, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        near(a.grad, b.grad, times)


def waiting_and_not(made: Callable[[], T], layers: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[T, T]:
    """What is made where kernels of these layers (a module) wait for each other, and where each runs at once."""
    waiting = made()
    for module in (layers, fast_linear, fast, tape):
        monkeypatch.setattr(module, "together", lambda x: nullcontext())
    return waiting, made()
