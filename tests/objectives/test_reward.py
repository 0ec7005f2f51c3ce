"""Reward models' losses against their formulas, and a head that reads each completion's end."""

from __future__ import annotations

import math

import pytest
import torch

from tests import fakes
from tests.objectives.judged import held, log_s, s, value_and_gradient
from tunesmith.config.judged import RewardConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.objectives.reward import Reward


class Rewarding(Model):
    """A model that gives these rewards (C,)."""

    def __init__(self, rewards):
        super().__init__(None, "layout", 0)
        self.rewards = rewards

    def outputs(self, batch):
        return self.rewards[:, None]


def rewards_for(batch):
    torch.manual_seed(1)
    return torch.randn(len(batch.completions), dtype=torch.float64).requires_grad_()


def listed(rows, rewards):
    at = 0
    for row in rows:
        k = len(row.segments) - 1
        yield list(zip(row.given["scores"].tolist(), rewards[at : at + k], strict=True)), row.given
        at += k


@pytest.mark.parametrize(
    "settings", [{}, {"label_smoothing": 0.1}, {"margin_scale": 0.0}, {"centre": 0.01}], ids=str
)
def test_bradley_terry(settings):
    config, rows = RewardConfig(loss="bradley_terry", **settings), fakes.judged_rows(6)
    batch = Batch.from_rows(rows)
    rewards = rewards_for(batch)
    want = 0.0
    for items, given in listed(rows, rewards):
        m, e = config.margin_scale * float(given["margin"][0]), config.label_smoothing
        gaps = [a - b - m for x, a in items for y, b in items if x > y]
        want = want + sum(-(1 - e) * log_s(g) - e * log_s(-g) for g in gaps) / len(gaps)
        want = want + config.centre * (2 * sum(r for _, r in items) / len(items)) ** 2
    got = Reward(config).loss(Rewarding(rewards), batch).terms["reward"]
    held(value_and_gradient(got, rewards), value_and_gradient(want, rewards))


def test_plackett_luce_takes_the_ranking_apart_place_by_place():
    config, rows = RewardConfig(loss="plackett_luce"), fakes.judged_rows(5, most=5, ties=False)
    batch = Batch.from_rows(rows)
    rewards = rewards_for(batch)
    want = 0.0
    for items, _ in listed(rows, rewards):
        left = [r for _, r in sorted(items, key=lambda item: -item[0])]
        while left:
            want = want - torch.log(torch.exp(left[0]) / sum(torch.exp(r) for r in left))
            left.pop(0)
    got = Reward(config).loss(Rewarding(rewards), batch).terms["reward"]
    held(value_and_gradient(got, rewards), value_and_gradient(want, rewards))


def rated(count=6):
    return [fakes.judged_row([3, 4], [[5 + i]], [float(1 + i % 4)], i) for i in range(count)]


def test_regression_is_the_squared_error_of_scaled_ratings():
    batch = Batch.from_rows(rated())
    rewards = rewards_for(batch)
    config = RewardConfig(loss="regression", scale=(2.5, 1.2))
    want = sum((r - (float(1 + i % 4) - 2.5) / 1.2) ** 2 for i, r in enumerate(rewards))
    got = Reward(config).loss(Rewarding(rewards), batch).terms["reward"]
    held(value_and_gradient(got, rewards), value_and_gradient(want, rewards))


def test_ordinal_is_the_probability_between_two_thresholds():
    batch = Batch.from_rows(rated())
    rewards = rewards_for(batch)
    thresholds = [-1.0, 0.2, 1.5]
    config = RewardConfig(loss="ordinal", levels=[1.0, 2.0, 3.0, 4.0], thresholds=thresholds)
    want = 0.0
    for i, r in enumerate(rewards):
        at_most = [torch.zeros(()), *(s(t - r) for t in thresholds), torch.ones(())]
        want = want - torch.log(at_most[i % 4 + 1] - at_most[i % 4])
    got = Reward(config).loss(Rewarding(rewards), batch).terms["reward"]
    held(value_and_gradient(got, rewards), value_and_gradient(want, rewards))


def test_a_rating_far_from_the_reward_costs_a_finite_loss():
    batch = Batch.from_rows(rated(4))
    rewards = torch.tensor([60.0, -60.0, 60.0, -60.0], requires_grad=True)
    config = RewardConfig(loss="ordinal", levels=[1.0, 2.0, 3.0, 4.0], thresholds=[-1.0, 0.2, 1.5])
    value, gradient = value_and_gradient(
        Reward(config).loss(Rewarding(rewards), batch).terms["reward"], rewards
    )
    assert math.isfinite(value)
    assert gradient.isfinite().all()
