"""What a rollout's time goes to: every second counted once, for people and for the profiler."""

from __future__ import annotations

import time

import pytest
import torch
from torch.profiler import ProfilerActivity, record_function

from tunesmith.train.profile import STEP, summary
from tunesmith.train.spent import Spent, spent_on


def test_a_part_that_is_done_twice_is_added_up() -> None:
    spent = Spent()
    for part in ("writing", "scoring", "writing"):
        with spent.on(part):
            time.sleep(0.01)
    assert spent.seconds["writing"] >= 0.02
    assert 0.01 <= spent.seconds["scoring"] < spent.seconds["writing"]
    assert spent.seconds["preparing"] == 0.0


def test_the_rest_of_the_steps_is_learning() -> None:
    rollouts = [
        {"writing": 2.0, "scoring": 0.5, "preparing": 1.0},
        {"writing": 3.0, "scoring": 0.0, "preparing": 1.5},
    ]
    found = spent_on(rollouts, 20.0)
    assert list(found.values()) == [5.0, 0.5, 2.5, 12.0]
    assert list(found)[-1] == "learning from them"
    assert spent_on([], 20.0) == {}


def test_the_profiler_tells_a_rollouts_parts_from_the_rest_of_data() -> None:
    spent, x = Spent(), torch.randn(30, 30)
    with (
        torch.profiler.profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found,
        record_function(STEP),
    ):
        with record_function("tunesmith: data"):
            with spent.on("writing"):
                x @ x
            with spent.on("preparing"):
                x @ x
            x + x
        x @ x
    told = summary(list(found.events()), [1.0], torch.ones(1))
    assert set(told["parts"]) >= {
        "writing answers",
        "their log-probabilities and advantages",
        "data",
        "linear layers",
    }
    assert all(seconds > 0 for seconds in told["parts"].values())
    assert told["flops"] == pytest.approx(3 * 2 * 30**3)
