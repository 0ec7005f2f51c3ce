"""A part of the reward that teaches nothing: measured beside what does, and it may choose the best step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.test_own_answers import metric, recipe, run
from tunesmith.errors import ConfigError
from tunesmith.train.folder import RunFolder

pytestmark = pytest.mark.usefixtures("quick")

PARTS = [
    {"kind": "length", "unit": "characters", "weight": 0.1},
    {"kind": "regex", "name": "held", "pattern": "a", "count": True, "weight": 0},
]


def test_it_is_no_part_of_the_sum_and_chooses_the_best_step(base: Path, tmp_path: Path) -> None:
    train = {"max_steps": 4, "eval_every": 1, "watch": "reward.held", "early_stopping": {"patience": 2}}
    result = run(recipe(base, tmp_path, method={"rewards": PARTS}, train=train))
    folder = RunFolder(result.folder)
    for rollout in folder.curve("rollout"):
        numbers = rollout["numbers"]
        assert numbers["reward"] == pytest.approx(0.1 * numbers["reward.length"])
    measured = [(e["step"], e["metrics"]["reward.held"]) for e in folder.curve("evaluation")]
    best = max(value for _, value in measured)
    assert result.report.fit.best_step == next(step for step, value in measured if value == best)
    assert metric(result, "base", "reward.held") > 0
    assert "| Reward: held |" in (result.folder / "report" / "report.md").read_text()


def test_a_part_that_there_is_not_cannot_be_watched(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reward\.other is not measured") as caught:
        run(recipe(base, tmp_path, method={"rewards": PARTS}, train={"watch": "reward.other"}))
    assert "reward.held" in str(caught.value)
