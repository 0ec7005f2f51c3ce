"""Cross-entropy in chunks against the formula written out, value and gradient."""

from __future__ import annotations

import pytest
import torch

from tunesmith.core.loss import CHUNK, cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, CHUNK, 2 * CHUNK + 5])
def test_value_and_gradient_are_those_of_the_formula(rows, smoothing):
    torch.manual_seed(0)
    logits = (4 * torch.randn(rows, 37, dtype=torch.float64)).requires_grad_()
    targets, grad = torch.randint(37, (rows,)), torch.rand(rows, dtype=torch.float64)
    losses, best = cross_entropy(logits, targets, smoothing)
    (ours,) = torch.autograd.grad(losses, logits, grad)
    logps = (logits.exp() / logits.exp().sum(-1, keepdim=True)).log()
    wanted = torch.full_like(logits, smoothing / 37)
    wanted[torch.arange(rows), targets] += 1 - smoothing
    expected = -(wanted * logps).sum(-1)
    assert torch.allclose(losses, expected, rtol=1e-12)
    assert torch.allclose(ours, torch.autograd.grad(expected, logits, grad)[0], rtol=1e-10, atol=1e-14)
    assert torch.equal(best, logits.argmax(-1))


def test_bfloat16_logits_are_reduced_in_float32():
    torch.manual_seed(0)
    logits = (4 * torch.randn(70, 500)).bfloat16().requires_grad_()
    targets = torch.randint(500, (70,))
    losses, _ = cross_entropy(logits, targets)
    assert losses.dtype == torch.float32
    exact = logits.detach().double().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    assert torch.allclose(losses.double(), -exact, rtol=1e-5)
    (grad,) = torch.autograd.grad(losses.sum(), logits)
    assert grad.dtype == torch.bfloat16
    softmax = logits.detach().double().softmax(-1)
    softmax[torch.arange(70), targets] -= 1
    assert torch.allclose(grad.double(), softmax, rtol=2**-8, atol=1e-6)


def test_logits_far_apart_do_not_overflow():
    logits = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    losses, _ = cross_entropy(logits, torch.tensor([2]))
    assert losses.item() == pytest.approx(2e4)
    assert torch.autograd.grad(losses.sum(), logits)[0].tolist() == [[1.0, 0.0, -1.0]]
