"""A classifier in the place of a reward model: what it reads, what its number is, and a run that learns from it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.workflow.conftest import write_jsonl
from tests.workflow.test_heads import recipe as head_recipe
from tests.workflow.test_judged import recipe as judged_recipe
from tests.workflow.test_own_answers import recipe as policy_recipe
from tunesmith.config.rewards import ModelReward
from tunesmith.config.run import Run
from tunesmith.errors import ConfigError, ModelError
from tunesmith.train.folder import RunFolder
from tunesmith.types import Example, Message, RowRef
from tunesmith.workflow.open import Opened
from tunesmith.workflow.own import open_reward
from tunesmith.workflow.prepare import absolute

pytestmark = pytest.mark.usefixtures("quick")

TEXTS = ("a plum is here", "a horse", "gold and a pear")


@pytest.fixture(scope="module")
def classifier(encoder: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """classifier("classify"), classifier("many"), classifier("classify", on="decoder"): a run, made once."""
    made: dict[tuple[str, str], str] = {}

    def train(kind: str, on: str = "encoder") -> str:
        if (kind, on) not in made:
            folder = tmp_path_factory.mktemp("classifier")
            tree = head_recipe(kind, encoder if on == "encoder" else base, folder)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("tunesmith.workflow.prepare.physical_cores", lambda: 1)
                made[kind, on] = str(tunesmith.train(Run.model_validate(tree)).folder)
        return made[kind, on]

    return train


def asked(prompt: str) -> Example:
    return Example(RowRef("rows.jsonl", 1), (Message("user", prompt), Message("assistant", "")))


def shares(opened: Opened, texts: Sequence[str]) -> list[dict[str, float]]:
    """Class -> its probability, as `predict` finds it."""
    found = opened.answerer(1, 1).answer([opened._example(text, 0) for text in texts])
    assert opened.loaded.head is not None
    assert found.probabilities is not None
    return [dict(zip(opened.loaded.head.labels, row, strict=True)) for row in found.probabilities]


@pytest.mark.parametrize(
    ("kind", "on"), [("classify", "encoder"), ("classify", "decoder"), ("many", "encoder")]
)
def test_the_number_is_the_log_odds_of_the_class(kind: str, on: str, classifier: Callable[..., str]) -> None:
    path = classifier(kind, on=on)
    opened = tunesmith.load(path, threads=1)
    for label in ("fruit", "animal"):
        wanted = [math.log(p[label] / (1 - p[label])) for p in shares(opened, TEXTS)]
        assert opened.log_odds(TEXTS, label) == pytest.approx(wanted, abs=1e-6)
        scorer = open_reward(ModelReward(path=path, label=label))
        assert scorer([asked("Well?")] * 3, TEXTS) == pytest.approx(wanted, abs=1e-6)
    assert len({round(number, 6) for number in opened.log_odds(TEXTS, "fruit")}) == 3


def test_it_reads_the_prompt_too_where_that_is_asked(classifier: Callable[..., str]) -> None:
    path = classifier("classify")
    opened = tunesmith.load(path, threads=1)
    both = open_reward(ModelReward(path=path, label="fruit", reads="prompt_and_answer"))
    found = both([asked("a plum"), asked("a horse")], ["is here", ""])
    assert found == pytest.approx(opened.log_odds(["a plum is here", "a horse "], "fruit"), abs=1e-5)


@pytest.mark.parametrize("on", ["encoder", "decoder"])
def test_an_empty_answer_has_a_number(on: str, classifier: Callable[..., str]) -> None:
    scorer = open_reward(ModelReward(path=classifier("classify", on=on), label="fruit"))
    empty, one = scorer([asked("Well?")] * 2, ["", "a plum"])
    assert math.isfinite(empty)
    assert empty != one


def test_a_class_or_a_head_that_is_not_there_is_refused_before_anything_is_asked(
    classifier: Callable[..., str], base: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"has no class 'fruits'\n.*did you mean 'fruit'"):
        open_reward(ModelReward(path=classifier("classify"), label="fruits"))
    with pytest.raises(ConfigError, match=r"is no reward model\n.*or a classifier and its class as label"):
        open_reward(ModelReward(path=classifier("classify")))
    with pytest.raises(ModelError, match="is no classifier"):
        open_reward(ModelReward(path=str(base), label="fruit"))
    tree = judged_recipe("reward", "preference", base, tmp_path, train={"max_steps": 1})
    rewarding = tunesmith.train(Run.model_validate(tree))
    with pytest.raises(ModelError, match="is no classifier"):
        open_reward(ModelReward(path=str(rewarding.folder), label="fruit"))


def test_a_policy_learns_from_it(classifier: Callable[..., str], base: Path, tmp_path: Path) -> None:
    curve = {"shape": "sigmoid", "low": -math.log(9), "high": math.log(9)}
    part: dict[str, Any] = {"kind": "model", "path": classifier("classify"), "label": "fruit", "curve": curve}
    more = {"rewards": [part | {"reads": "prompt_and_answer"}], "max_new_tokens": 4}
    tree = policy_recipe(base, tmp_path, method=more, train={"max_steps": 2})
    write_jsonl(tmp_path / "train.jsonl", [{"prompt": f"number {i}: a"} for i in range(32)])
    result = tunesmith.train(Run.model_validate(tree))
    numbers = [row["numbers"] for row in RunFolder(result.folder).curve("rollout")]
    assert all(0 < row["reward"] < 1 for row in numbers)  # the curve makes a probability of the log-odds
    assert any(not 0 < row["reward.model"] < 1 for row in numbers)
    steps = RunFolder(result.folder).curve("step")
    assert steps[0]["grad_norm"] > 0
    assert json.loads((result.folder / "report" / "metrics.json").read_text())["primary"] == "reward"


def test_a_path_is_made_absolute_so_that_a_run_resumes_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judge").mkdir()
    monkeypatch.chdir(tmp_path)
    parts = [{"kind": "model", "path": "judge"}, {"kind": "length"}]
    policy = Run.model_validate({"method": {"type": "policy", "rewards": parts}})
    proof = Run.model_validate({"method": {"type": "preference"}, "evaluate": {"rewards": parts}})
    for found in (absolute(policy).method.rewards[0], absolute(proof).evaluate.rewards[0]):  # type: ignore[union-attr]
        assert found.path == str(tmp_path / "judge")  # type: ignore[union-attr]
    assert policy.method.rewards[0].path == "judge"  # type: ignore[union-attr]
