"""What answers are worth: each algorithm's formula on ragged numbers, and groups that say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.objectives.test_policy import resolved
from tunesmith.train.advantages import of_answers, of_tokens

REWARDS = np.array([[1.0, 0.0, 0.5, 0.0], [2.0, 2.0, 2.0, 2.0], [0.1, 0.7, -3.0, 4.0]])


def test_grpo_is_the_groups_standard_score():
    for row, found in zip(REWARDS, of_answers(REWARDS, resolved("grpo")), strict=True):
        spread = np.sqrt(((row - row.mean()) ** 2).mean())
        want = (row - row.mean()) / spread if spread else np.zeros(4)
        np.testing.assert_allclose(found, want, rtol=1e-6)


def test_dr_grpo_is_not_divided():
    np.testing.assert_allclose(
        of_answers(REWARDS, resolved("dr_grpo")), REWARDS - REWARDS.mean(1, keepdims=True), atol=1e-12
    )


def test_rloo_leaves_itself_out_of_the_mean():
    found = of_answers(REWARDS, resolved("rloo"))
    for g, row in enumerate(REWARDS):
        for i, reward in enumerate(row):
            others = [r for k, r in enumerate(row) if k != i]
            assert found[g, i] == pytest.approx(reward - sum(others) / 3)


def test_scales_can_be_chosen():
    whole = of_answers(REWARDS, resolved("grpo", scale="batch"))
    np.testing.assert_allclose(whole, (REWARDS - REWARDS.mean(1, keepdims=True)) / REWARDS.std(), rtol=1e-6)


@pytest.mark.parametrize("algorithm", ["grpo", "dr_grpo", "dapo", "gspo", "rloo"])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1e6])
def test_equal_rewards_are_worth_nothing(algorithm, reward):
    """0.1 three times has a mean that is not quite 0.1."""
    found = of_answers(np.full((2, 3), reward), resolved(algorithm))
    assert np.abs(found).max() <= 1e-9 * max(1.0, reward)


def test_reinforce_pp_takes_the_penalty_of_the_rest_and_whitens_the_rollout():
    rewards, penalties = np.array([1.0, -0.5]), [np.array([0.1, 0.2, 0.3]), np.array([0.4])]
    raw = [[1.0 - 0.6, 1.0 - 0.5, 1.0 - 0.3], [-0.5 - 0.4]]
    every = np.array([x for of_answer in raw for x in of_answer])
    want = (every - every.mean()) / every.std()
    np.testing.assert_allclose(np.concatenate(of_tokens(rewards, penalties)), want, rtol=1e-6)
    alike = of_tokens(np.array([0.1, 0.1, 0.1]), [np.zeros(2)] * 3)
    assert all((each == 0).all() for each in alike)
