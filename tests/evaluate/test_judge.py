"""What a model says of judged rows: the numbers that its answers are compared by."""

from __future__ import annotations

import numpy as np
import pytest

from tests import fakes
from tunesmith.config.judged import PreferenceConfig
from tunesmith.evaluate.judge import PolicyJudge, RewardJudge
from tunesmith.models.heads import HeadSpec
from tunesmith.objectives.preference import Preference

ROWS = fakes.judged_rows(5)


def policy(by: str) -> PolicyJudge:
    config = PreferenceConfig()
    config = config.model_copy(update={name: value for name, (value, _) in config.choices().items()})
    return PolicyJudge(fakes.model("gpt2"), lambda examples: ROWS, Preference(config), config, by)


def test_a_policy_finds_an_answer_as_likely_as_its_mean_token() -> None:
    judge = policy("likelihood")
    sums = judge.outputs(ROWS)
    for row, found, said in zip(ROWS, sums, judge.said(ROWS, sums), strict=True):
        sizes = [len(leaf.ids) for leaf in row.segments[1:]]
        assert said.tolist() == pytest.approx([s / n for s, n in zip(found, sizes, strict=True)])


def test_by_reward_it_says_what_an_answer_gained_on_the_reference() -> None:
    judge = policy("reward")
    sums = judge.outputs(ROWS)
    for row, found, said in zip(ROWS, sums, judge.said(ROWS, sums), strict=True):
        assert said.tolist() == pytest.approx((0.1 * (found - row.given["reference"])).tolist())


def test_a_reward_learned_from_ratings_is_in_their_unit() -> None:
    model = fakes.headed("gpt2", HeadSpec("reward", ("reward",)))
    plain = RewardJudge(model, lambda examples: ROWS)
    scaled = RewardJudge(model, lambda examples: ROWS, scale=(3.0, 0.5))
    outputs = plain.outputs(ROWS)
    for raw, said in zip(plain.said(ROWS, outputs), scaled.said(ROWS, outputs), strict=True):
        assert np.allclose(said, 3.0 + 0.5 * raw)


def test_an_answer_that_nobody_judged_is_not_asked_about() -> None:
    row = fakes.judged_row([3], [[4], [5, 6]], [1.0, float("nan")], reference=[0.0, 0.0])
    judge = policy("likelihood")
    (text,) = judge.read([row], judge.outputs([row])).texts
    assert text.count(",") == 0
