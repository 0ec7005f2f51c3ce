"""The weighted sum, and its curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.scoring.rewards.rows import row
from tunesmith.config.rewards import Curve, LengthReward, ModelReward, RewardParts
from tunesmith.errors import ConfigError, NonFiniteError
from tunesmith.scoring.rewards import Rewards, build_rewards
from tunesmith.scoring.rewards.combine import bend
from tunesmith.scoring.rewards.model import Scorer

NUMBERS = st.floats(-1e6, 1e6)


def no_model(part: ModelReward) -> Scorer:
    raise AssertionError(part)


def constant(*values: float) -> Rewards:
    """A reward that is these numbers, under the name `model`."""
    return build_rewards([ModelReward(path="m")], lambda part: lambda examples, answers: list(values))


def by_hand(shape: str, low: float, high: float, x: float) -> float:
    if shape == "linear":
        return x
    if shape == "clip":
        return min(1.0, max(0.0, (x - low) / (high - low)))
    if shape == "sigmoid":  # odds of 1 : 9 at low, 9 : 1 at high
        middle, scale = (low + high) / 2, (high - low) / 2 / math.log(9)
        z = max(-700.0, min(700.0, (x - middle) / scale))
        return 1 / (1 + math.exp(-z))
    if shape == "log":
        return math.log(1 + x - low) if x > low else 0.0
    return 1.0 if x >= low else 0.0


@pytest.mark.parametrize("shape", ["linear", "clip", "sigmoid", "log", "step"])
@given(x=st.lists(NUMBERS, max_size=5), low=st.floats(-100, 100), width=st.floats(0.01, 100))
def test_curves(shape: str, x: list[float], low: float, width: float) -> None:
    uses = {"linear": {}, "log": {"low": low}, "step": {"low": low}}
    curve = Curve.model_validate({"shape": shape, **uses.get(shape, {"low": low, "high": low + width})})
    found = bend(curve, np.array(x))
    wanted = [by_hand(shape, curve.low, curve.high, value) for value in x]
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-9)
    order = np.argsort(x, kind="stable")
    assert (np.diff(found[order]) >= 0).all()


def test_a_sigmoid_is_a_tenth_at_low_and_nine_tenths_at_high() -> None:
    curve = Curve(shape="sigmoid", low=2, high=6)
    assert bend(curve, np.array([2.0, 4.0, 6.0])) == pytest.approx([0.1, 0.5, 0.9])
    assert bend(curve, np.array([-1e300, 1e300])) == pytest.approx([0, 1])


def test_the_sum_by_hand() -> None:
    parts = TypeAdapter(RewardParts).validate_python(
        [
            {"kind": "verifier", "check": "number", "weight": 2.0},
            {"kind": "length", "unit": "tokens", "weight": -0.1, "curve": {"shape": "log", "low": 1.0}},
            {"kind": "regex", "pattern": "!", "count": True, "name": "shouts", "weight": -1},
            {"kind": "model", "path": "runs/r", "weight": 0.5, "curve": {"shape": "clip", "high": 4.0}},
        ]
    )
    opened: list[str] = []

    def open_model(part: ModelReward) -> Scorer:
        opened.append(part.path)
        return lambda examples, answers: [3.0, 9.0, -1.0]

    rewards = build_rewards(parts, open_model, lambda text: len(text.split()))
    found = rewards([row(), row(), row(line=2)], ["It is 4", "5!!", ""])
    assert opened == ["runs/r"]
    assert {name: list(values) for name, values in found.parts.items()} == {
        "verifier": [1, 0, 0],
        "length": [3, 1, 0],
        "shouts": [0, 2, 0],
        "model": [3, 9, -1],
    }
    assert found.total == pytest.approx([2 - 0.1 * math.log(3) + 0.5 * 0.75, -2 + 0.5, 0])
    assert found.total.dtype == np.float64


def test_no_answers_have_no_rewards() -> None:
    found = build_rewards([LengthReward()], no_model)([], [])
    assert found.total.shape == found.parts["length"].shape == (0,)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_an_error_that_names_it(value: float) -> None:
    with pytest.raises(NonFiniteError) as found:
        constant(1.0, value, value)([row(line=5), row(line=6), row(line=7)], ["a", "so  be\nit", "c"])
    said = str(found.value)
    assert f"reward 'model' is {value} for an answer to rows.jsonl:6: 'so be it' (2 of 3" in said


def test_a_sum_that_overflows_is_an_error() -> None:
    part = ModelReward(path="m", weight=1e10)
    rewards = build_rewards([part], lambda part: lambda examples, answers: [1e300])
    with pytest.raises(NonFiniteError, match="the sum of rewards is inf"):
        rewards([row()], ["a"])


def test_no_parts_are_no_reward() -> None:
    with pytest.raises(ConfigError, match="no rewards"):
        build_rewards([], no_model)
