"""A model of steps in the place of a reward model: the lines of an answer are its steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.workflow.conftest import make_quick
from tests.workflow.test_classifier_rewards import asked
from tests.workflow.test_judged import recipe as judged_recipe
from tests.workflow.test_own_answers import recipe as policy_recipe
from tunesmith.config.rewards import ModelReward
from tunesmith.config.run import Run
from tunesmith.data.steps import lines_of
from tunesmith.errors import ConfigError, ModelError
from tunesmith.train.folder import RunFolder
from tunesmith.workflow.own import open_reward

pytestmark = pytest.mark.usefixtures("quick")

ANSWERS = ["a dog is here\nso it is iron", "  a dog is here\n\n so it is iron\n", "iron", "\n \n", ""]
STEPS = [["a dog is here", "so it is iron"], ["a dog is here\n\n", " so it is iron"], ["iron"]]


@pytest.fixture(scope="module")
def of_steps(base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Trained with method.answer=product."""
    folder = tmp_path_factory.mktemp("steps")
    tree = judged_recipe("stepwise", "stepwise", base, folder, train={"max_steps": 4})
    tree["method"]["answer"] = "product"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tunesmith.workflow.prepare.physical_cores", lambda: 1)
        make_quick(patch)
        return str(tunesmith.train(Run.model_validate(tree)).folder)


@pytest.mark.parametrize(
    "answer, steps",
    [
        ("one\ntwo", ("one\n", "two\n")),
        ("\n  one\n\n  two\n", ("one\n\n", "  two\n")),
        ("one", ("one\n",)),
        ("one\r\ntwo", ("one\r\n", "two\n")),
        ("", ()),
        (" \n\t\n", ()),
    ],
)
def test_the_lines_that_say_something_are_steps(answer: str, steps: tuple[str, ...]) -> None:
    assert lines_of(answer) == steps


@pytest.mark.parametrize(
    "how, one", [(None, math.prod), ("product", math.prod), ("min", min), ("last", lambda found: found[-1])]
)
def test_the_reward_is_made_of_the_steps_probabilities(how: Any, one: Any, of_steps: str) -> None:
    opened = tunesmith.load(of_steps, threads=1)
    wanted = [one(opened.score("is a cat here?", steps)) for steps in STEPS] + [0.0, 0.0]
    assert len({round(w, 6) for w in wanted}) > 2
    scorer = open_reward(ModelReward(path=of_steps, steps=how))
    found = scorer([asked("is a cat here?")] * len(ANSWERS), ANSWERS)
    assert found == pytest.approx(wanted, rel=1e-5)


def test_a_policy_learns_from_it(of_steps: str, base: Path, tmp_path: Path) -> None:
    parts = [{"kind": "model", "path": of_steps, "steps": "min"}]
    result = tunesmith.train(Run.model_validate(policy_recipe(base, tmp_path, method={"rewards": parts})))
    rewards = [r["numbers"]["reward"] for r in RunFolder(result.folder).curve("rollout")]
    assert len(rewards) == 4
    assert all(0 < reward < 1 for reward in rewards)


def test_what_has_no_steps_is_refused(of_steps: str, base: Path, tmp_path: Path) -> None:
    whole = tunesmith.train(
        Run.model_validate(judged_recipe("reward", "preference", base, tmp_path, train={"max_steps": 1}))
    )
    with pytest.raises(ConfigError, match="scores whole answers"):
        open_reward(ModelReward(path=str(whole.folder), steps="min"))
    with pytest.raises(ValueError, match="steps is of a model of steps"):
        ModelReward(path=of_steps, label="good", steps="min")
    scorer = open_reward(ModelReward(path=of_steps))
    with pytest.raises(ModelError, match="beyond the model's context"):
        scorer([asked("is a cat here?")], ["\n".join(["a dog is here"] * 400)])
