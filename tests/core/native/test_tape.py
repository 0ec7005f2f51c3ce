"""Functions taken together: the gradient of each alone, bit for bit; and where PyTorch takes part, as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.core.native.formulas import needs_library, needs_tiles
from tunesmith.core.native import tape
from tunesmith.core.native.ops import add_norm, column_sums, gelu, rms_norm
from tunesmith.core.native.tape import as_one

pytestmark = needs_library


class Layer(nn.Module):
    """What goes past is read twice; and PyTorch's own operators in between, if they are asked for."""

    def __init__(self, dtype: torch.dtype = torch.float32, *, mixed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.norm = nn.LayerNorm(40, dtype=dtype)
        nn.init.normal_(self.norm.weight)
        self.weight = nn.Parameter(torch.randn(40, dtype=dtype))
        self.mixed, self.attempts = mixed, 0

    def through(self, x: Tensor) -> Tensor:
        self.attempts += 1
        normed, past = rms_norm(x, self.weight, 1e-6)
        made = gelu(normed)
        return add_norm(made * 2 if self.mixed else made, past, self.norm, 0.25)

    def forward(self, x: Tensor) -> Tensor:
        return as_one(self, x, lambda: self.through(x))


def found(layer: Layer, run: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """Output and gradients."""
    layer.zero_grad()
    torch.manual_seed(2)
    x = x.clone().requires_grad_()
    out = run(x)
    (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    assert x.grad is not None
    return [out.detach(), x.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_tiles)], ids=str)
def test_it_is_each_function_by_itself(dtype: torch.dtype) -> None:
    layer, x = Layer(dtype), torch.randn(50, 40, dtype=dtype)
    one, other = found(layer, layer, x), found(layer, layer.through, x)
    assert len(one) == 5
    assert same(one, other)
    assert type(layer(x.requires_grad_()).grad_fn).__name__ == "_AsOneBackward"


def test_a_layer_in_which_pytorch_takes_part_runs_as_it_is_and_is_not_tried_again() -> None:
    layer, x = Layer(mixed=True), torch.randn(50, 40)
    other = found(layer, layer.through, x)
    layer.attempts = 0
    assert same(found(layer, layer, x), other), "with the same dropout as if nothing had been tried"
    assert layer.attempts == 2
    assert same(found(layer, layer, x), other)
    assert layer.attempts == 3


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_tiles)], ids=str)
def test_what_two_functions_read_gets_both_gradients(dtype: torch.dtype) -> None:
    layer, x = Layer(dtype), torch.randn(50, 40, dtype=dtype)

    def through(x: Tensor) -> Tensor:
        made = gelu(x)
        return add_norm(gelu(made), made, layer.norm, 0.25)

    one, other = found(layer, lambda x: as_one(layer, x, lambda: through(x)), x), found(layer, through, x)
    assert len(one) == 4
    assert same(one, other)


def test_what_is_frozen_gets_no_gradient_and_without_any_there_is_no_function() -> None:
    layer, x = Layer(), torch.randn(50, 40)
    layer.weight.requires_grad_(False)
    assert len(found(layer, layer, x)) == 4
    layer.requires_grad_(False)
    assert not layer(x).requires_grad
    with torch.no_grad():
        assert not layer(x.requires_grad_()).requires_grad


def test_it_is_computed_again_where_activations_are_not_kept() -> None:
    layer, x = Layer(), torch.randn(50, 40)
    kept = found(layer, layer, x)
    layer.attempts = 0
    again = found(layer, lambda x: checkpoint(layer, x, use_reentrant=False), x)  # type: ignore[arg-type]
    assert layer.attempts == 2
    assert same(kept, again)


def test_two_ways_back_are_the_same() -> None:
    layer, x = Layer(), torch.randn(50, 40, requires_grad=True)
    out = layer(x).sum()
    first = torch.autograd.grad(out, x, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(out, x)[0])


def test_an_error_leaves_no_functions_behind() -> None:
    layer, x = Layer(), torch.randn(50, 40, requires_grad=True)

    def broken() -> Tensor:
        rms_norm(x, layer.weight, 1e-6)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        as_one(layer, x, broken)
    assert tape._here.tape is None
    assert layer(x).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 3), (70, 64), (9, 200)])
def test_column_sums(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    x = torch.randn(shape[0], shape[1] + 5).to(dtype)[:, 2 : 2 + shape[1]]
    wanted: Any = x.double().sum(0)
    for out in (torch.float32, torch.bfloat16):
        assert torch.allclose(column_sums(x, out).double(), wanted.to(out).double(), rtol=2**-7, atol=1e-4)
    assert torch.allclose(column_sums(x, torch.float32).double(), wanted, rtol=1e-5, atol=1e-5)
