"""Products of a weight that is laid out once equal those of the formula, for any number of rows."""

from __future__ import annotations

import pytest
import torch

from tunesmith.core import packed
from tunesmith.core.packed import ROWS, packs, product


@pytest.mark.parametrize("rows", [1, 7, ROWS, 300])
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_is_that_of_the_formula(rows: int, biased: bool) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(33, 20), torch.randn(33) if biased else None
    x = torch.randn(rows, 20)
    wanted = x.double() @ weight.double().t() + (0 if bias is None else bias.double())
    times = product(weight, bias)
    found = times(x)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    across = torch.randn(20, rows).t()  # not contiguous
    wanted = across.double() @ weight.double().t() + (0 if bias is None else bias.double())
    torch.testing.assert_close(times(across).double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not packs(torch.zeros(1)), reason="this PyTorch has no oneDNN")
def test_the_weight_is_laid_out_once() -> None:
    """Later changes of the weight are not seen: whoever changes it makes the product anew."""
    weight, x = torch.randn(4, 3), torch.randn(2, 3)
    times, wanted = product(weight, None), x @ weight.t()
    weight.zero_()
    torch.testing.assert_close(times(x), wanted)


def test_other_numbers_take_the_stock_way() -> None:
    for dtype in (torch.bfloat16, torch.float64):
        weight, x = torch.randn(4, 3).to(dtype), torch.randn(2, 3).to(dtype)
        assert not packs(weight)
        assert torch.equal(product(weight, None)(x), torch.nn.functional.linear(x, weight))


def test_without_onednn_the_stock_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed.torch.backends.mkldnn, "is_available", lambda: False)
    weight, x = torch.randn(4, 3), torch.randn(2, 3)
    assert torch.equal(product(weight, None)(x), torch.nn.functional.linear(x, weight))


def test_weights_that_are_large_beside_the_machine_are_not_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    module = torch.nn.Linear(9, 10)  # 100 weights of 4 bytes
    monkeypatch.setattr(packed, "total_memory", lambda: 3_200)
    assert packed.affordable(module)
    monkeypatch.setattr(packed, "total_memory", lambda: 3_199)
    assert not packed.affordable(module)
