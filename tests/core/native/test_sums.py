"""Sums of matrix products against float64: any shapes, factors and outs as they may lie, in both types."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.core.native.formulas import needs_tiles
from tunesmith.core.native.sums import Scaled, Sum, fill, lay_out, product, tiles, watched

SHAPES = [
    (1, 1, 1),
    (16, 32, 32),
    (45, 33, 70),
    (33, 17, 1600),
    (70, 400, 90),
    (513, 100, 610),
    (2100, 20, 40),
    (70, 700, 2000),
]
ROUNDED = 6e-3
"""In bfloat16; tiles add up in float32, PyTorch's products are bfloat16 whatever they are written to."""
TOLERANCE = {torch.float32: 1e-5 if tiles(torch.zeros(1).bfloat16()) else ROUNDED, torch.bfloat16: ROUNDED}


def matrix(rows: int, columns: int, turned: bool, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(columns, rows).to(dtype).t() if turned else torch.randn(rows, columns).to(dtype)


def near(got: Tensor, wanted: Tensor) -> None:
    gap = (got.double() - wanted).abs().max() / wanted.abs().max()
    assert gap <= TOLERANCE[got.dtype], f"{gap:.1e}"


@pytest.mark.parametrize("out_type", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("turned", range(8))
@pytest.mark.parametrize(("rows", "columns", "inner"), SHAPES)
def test_a_sum_of_products(rows: int, columns: int, inner: int, turned: int, out_type: torch.dtype) -> None:
    """`turned`: which of left, right and out have their columns together, not their rows."""
    left, right = matrix(rows, inner, bool(turned & 1)), matrix(inner, columns, bool(turned & 2))
    thin, flat = matrix(rows, 16, bool(turned & 2)), matrix(16, columns, bool(turned & 1))
    past = matrix(rows, columns, turned=False)
    out = matrix(rows, columns, bool(turned & 4), out_type)
    wanted = left.double() @ right.double() + thin.double() @ flat.double()
    fill(Sum(out, [(left, right), (thin, flat)]))
    near(out, wanted)
    fill(Sum(out, [(left, right), (thin, flat)], past))
    near(out, wanted + past.double())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("rows", "columns", "inner"), SHAPES)
def test_a_factor_in_float32_is_scaled_and_rounded_as_it_is_read(
    rows: int, columns: int, inner: int, turned: bool
) -> None:
    left, thin = matrix(rows, inner, turned=False), matrix(rows, 16, turned=False)
    right = matrix(inner, columns, turned, torch.float32)
    flat = matrix(16, columns, not turned, torch.float32)
    out, wanted = torch.empty(2, rows, columns).bfloat16()
    fill(Sum(out, [(left, Scaled(right, 0.3)), (thin, Scaled(flat))]))
    fill(Sum(wanted, [(left, (right * 0.3).bfloat16()), (thin, flat.bfloat16())]))
    assert torch.equal(out, wanted)


@pytest.mark.parametrize("out_type", [torch.float32, torch.bfloat16])
def test_a_sum_times_a_number_and_what_is_added_to_that(out_type: torch.dtype) -> None:
    left, right, past = (
        matrix(70, 40, turned=False),
        matrix(40, 100, turned=False),
        matrix(70, 100, turned=False),
    )
    for out in (torch.empty(70, 100, dtype=out_type), torch.empty(100, 70, dtype=out_type).t()):
        fill(Sum(out, [(left, right)], past, scale=0.3))
        near(out, 0.3 * (left.double() @ right.double()) + past.double())


def test_parts_of_larger_tensors_and_nothing_beside_them() -> None:
    wide, right = torch.randn(40, 100).bfloat16(), torch.randn(48, 30).bfloat16()
    left, whole = wide[:, 20:68], torch.full((50, 60), 7.0).bfloat16()
    fill(Sum(whole[5:45, 10:40], [(left, right)]))
    near(whole[5:45, 10:40], left.double() @ right.double())
    whole[5:45, 10:40] = 7
    assert (whole == 7).all()


def test_a_row_that_is_added_to_all() -> None:
    left, right, bias = (torch.randn(*size).bfloat16() for size in ((37, 40), (40, 50), (50,)))
    out = torch.empty(37, 50).bfloat16()
    fill(Sum(out, [(left, right)], bias.expand_as(out)))
    near(out, left.double() @ right.double() + bias.double())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_sums_that_read_what_others_write(threads: int) -> None:
    before = torch.get_num_threads()
    x, down, up = (torch.randn(*size).bfloat16() for size in ((300, 640), (640, 16), (16, 768)))
    low, out = (
        torch.empty(300, 16).bfloat16(),
        torch.empty(300, 768).bfloat16(),
    )  # one by rows, the other by columns
    try:
        torch.set_num_threads(threads)
        for _ in range(20):
            low.zero_()
            fill(Sum(low, [(x, down)]), Sum(out, [(low, up)], after=True))
            near(out, low.double() @ up.double())
    finally:
        torch.set_num_threads(before)


@needs_tiles
def test_threads_change_no_bit() -> None:
    before = torch.get_num_threads()
    left, right = torch.randn(200, 1300).bfloat16(), torch.randn(1300, 150).bfloat16()
    outs = [torch.empty(200, 150).bfloat16() for _ in range(3)]
    try:
        for threads, out in enumerate(outs, 1):
            torch.set_num_threads(threads)
            fill(Sum(out, [(left, right)]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(out, outs[0]) for out in outs)


def test_no_number_spreads_no_further_than_its_row_and_column() -> None:
    left, right = torch.randn(40, 64).bfloat16(), torch.randn(64, 40).bfloat16()
    left[3, 5] = torch.nan
    out = torch.empty(40, 40).bfloat16()
    fill(Sum(out, [(left, right)]))
    assert out.isnan().all(1).tolist() == [row == 3 for row in range(40)]
    assert not out[4:].isnan().any()


@needs_tiles
def test_what_tiles_compute_is_told() -> None:
    with watched() as products:
        test_parts_of_larger_tensors_and_nothing_beside_them()
    assert products == [(1, 40, 48, 30)]


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("turned", range(4))
def test_batches(batch: int, turned: int) -> None:
    left = torch.stack([matrix(37, 50, bool(turned & 1)) for _ in range(batch)])
    right = torch.stack([matrix(50, 33, bool(turned & 2)) for _ in range(batch)])
    wanted = left.double() @ right.double()
    near(product(left, right), wanted)
    near(product(left, right.transpose(1, 2).contiguous().transpose(1, 2)), wanted)
    out, past = torch.empty_like(wanted, dtype=torch.bfloat16), torch.randn(wanted.shape).bfloat16()
    fill(Sum(out, [(left, right), (left, right)], past))
    near(out, 2 * wanted + past.double())


@needs_tiles
@pytest.mark.parametrize(("inner", "columns"), [(32, 32), (576, 96), (1600, 64)])
@pytest.mark.parametrize("rows", [1, 17, 70])
def test_a_factor_that_is_laid_out(rows: int, inner: int, columns: int) -> None:
    left, weight = torch.randn(rows, inner).bfloat16(), torch.randn(columns, inner).bfloat16()
    laid, got, wanted = lay_out(weight.t()), *torch.empty(2, rows, columns).bfloat16()
    assert laid is not None
    fill(Sum(got, [(left, laid)]))
    fill(Sum(wanted, [(left, weight.t())]))
    assert torch.equal(got, wanted)
    assert lay_out(weight.t()[:-1]) is None
