"""Operations on a block of rows at a time against the same in float64, and against one operation at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.core.native.formulas import near
from tests.core.native.test_sums import needs_tiles
from tunesmith.core.native.chain import HIGH, Chain
from tunesmith.core.native.ops import gated, norm
from tunesmith.core.native.sums import Sum, fill, lay_out

EPS = 1e-5


@pytest.mark.parametrize("size", [1, 15, 16, 40])
def test_a_gated_unit_of_any_number_of_elements(size: int) -> None:
    gate, up = torch.randn(2, 1, size).mul(4).bfloat16()
    near(gated(gate, up), gate.double() * gate.double().sigmoid() * up.double())


def test_a_gated_unit_far_from_zero() -> None:
    gate = torch.tensor(
        [-300.0, -90.0, -20.0, 0.0, 20.0, 90.0, 300.0, float("inf"), float("nan")] * 2
    ).bfloat16()
    found = gated(gate, torch.ones_like(gate)).double()
    wanted = gate.double() * gate.double().sigmoid()
    assert torch.allclose(found, wanted, rtol=1e-2, atol=1e-30, equal_nan=True)


class Mlp:
    def __init__(self, width: int, inner: int, rank: int) -> None:
        def weight(rows: int, columns: int) -> Tensor:
            return (torch.randn(rows, columns) / columns**0.5).bfloat16()

        self.gate, self.up, self.down = weight(inner, width), weight(inner, width), weight(width, inner)
        self.low, self.high = weight(rank, width), weight(inner, rank)
        self.norm, self.bias = torch.randn(width).bfloat16(), torch.randn(inner).bfloat16()

    def by_chain(self, x: Tensor, *, laid: bool = False) -> Tensor:
        """x + down(silu(gate(norm(x)) + b) * (up(norm(x)) + high(low(norm(x)))))."""
        chain, (inner, width) = Chain(len(x)), self.gate.shape
        normed, gate, up, low = (chain.own(n) for n in (width, inner, inner, len(self.low) + 3))
        out = torch.empty_like(x)
        right = (lay_out(self.gate.t()) if laid else None) or self.gate.t()
        chain.norm(normed, x, self.norm, EPS)
        chain.product(gate, inner, [(normed, right)], self.bias.expand(len(x), inner))
        chain.product(low.columns(3), len(self.low), [(normed, self.low.t())])
        chain.product(up, inner, [(normed, self.up.t()), (low.columns(3), self.high.t())])
        chain.gate(gate, inner, gate, up)
        chain.product(out, width, [(gate, self.down.t())], x)
        chain.run()
        return out

    def one_by_one(self, x: Tensor) -> Tensor:
        inner = len(self.gate)
        normed = norm(x, self.norm, EPS)[0]
        gate, up, low = (torch.empty(len(x), n).bfloat16() for n in (inner, inner, len(self.low)))
        out = torch.empty_like(x)
        fill(Sum(gate, [(normed, self.gate.t())], self.bias.expand(len(x), inner)))
        fill(Sum(low, [(normed, self.low.t())]))
        fill(Sum(up, [(normed, self.up.t()), (low, self.high.t())]))
        fill(Sum(out, [(gated(gate, up), self.down.t())], x))
        return out

    def in_doubles(self, x: Tensor) -> Tensor:
        gate, up, down, low, high, weight, bias = (
            w.double() for w in (self.gate, self.up, self.down, self.low, self.high, self.norm, self.bias)
        )
        wide = x.double()
        normed = weight * wide * (wide.square().mean(1, keepdim=True) + EPS).rsqrt()
        open_ = normed @ gate.t() + bias
        return wide + (open_ * open_.sigmoid() * (normed @ (up + high @ low).t())) @ down.t()


@needs_tiles
@pytest.mark.parametrize(("width", "inner", "rank"), [(64, 96, 16), (50, 70, 5), (96, 640, 8)])
@pytest.mark.parametrize("rows", [1, 33, HIGH, 3 * HIGH + 77])
def test_a_chain_is_its_steps(rows: int, width: int, inner: int, rank: int) -> None:
    torch.manual_seed(0)
    mlp, x = Mlp(width, inner, rank), torch.randn(rows, width).bfloat16()
    found = mlp.by_chain(x)
    near(found, mlp.in_doubles(x))
    assert torch.equal(found, mlp.one_by_one(x))
    assert torch.equal(found, mlp.by_chain(x, laid=True))


@needs_tiles
def test_threads_change_no_bit_and_no_number_leaves_its_row() -> None:
    torch.manual_seed(0)
    mlp, x = Mlp(64, 96, 16), torch.randn(900, 64).bfloat16()
    wanted, before = mlp.by_chain(x), torch.get_num_threads()
    x[450, 7] = float("nan")
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found = mlp.by_chain(x)
            assert not found[450].isfinite().any()
            found[450] = wanted[450]
            assert torch.equal(found, wanted)
    finally:
        torch.set_num_threads(before)
