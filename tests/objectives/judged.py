"""What tests of methods that compare completions share: a model whose token losses are known, and plain formulas."""

from __future__ import annotations

import math

import torch

from tunesmith.core.batch import Batch
from tunesmith.core.model import Model


class Known(Model):
    """A model whose targets have these losses (M,)."""

    def __init__(self, losses):
        super().__init__(None, "layout", 0)
        self.losses = losses

    def token_losses(self, batch):
        assert len(self.losses) == len(batch.targets)
        return self.losses


def random_losses(batch: Batch, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.rand(len(batch.targets), dtype=torch.float64).mul(3).add(0.05).requires_grad_()


def spelled_out(rows, losses):
    """For each row a list of (score, log-probability, reference, length) of its completions, and its margin."""
    out, at = [], 0
    for row in rows:
        completions = []
        for k, segment in enumerate(row.segments[1:]):
            size = len(segment.ids)
            logp = -losses[at : at + size].sum()
            reference = float(row.given["reference"][k]) if "reference" in row.given else 0.0
            completions.append((float(row.given["scores"][k]), logp, reference, size))
            at += size
        out.append((completions, float(row.given["margin"][0]) if "margin" in row.given else 0.0))
    assert at == len(losses)
    return out


def s(x):
    return 1 / (1 + torch.exp(-x))


def log_s(x):
    return -torch.log(1 + torch.exp(-x))


def value_and_gradient(loss, losses):
    losses.grad = None
    loss.backward()
    return loss.item(), losses.grad.clone()


def held(got, expected, tolerance: float = 1e-10) -> None:
    """(value, gradient) against (value, gradient)."""
    assert math.isclose(got[0], expected[0], rel_tol=tolerance, abs_tol=tolerance)
    scale = expected[1].abs().max().clamp(min=1e-3)
    assert (got[1] - expected[1]).abs().max() <= tolerance * scale
