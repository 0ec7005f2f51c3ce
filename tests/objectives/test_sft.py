"""Supervised fine-tuning: what is summed, what it is divided by, and what is left out.

The gradient's independence of splits and the label-smoothing formula stand in tests/invariant.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests import fakes
from tunesmith.config.methods import SftConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.objectives.sft import Sft


class Known(Model):
    """A model that gives these logits at the loss positions."""

    def __init__(self, values):
        super().__init__(None, "layout", 0)
        self.values = values

    def logits(self, batch):
        assert len(self.values) == len(batch.targets)
        return self.values


def batch(weights=(1.0, 1.0, 1.0)):
    """Targets 1, 2, 0 after a first token; the weights are those of the targets."""
    row = fakes.row([3, 1, 2, 0], 1)
    row.segments[0].weights[1:] = weights
    return Batch.from_rows([row])


LOGITS = torch.log(torch.tensor([[0.1, 0.6, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1]]))


def test_the_loss_is_the_weighted_sum_and_its_weight_the_sum_of_weights():
    given = batch((1.0, 0.5, 2.0))
    objective = Sft(SftConfig())
    out = objective.loss(Known(LOGITS), given)
    expected = -torch.tensor([0.6, 0.2, 0.7]).log() @ torch.tensor([1.0, 0.5, 2.0])
    assert out.terms["sft"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert objective.weights(given) == {"sft": torch.tensor(3.5)}


def test_a_token_of_weight_zero_is_not_even_looked_at():
    given = batch((1.0, 0.0, 1.0))
    assert given.targets.tolist() == [1, 0]
    out = Sft(SftConfig()).loss(Known(LOGITS[[0, 2]]), given)
    assert out.terms["sft"].item() == pytest.approx(-torch.tensor(0.6 * 0.7).log().item(), rel=1e-6)
    assert out.metric_weights["token_accuracy"].item() == 2.0


def test_metrics_are_sums_over_the_same_weights():
    given = batch((1.0, 0.5, 2.0))
    out = Sft(SftConfig()).loss(Known(LOGITS), given)
    assert out.metrics["token_accuracy"].item() == 3.0  # right, wrong (0.5), right (2.0)
    assert out.metric_weights["token_accuracy"].item() == 3.5
    assert not out.metrics["token_accuracy"].requires_grad


def test_label_smoothing_of_zero_is_the_plain_loss_and_more_costs_a_sure_model_more():
    sure = Known(20.0 * torch.nn.functional.one_hot(batch().targets, 4).float())
    plain = Sft(SftConfig()).loss(sure, batch()).terms["sft"].item()
    smooth = Sft(SftConfig(label_smoothing=0.2)).loss(sure, batch()).terms["sft"].item()
    assert plain < 1e-6
    assert smooth == pytest.approx(3 * 0.2 * 0.75 * 20.0, rel=1e-5)  # e (V - 1) / V of the mass, at -20 each


def test_the_best_smoothed_prediction_is_the_smoothed_target():
    """The gradient vanishes where p = (1 - e) one-hot + e / V."""
    given, e = batch(), 0.2
    target = (1 - e) * torch.nn.functional.one_hot(given.targets, 4).double() + e / 4
    logits = target.log().requires_grad_()
    Sft(SftConfig(label_smoothing=e)).loss(Known(logits), given).terms["sft"].backward()
    assert logits.grad.abs().max() < 1e-7


def test_half_precision_logits_are_summed_in_float32():
    given = Batch.from_rows(fakes.rows(8))
    logits = torch.randn(len(given.targets), fakes.VOCAB).bfloat16()
    out = Sft(SftConfig()).loss(Known(logits), given)
    exact = Sft(SftConfig()).loss(Known(logits.double()), replace(given, weights=given.weights.double()))
    assert out.terms["sft"].dtype == torch.float32
    assert out.terms["sft"].item() == pytest.approx(exact.terms["sft"].item(), rel=1e-5)


def test_the_gradient_is_that_of_softmax_cross_entropy():
    given = batch((1.0, 0.5, 2.0))
    logits = LOGITS.double().requires_grad_()
    Sft(SftConfig()).loss(Known(logits), given).terms["sft"].backward()
    one_hot = torch.nn.functional.one_hot(given.targets, 4)
    expected = given.weights[:, None] * (LOGITS.double().softmax(-1) - one_hot)
    assert torch.allclose(logits.grad, expected, atol=1e-7)
