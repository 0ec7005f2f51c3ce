"""The head by tiles, which writes no logits, against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.core.native.formulas import near, needs_tiles
from tunesmith.core.native.head import linear_cross_entropy, linear_losses
from tunesmith.core.native.sums import watched

SHAPES = [(1, 2, 16), (33, 100, 50), (50, 37, 576), (130, 4100, 96), (700, 333, 32)]
"""Rows, vocabulary, hidden: whole tiles and not; blocks and groups of rows that are several, and one."""


def drawn(rows: int, width: int, hidden: int, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    states, weight = torch.randn(rows, hidden).bfloat16(), (spread * torch.randn(width, hidden)).bfloat16()
    return states.requires_grad_(), weight.requires_grad_(), torch.randint(width, (rows,))


def exactly(states: Tensor, weight: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, ...]:
    """Losses, and what they are made of."""
    h, w = (x.detach().double().requires_grad_() for x in (states, weight))
    logits = h @ w.t()
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    return losses, logits, h, w


def precise(losses: Tensor, wanted: Tensor) -> None:
    """As float32 is: logits are not rounded."""
    assert losses.dtype == torch.float32
    assert (losses - wanted).abs().max() <= 1e-6 * wanted.abs().max().clamp_min(1)


def near_gradients(*pairs: tuple[Tensor, Tensor], first: int = 0) -> None:
    """Of each pair ours beside the exact one's; first: column."""
    for got, exact in pairs:
        assert got.grad is not None
        assert exact.grad is not None
        near(got.grad[:, first:], exact.grad[:, first:])


@needs_tiles
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("spread", [0.1, 2.0])
def test_losses_and_gradients_are_those_of_the_formula(
    shape: tuple[int, int, int], smoothing: float, spread: float
) -> None:
    states, weight, targets = drawn(*shape, spread)
    weights = torch.randn(len(targets))
    total, losses, best = linear_cross_entropy(states, weight, targets, weights, smoothing)
    wanted, logits, h, w = exactly(states, weight, targets, smoothing)
    precise(losses, wanted)
    assert not losses.requires_grad
    assert torch.equal(best, logits.argmax(1))
    (total / 7).backward()
    ((wanted * weights).sum() / 7).backward()
    near_gradients((states, h), (weight, w))


@needs_tiles
def test_each_loss_has_a_gradient_of_its_own() -> None:
    states, weight, targets = drawn(40, 75, 64)
    for losses in (linear_losses(states, weight, targets), wanted := exactly(states, weight, targets)):
        one = losses[0] if isinstance(losses, tuple) else losses
        (one[:9].sum() - one[9:].sum()).square().backward()
    near_gradients(*zip((states, weight), wanted[2:], strict=True))


@needs_tiles
def test_no_gradient_is_made_that_nobody_asks_for() -> None:
    """Of a frozen weight the states' alone is, outside training none: each is a product as large as the logits'."""
    states, weight, targets = drawn(5, 64, 32)
    with watched() as products:
        linear_losses(states, weight.detach(), targets).sum().backward()
    assert products == [(1, 5, 32, 64)] * 2
    with watched() as products, torch.no_grad():
        linear_losses(states, weight, targets)
    assert products == [(1, 5, 32, 64)]


@needs_tiles
@pytest.mark.parametrize("turned", [False, True])
def test_logits_that_rise_and_fall_along_the_vocabulary(turned: bool) -> None:
    """By far more than float32's exponentials reach: sums follow their reference."""
    states, weight, targets = drawn(40, 4096, 32)
    with torch.no_grad():
        states[:, 0] = 1
        weight[:, 0] = torch.linspace(-300, 300, 4096)
        if turned:
            weight.copy_(weight.flip(0).clone())
    targets[:20] = exactly(states, weight, targets)[1].topk(20).indices[0]
    losses = linear_losses(states, weight, targets)
    wanted, _, h, w = exactly(states, weight, targets)
    precise(losses, wanted)
    losses[:20].sum().backward()
    wanted[:20].sum().backward()
    near_gradients((states, h), (weight, w), first=1)  # the first is a difference of hundreds


@needs_tiles
def test_the_gradient_of_a_target_that_is_almost_certain() -> None:
    """Its share less one would be rounding alone if its share were rounded first."""
    states, weight, targets = drawn(8, 64, 32, 0.1)
    with torch.no_grad():
        weight[targets] += 0.4 * states
    losses = linear_losses(states, weight, targets)
    wanted, _, h, w = exactly(states, weight, targets)
    assert ((losses - wanted).abs() <= 1e-6 * wanted + 1e-9).all()
    losses.sum().backward()
    wanted.sum().backward()
    near_gradients((states, h), (weight, w))


@needs_tiles
def test_of_equal_logits_the_first_is_the_likeliest() -> None:
    states, weight, targets = drawn(20, 200, 32)
    twice = torch.cat([weight.detach(), weight.detach(), weight.detach()])
    _, _, best = linear_cross_entropy(states.detach(), twice, targets, torch.ones(20))
    assert torch.equal(best, exactly(states, weight, targets)[1].argmax(1))


@needs_tiles
def test_a_row_does_not_depend_on_the_others_or_on_threads() -> None:
    states, weight, targets = drawn(100, 700, 64)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 9):
            torch.set_num_threads(threads)
            states.grad = weight.grad = None
            total, losses, best = linear_cross_entropy(states, weight, targets, torch.ones(100))
            total.backward()
            assert states.grad is not None
            assert weight.grad is not None
            found.append((losses, best, states.grad, weight.grad))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    for rows in (slice(3, 4), slice(40, 97)):
        part = states.detach()[rows].requires_grad_()
        total, losses, best = linear_cross_entropy(
            part, weight.detach(), targets[rows], torch.ones(100)[rows]
        )
        total.backward()
        assert part.grad is not None
        assert all(torch.equal(a, b[rows]) for a, b in zip((losses, best, part.grad), found[0], strict=False))


@needs_tiles
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_stays_in_its_row(number: float) -> None:
    states, weight, targets = drawn(40, 100, 32)
    with torch.no_grad():
        states[7, 3] = number
    losses = linear_losses(states, weight.detach(), targets)
    losses.sum().backward()
    assert states.grad is not None
    for rows in (losses[:, None], states.grad):
        assert not rows[7].isfinite().any()
        assert rows[torch.arange(40) != 7].isfinite().all()
