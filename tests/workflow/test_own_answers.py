"""The main job on the model's own answers: it learns what is rewarded, and goes on where it was cut off."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from tests.workflow.conftest import THINGS, settings, write_jsonl
from tests.workflow.test_resume import Crash, assert_same, at, crash, ending
from tunesmith.config.run import Run
from tunesmith.core.batch import Batch
from tunesmith.errors import ConfigError, DataError
from tunesmith.generate.sample import Sampling, sample
from tunesmith.models.critic import FILE as CRITIC
from tunesmith.models.files import EMBEDDED
from tunesmith.models.value import FILE
from tunesmith.objectives.policy import OLD
from tunesmith.train.folder import RunFolder
from tunesmith.train.rollout import RolloutSource
from tunesmith.train.start import StartWeights
from tunesmith.workflow.train import resume

pytestmark = pytest.mark.usefixtures("quick")

ALGORITHMS = ("ppo", "grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce_pp", "online_dpo", "raft", "rwr")
MODULE = '''
def low_ids(prompts, answers, rows):
    """The more early letters of the alphabet, the better: a random model writes all kinds."""
    return [sum(c in "abcdeABCDE" for c in a) / max(1, len(a)) for a in answers]
'''


def prompts(count: int, seed: int = 0) -> list[dict[str, Any]]:
    things = [t for ts in THINGS.values() for t in ts]
    both = [f"is a {a} here beside a {b}?" for a in things for b in things]
    random.Random(1).shuffle(both)
    return [{"prompt": p} for p in (both[-count:] if seed else both[:count])]


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward function in the folder that the command is started in."""
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "house_rewards.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.delitem(sys.modules, "house_rewards", raising=False)


def recipe(base: Path | str, folder: Path, **more: Any) -> dict[str, Any]:
    data = {
        "train": str(write_jsonl(folder / "train.jsonl", prompts(32))),
        "test": str(write_jsonl(folder / "test.jsonl", prompts(8, seed=1))),
    }
    method = {
        "type": "policy",
        "tuning": "full",
        "samples": 4,
        "max_new_tokens": 6,
        "rewards": [{"kind": "function", "path": "house_rewards:low_ids"}],
        **more.pop("method", {}),
    }
    train = {"max_steps": 4, "batch_size": 4, "eval_every": 4, "learning_rate": 3e-3, **more.pop("train", {})}
    tree = settings(base, folder, data, train=train, **more)
    return {**tree, "method": method}


def run(tree: dict[str, Any], **how: Any) -> Any:
    return tunesmith.train(Run.model_validate(tree), **how)


def first_step(tree: dict[str, Any]) -> RunFolder:
    """What a run writes down up to its first step; it dies there."""
    with pytest.raises(Crash):
        run(tree, sink=at("step", crash, step=1))
    return RunFolder(Path(tree["output"]) / tree["name"])


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[dict[str, Any], Any]]:
    """whole(**more): a recipe, without a place, and what a run of it ends in that nothing disturbed; made once."""
    made: dict[str, tuple[dict[str, Any], Any]] = {}

    def once(**more: Any) -> tuple[dict[str, Any], Any]:
        key = json.dumps(more)
        if key not in made:
            folder = tmp_path_factory.mktemp("whole")
            tree = recipe(base, folder, **more)
            made[key] = tree, ending(run(tree).folder)
        return made[key]

    return once


def told_of_rollouts(folder: Path) -> list[Any]:
    """What each rollout measured, and of which it says so."""
    names = ("rollout", "step", "asked", "answers", "tokens", "numbers")
    return [[event[name] for name in names] for event in RunFolder(folder).curve("rollout")]


def metric(result: Any, system: str, name: str = "reward") -> float:
    return float(next(s for s in result.report.systems if s.name == system).metrics[name].value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_learns_what_is_rewarded(algorithm: str, tmp_path: Path) -> None:
    """From the embedded model: what a random one writes says nothing of what it could."""
    steps = 5 if algorithm == "ppo" else 4
    train = {"max_steps": steps, "eval_every": steps, "learning_rate": 1e-3}
    method = {"algorithm": algorithm, "samples": 8, "beta": {"rwr": 0.1}.get(algorithm)}
    if algorithm in ("ppo", "grpo", "rloo"):
        method["kl"] = {"weight": 0.002}  # what is published is for rewards of several units
    tree = recipe(EMBEDDED, tmp_path, method=method, train=train)
    tree["data"]["validation_fraction"] = 0.0  # four prompts would choose the best step by chance
    result = run(tree)
    assert metric(result, "tuned") > metric(result, "base") + 0.03
    assert "win rate" in result.report.wins
    assert result.report.wins in (result.folder / "report" / "report.md").read_text()
    assert result.report.wins in (result.folder / "report" / "report.html").read_text()
    assert len(result.report.written.samples) == 5
    assert all("(reward " in s.base and "(reward " in s.tuned for s in result.report.written.samples)
    curves = result.report.curves
    assert len(curves.rollouts["reward"]) == steps
    assert curves.validation_loss == []  # minus the reward, which is drawn by itself
    rollouts = RunFolder(result.folder).curve("rollout")
    each = 4 if algorithm == "ppo" else 1
    assert [(r["rollout"], r["step"]) for r in rollouts] == [(i, i * each) for i in range(steps)]
    assert rollouts[-1]["numbers"]["reward"] > rollouts[0]["numbers"]["reward"]
    assert rollouts[0]["numbers"]["kl"] == pytest.approx(
        0.0, abs=1e-4
    )  # writing rounds otherwise than training
    assert abs(rollouts[-1]["numbers"]["kl"]) > 1e-3
    spent, page = result.report.cost.rollouts, (result.folder / "report" / "report.html").read_text()
    assert list(spent)[:2] == ["writing answers", "rewarding them"]
    assert all(seconds > 0 for seconds in spent.values())
    assert "of the steps: learning from them" in page
    first = RunFolder(result.folder).curve("step")[0]
    if algorithm in ALGORITHMS[:7]:
        assert first["metrics"]["ratio"] == 1.0
        assert first["metrics"]["clipped"] == 0.0


@pytest.mark.parametrize("algorithm", ["grpo", "gspo", "online_dpo"])
def test_a_rollout_of_one_step_ends_bit_for_bit_as_if_old_log_probabilities_had_been_asked_before(
    algorithm: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method: dict[str, Any] = {"algorithm": algorithm}
    if algorithm == "grpo":
        method |= {"importance_cap": 1.0, "kl": {"weight": 0.1}}
    (tmp_path / "rows").mkdir()
    tree = recipe(base, tmp_path / "rows", method=method)
    passes: Counter[str] = Counter()
    asked = RolloutSource._logps

    def counted(source: RolloutSource, batch: Batch) -> Any:
        passes[str(source.asks_before)] += 1
        return asked(source, batch)

    monkeypatch.setattr(RolloutSource, "_logps", counted)
    without = run(tree | {"output": str(tmp_path / "without")})
    monkeypatch.setattr(RolloutSource, "asks_before", True)
    before = run(tree | {"output": str(tmp_path / "before")})
    assert passes["False"] == passes["True"] - 4  # one forward pass less of each rollout, a micro-batch each
    tensors, wanted = (ending(result.folder)["tensors"] for result in (without, before))
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in wanted.items())
    told = [
        [event["numbers"]["kl"] for event in RunFolder(r.folder).curve("rollout")] for r in (without, before)
    ]
    assert told[0] == pytest.approx(told[1], abs=1e-4)


@pytest.mark.parametrize(
    "method, before",
    [
        ({"algorithm": "grpo"}, False),
        ({"algorithm": "grpo", "minibatches": 2}, True),  # the second step finds another policy than wrote
        ({"algorithm": "grpo", "passes": 2}, True),
        ({"algorithm": "grpo", "kl": {"where": "reward"}}, True),  # advantages need it
        ({"algorithm": "rloo"}, True),
        ({"algorithm": "rloo", "kl": {"weight": 0.0}}, False),
        ({"algorithm": "ppo", "passes": 1, "kl": {"weight": 0.0}}, True),  # with the values
        ({"algorithm": "raft", "passes": 3}, False),  # no ratio
    ],
)
def test_old_log_probabilities_are_asked_before_a_step_where_it_cannot_say_them(
    method: dict[str, Any], before: bool, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: set[bool] = set()
    batches = RolloutSource.micro_batches

    def seen(source: RolloutSource, step: int, budget: int) -> list[Batch]:
        found = batches(source, step, budget)
        given.update(OLD in row.given for batch in found for row in batch.rows)
        return found

    monkeypatch.setattr(RolloutSource, "micro_batches", seen)
    first_step(recipe(base, tmp_path, method=method, train={"max_steps": 1, "eval_every": 1}))
    assert given == {before}


def test_answers_are_drawn_as_the_recipe_says(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: set[tuple[Any, ...]] = set()

    def drawn(*args: Any, **how: Any) -> Any:
        said.add((how["sampling"], how["max_new_tokens"], how["num_slots"]))
        return sample(*args, **how)

    monkeypatch.setattr("tunesmith.generate.sample.sample", drawn)
    method = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "max_new_tokens": 7}
    first_step(recipe(base, tmp_path, method=method))
    assert said == {(Sampling(0.7, 0.9, 5), 7, 64)}


@pytest.mark.parametrize("step", [1, 4, 5, 8])
def test_a_run_that_died_inside_a_rollout_ends_bit_for_bit_as_one_that_did_not(
    step: int, whole: Callable[..., Any], tmp_path: Path
) -> None:
    """Two passes of three steps each: step 4 and 5 are inside the first rollout, 8 inside the second."""
    tree, wanted = whole(
        method={"passes": 2, "minibatches": 3, "kl": {"target": 0.05, "weight": 0.1}},
        train={"max_steps": 2, "eval_every": 6, "save_every": 1},
    )
    with pytest.raises(Crash):
        run(tree | {"output": str(tmp_path / "cut")}, sink=at("checkpoint", crash, step=step))
    resume(tmp_path / "cut" / "tiny")
    assert_same(ending(tmp_path / "cut" / "tiny"), wanted)


def test_a_run_that_died_while_it_wrote_answers_goes_on(base: Path, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    tree = recipe(base, tmp_path / "rows", train={"max_steps": 3, "save_every": 1})
    whole = run(tree | {"output": str(tmp_path / "whole")})
    with pytest.raises(Crash):
        run(tree | {"output": str(tmp_path / "cut")}, sink=at("rollout", crash, rollout=1))
    resume(tmp_path / "cut" / "tiny")
    assert_same(ending(tmp_path / "cut" / "tiny"), ending(whole.folder))
    assert told_of_rollouts(tmp_path / "cut" / "tiny") == told_of_rollouts(whole.folder)


@pytest.mark.parametrize(
    ("step", "tuning", "critic"),
    [(3, "lora", "head"), (3, "full", "separate"), (4, "lora", "separate"), (4, "full", "head")],
)
def test_ppo_goes_on_inside_a_pass_and_keeps_its_values(
    step: int, tuning: str, critic: str, base: Path, tmp_path: Path
) -> None:
    """Step 3 is inside a rollout's second pass, 4 between two rollouts."""
    (tmp_path / "rows").mkdir()
    method: dict[str, Any] = {"algorithm": "ppo", "passes": 2, "minibatches": 2, "tuning": tuning}
    more: dict[str, Any] = {
        "method": method | {"critic": {"kind": critic}},
        "train": {"max_steps": 2, "eval_every": 4, "save_every": 1},
    }
    tree = recipe(base, tmp_path / "rows", **more)
    tree["data"]["validation_fraction"] = 0.0
    whole = run(tree | {"output": str(tmp_path / "whole")})
    with pytest.raises(Crash):
        run(tree | {"output": str(tmp_path / "cut")}, sink=at("checkpoint", crash, step=step))
    resume(tmp_path / "cut" / "tiny")
    assert_same(ending(tmp_path / "cut" / "tiny"), ending(whole.folder))
    file, value = (FILE, "weight") if critic == "head" else (CRITIC, "value_head.weight")
    saved = load_file(whole.folder / "model" / file)
    assert saved[value].abs().max() > 0
    # It stands beside the weights: the model is a plain one, and PPO on top of it goes on with what was learned.
    names = set(load_file(next((whole.folder / "model").glob("*model.safetensors"))))
    assert not any("value_head" in name or "critic" in name for name in names)
    (tmp_path / "more").mkdir()
    tree = recipe(whole.folder, tmp_path / "more", **more)
    tree["train"] |= {"max_steps": 1, "learning_rate": 1e-12}
    tree["data"]["validation_fraction"] = 0.0
    again = load_file(run(tree).folder / "model" / file)
    assert again.keys() == saved.keys()
    for name in saved:
        assert torch.allclose(again[name], saved[name], atol=1e-6), name


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_critic_of_its_own_starts_elsewhere_and_learns_at_its_own_rate(
    tuning: str, base: Path, tmp_path: Path
) -> None:
    """Its rate is a billionth of the policy's, so only the policy moves."""
    critic = {"kind": "separate", "base": str(base), "lr_factor": 1e-9}
    method = {"algorithm": "ppo", "passes": 1, "tuning": tuning, "critic": critic}
    result = run(recipe(base, tmp_path, method=method, train={"max_steps": 2}))
    saved = load_file(result.folder / "model" / CRITIC)
    assert saved["value_head.weight"].abs().max() < 1e-6
    steps = RunFolder(result.folder).curve("step")
    assert steps[0]["metrics"]["ratio"] == 1.0
    assert {"policy", "value"} == set(steps[0]["terms"])
    assert any("a critic of its own" in e["text"] for e in RunFolder(result.folder).read_events("note"))


def test_a_reward_model_and_a_rule_are_added_up(base: Path, tmp_path: Path) -> None:
    from tests.workflow.test_judged import pairs
    from tests.workflow.test_judged import recipe as judged

    (tmp_path / "rm").mkdir()
    rewarding = run(judged("reward", "preference", base, tmp_path / "rm", train={"max_steps": 4}))
    assert pairs(1)
    parts = [
        {"kind": "model", "path": str(rewarding.folder)},
        {"kind": "length", "unit": "tokens", "weight": -0.1},
    ]
    result = run(recipe(base, tmp_path, method={"rewards": parts}))
    numbers = RunFolder(result.folder).curve("rollout")[0]["numbers"]
    assert numbers["reward"] == pytest.approx(
        numbers["reward.model"] - 0.1 * numbers["reward.length"], rel=1e-6
    )


def test_references_reach_the_verifier(base: Path, tmp_path: Path) -> None:
    rows = [{"prompt": r["prompt"], "completion": f"it is #### {i}"} for i, r in enumerate(prompts(24))]
    tree = recipe(base, tmp_path, method={"rewards": [{"kind": "verifier", "check": "number"}]})
    tree["data"] = {"train": str(write_jsonl(tmp_path / "asked.jsonl", rows))}
    assert metric(run(tree), "base") >= 0.0


def test_equal_rewards_teach_nothing_and_are_replaced_where_that_is_asked(base: Path, tmp_path: Path) -> None:
    never = [{"kind": "regex", "pattern": "this is never written"}]
    result = run(recipe(base, tmp_path, method={"rewards": never, "kl": {"weight": 0.0}}))
    first = RunFolder(result.folder).curve("step")[0]
    assert first["loss"] == 0.0
    assert first["grad_norm"] == 0.0
    result = run(recipe(base, tmp_path, name="dapo", method={"algorithm": "dapo", "rewards": never}))
    rollout = RunFolder(result.folder).curve("rollout")[0]
    assert rollout["asked"] == 12  # three times as many as wanted
    assert rollout["prompts"] == 1  # a step is never empty


def test_cut_answers_are_masked_or_penalised(tmp_path: Path) -> None:
    found = {}
    for truncated in ("learn", "mask", "penalise"):
        more = {"truncated": truncated, "max_new_tokens": 16}
        folder = first_step(recipe(EMBEDDED, tmp_path, name=truncated, method=more))
        found[truncated] = folder.curve("step")[0]["grad_norm"]
    assert 0 < folder.curve("rollout")[0]["numbers"]["cut"] < 1
    assert len(set(found.values())) == 3


def test_ppo_gives_a_cut_answer_the_value_of_going_on(tmp_path: Path) -> None:
    """Values start at 0, so the first return of a cut answer is 0 where its reward was."""
    found = {}
    for truncated in ("learn", "bootstrap"):
        more = {"algorithm": "ppo", "truncated": truncated, "max_new_tokens": 16, "kl": {"weight": 0.0}}
        more |= {"passes": 1, "gae_lambda": 1.0}
        folder = first_step(recipe(EMBEDDED, tmp_path, name=truncated, method=more))
        found[truncated] = folder.curve("step")[0]["metrics"]["value_error"]
        rollout = folder.curve("rollout")[0]["numbers"]
    assert 0 < rollout["cut"] < 1
    assert 0 < found["bootstrap"] < found["learn"]


def test_the_run_ends_where_the_policy_went_too_far(base: Path, tmp_path: Path) -> None:
    more = {"kl": {"stop_at": 0.05, "weight": 0.0}}
    train = {"max_steps": 30, "learning_rate": 3e-2}
    result = run(recipe(base, tmp_path, method=more, train=train))
    events = [e["text"] for e in RunFolder(result.folder).read_events("note")]
    assert any("stop_at" in text for text in events)
    assert len(RunFolder(result.folder).curve("step")) < 30
    assert "is above method.kl.stop_at" in (result.folder / "report" / "report.md").read_text()


def test_a_run_that_died_once_it_had_gone_too_far_goes_no_further(base: Path, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    train = {"max_steps": 30, "learning_rate": 3e-2}
    tree = recipe(base, tmp_path / "rows", method={"kl": {"stop_at": 0.05, "weight": 0.0}}, train=train)
    whole = run(tree | {"output": str(tmp_path / "whole")})
    with pytest.raises(Crash):
        run(tree | {"output": str(tmp_path / "cut")}, sink=at("phase", crash, name="save"))
    resume(tmp_path / "cut" / "tiny")
    assert_same(ending(tmp_path / "cut" / "tiny"), ending(whole.folder))


def test_start_weights_come_back_and_go_again() -> None:
    module = torch.nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    start = StartWeights(module)
    before, data = module.weight.detach().clone(), module.weight.data
    with torch.no_grad():
        module.weight += 1
    moved = module.weight.detach().clone()
    with start.back():
        assert torch.equal(module.weight, before)
    assert torch.equal(module.weight, moved)
    assert (
        module.weight.data.data_ptr() == data.data_ptr()
    )  # what the optimizer steps is still what the model has
    assert start.num_bytes == before.nbytes


@pytest.mark.parametrize(
    "data, said",
    [
        ({"format": "preference"}, "rows that ask"),
        ({"columns": {"prompt": "nothing"}}, "no column 'nothing'"),
    ],
)
def test_rows_that_ask_nothing_are_refused(
    data: dict[str, Any], said: str, base: Path, tmp_path: Path
) -> None:
    tree = recipe(base, tmp_path)
    tree["data"] |= data
    with pytest.raises((ConfigError, DataError), match=said):
        run(tree)


def test_frozen_states_cannot_be_kept_of_rows_that_are_new(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="new in every rollout"):
        run(recipe(base, tmp_path, train={"keep_frozen": True}))


def test_answers_that_leave_no_room_for_prompts_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens=500"):
        run(recipe(base, tmp_path, method={"max_new_tokens": 500}))
