"""Rollouts that a vLLM server writes: what it is asked, with which weights it answers, and what is refused. The server
is a stand-in (tests/vllm_server.py); `test_vllm_server.py` asks a true one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tests.vllm_server import Served, serving
from tests.workflow.test_own_answers import module, recipe, run
from tests.workflow.test_resume import Crash, assert_same, at, crash, ending
from tunesmith.config.policy import PolicyConfig
from tunesmith.errors import ModelError
from tunesmith.models.critic import FILE as CRITIC
from tunesmith.objectives.policy import WRITTEN
from tunesmith.train.folder import RunFolder
from tunesmith.train.rollout import RolloutSource
from tunesmith.types import TokenRow
from tunesmith.workflow.train import resume

__all__ = ["module"]
pytestmark = pytest.mark.usefixtures("quick")

Serve = Callable[..., Served]


@pytest.fixture
def serve(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """serve(tuning, **settings): a server of the tiny base, until the test's end."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ExitStack() as stack:
        yield lambda tuning, **more: stack.enter_context(serving(more.pop("base", base), tuning, **more))


def asking(server: Served, base: Path, folder: Path, tuning: str = "lora", **more: Any) -> dict[str, Any]:
    """A recipe of three rollouts that the server writes."""
    vllm = {"url": server.url, "retries": 0, **more.pop("vllm", {})}
    method = {"tuning": tuning, "vllm": vllm, **more.pop("method", {})}
    train = {"max_steps": 3, "eval_every": 3, **more.pop("train", {})}
    return recipe(base, folder, method=method, train=train, **more)


def told(folder: Path, kind: str) -> list[dict[str, Any]]:
    return RunFolder(folder).read_events(kind)


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[TokenRow]:
    """The rows that are learned from."""
    rows: list[TokenRow] = []
    batches = RolloutSource.micro_batches

    def seen(source: RolloutSource, step: int, budget: int) -> Any:
        found = batches(source, step, budget)
        rows.extend(row for batch in found for row in batch.rows)
        return found

    monkeypatch.setattr(RolloutSource, "micro_batches", seen)
    return rows


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_what_the_server_writes_is_what_is_learned_from(
    tuning: str, base: Path, serve: Serve, tmp_path: Path, learned: list[TokenRow]
) -> None:
    """Id for id, with the server's log-probabilities; by weights that are those of each rollout."""
    server = serve(tuning)
    result = run(asking(server, base, tmp_path, tuning))
    assert len(server.asked) == len(learned) == 12
    prompts = {tuple(body["prompt"]): number for number, body in enumerate(server.asked)}
    assert len(prompts) == 12  # each prompt once
    for row in learned:
        written = server.written[prompts[tuple(row.segments[0].ids.tolist())]]
        assert [leaf.ids.tolist() for leaf in row.segments[1:]] == [one.ids for one in written]
        np.testing.assert_array_equal(row.given[WRITTEN], np.concatenate([one.logps for one in written]))
    assert len(set(server.taken)) == 3
    updates = told(result.folder, "vllm")
    assert [f"weights-{update['weights']}" for update in updates] == [path.name for path in server.taken]
    assert all(update["gap"] < 1e-5 for update in updates)
    rollouts = RunFolder(result.folder).curve("rollout")
    assert abs(rollouts[-1]["numbers"]["kl"]) > 1e-3
    logps = np.concatenate([one.logps for of_prompt in server.written[:4] for one in of_prompt])
    assert rollouts[0]["numbers"]["surprisal"] == pytest.approx(-logps.mean(), rel=1e-5)
    assert "entropy" not in rollouts[0]["numbers"]
    ended = [one.ended for of_prompt in server.written[:4] for one in of_prompt]
    assert rollouts[0]["numbers"]["cut"] == pytest.approx(1 - np.mean(ended))
    assert RunFolder(result.folder).curve("step")[0]["metrics"]["ratio"] == 1.0
    left = [path.name for path in (result.folder / "vllm").iterdir()]
    assert left == [server.taken[-1].name]
    assert len(server.adapters) == (tuning == "lora")


def test_all_that_decides_the_draws_is_said_and_every_prompt_has_a_seed(
    base: Path, serve: Serve, tmp_path: Path
) -> None:
    server = serve("lora")
    method = {"temperature": 0.7, "samples": 3}
    result = run(asking(server, base, tmp_path, method=method, train={"max_steps": 2}))
    assert len({body["seed"] for body in server.asked}) == 8
    said = {name: value for name, value in server.asked[0].items() if name not in ("prompt", "seed")}
    end = server.asked[0]["stop_token_ids"]
    name = f"weights-{told(result.folder, 'vllm')[0]['weights']}"
    assert said == {
        "model": name,
        "n": 3,
        "temperature": 0.7,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": 6,
        "stop_token_ids": end,
        "ignore_eos": True,
        "logprobs": 0,
        "return_token_ids": True,
        "cache_salt": name.removeprefix("weights-"),
    }
    assert all(0 <= body["seed"] < 2**62 for body in server.asked)
    (tmp_path / "again").mkdir()
    again = serve("lora")
    run(asking(again, base, tmp_path / "again", method=method, train={"max_steps": 1, "eval_every": 1}))
    first = {(*body["prompt"], body["seed"]) for body in server.asked[:4]}
    assert {(*body["prompt"], body["seed"]) for body in again.asked} == first


def test_a_server_reads_the_folder_under_its_own_name_and_weights_that_are_the_same_once(
    base: Path, serve: Serve, tmp_path: Path
) -> None:
    """Rewards that are all the same are asked for three times, with the same weights."""
    server = serve("lora")
    here, there = tmp_path / "here", tmp_path / "there"
    there.symlink_to(here)
    method = {"algorithm": "dapo", "rewards": [{"kind": "regex", "pattern": "this is never written"}]}
    vllm = {"folder": str(here), "folder_there": str(there)}
    tree = asking(server, base, tmp_path, vllm=vllm, method=method, train={"max_steps": 1, "eval_every": 1})
    run(tree)
    (taken,) = server.taken
    assert taken.parent == there
    assert [path.name for path in here.iterdir()] == [taken.name]
    assert len(server.asked) == 12


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_server_that_keeps_old_weights_is_noticed(
    tuning: str, base: Path, serve: Serve, tmp_path: Path
) -> None:
    more = {"train": {"learning_rate": 0.1}, "vllm": {"max_gap": 1e-3}}
    with pytest.raises(ModelError, match="nats from the policy's own in the mean"):
        run(asking(serve(tuning, deaf=True), base, tmp_path, tuning, **more))
    assert len(RunFolder(tmp_path / "tiny").curve("rollout")) == 1  # the first is the start's


def test_a_distance_that_grows_is_told_of(base: Path, serve: Serve, tmp_path: Path) -> None:
    more = {"train": {"learning_rate": 0.1}, "vllm": {"max_gap": 100}}
    run(asking(serve("full", deaf=True), base, tmp_path, "full", **more))
    texts = [event["text"] for event in told(tmp_path / "tiny", "warning")]
    assert sum("it may not compute with all that is trained" in text for text in texts) == 2


def test_a_server_of_another_model_is_noticed(base: Path, serve: Serve, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    weights = load_file(other / "model.safetensors")
    for name, tensor in weights.items():
        weights[name] = tensor.flip(0).contiguous() * 8
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="serve the run's own base"):
        run(asking(serve("lora", base=other), base, tmp_path))


def test_a_server_that_was_started_anew_while_it_wrote_is_noticed(
    base: Path, serve: Serve, tmp_path: Path
) -> None:
    server = serve("full")
    server.changes["/weight_info"] = (200, {"weight_version": "default"})
    with pytest.raises(ModelError, match="has the weights 'default' after the rollout"):
        run(asking(server, base, tmp_path, "full"))


@pytest.mark.parametrize(
    ("route", "reply", "said"),
    [
        ("/v1/models", (200, {"data": [{"id": "base", "max_model_len": 20}]}), "room for 20 tokens"),
        ("/v1/models", (200, {"data": [{"id": "gpt"}]}), "lists no model as vLLM does"),
        ("/version", (200, "0.32"), "answers at /version with"),
        ("/v1/load_lora_adapter", (404, {"detail": "Not Found"}), "takes no weights of tuning lora"),
        ("/v1/completions", (400, {"error": {"message": "out of vocabulary"}}), "out of vocabulary"),
        ("/v1/completions", (500, {"error": {"message": "engine died"}}), "engine died"),
        ("/v1/completions", (200, {"choices": []}), "expected 4 answers"),
        (
            "/v1/completions",
            (200, {"choices": [{"index": 0, "text": "hm"}]}),
            "expected choices with token_ids",
        ),
    ],
)
def test_what_the_server_says_against_it_ends_the_run_in_its_words(
    route: str, reply: Any, said: str, base: Path, serve: Serve, tmp_path: Path
) -> None:
    server = serve("lora")
    server.changes[route] = reply
    with pytest.raises(ModelError, match=said) as error:
        run(asking(server, base, tmp_path))
    assert server.url in str(error.value)


def answers(ids: list[int], logps: list[float]) -> tuple[int, Any]:
    choice = {"token_ids": ids, "logprobs": {"token_logprobs": logps}}
    return 200, {"choices": [{"index": i, **choice} for i in range(4)]}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            answers([5, 6], [-1.0, -1.0]),
            "stops after 2 of 6 tokens without an end token; start the server with --gen",
        ),
        (answers([5] * 6, [-1.0] * 5), "a log-probability for each token"),
        (answers([5] * 6, [float("nan")] * 6), "no numbers"),
        (answers([], []), "expected choices with token_ids"),
        (answers([9999] * 6, [-1.0] * 6), "the token 9999, and the run's model has 8192"),
    ],
    ids=["short", "unequal", "nan", "empty", "unknown"],
)
def test_answers_that_are_none_are_refused(
    reply: Any, said: str, base: Path, serve: Serve, tmp_path: Path
) -> None:
    server = serve("lora")
    server.changes["/v1/completions"] = reply
    with pytest.raises(ModelError, match=said):
        run(asking(server, base, tmp_path))


def test_a_server_that_is_not_there_is_an_error_before_training(base: Path, tmp_path: Path) -> None:
    nowhere = Served(base, "lora", url="http://127.0.0.1:9")
    with pytest.raises(ModelError, match="does not answer at /v1/models") as error:
        run(asking(nowhere, base, tmp_path))
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve BASE --enable-lora" in str(error.value)
    assert not RunFolder(tmp_path / "tiny").curve("step")


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"tuning": "ia3"}, "tuning ia3"),
        ({"tuning": "prompt"}, "learned tokens before each row"),
        ({"lora": {"dora": True}}, "an adapter that has DoRA"),
        ({"lora": {"train_embeddings": True}}, "embeddings trained beside it"),
    ],
)
def test_weights_that_vllm_does_not_take_are_refused(
    method: dict[str, Any], said: str, base: Path, serve: Serve, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=said):
        run(asking(serve("lora"), base, tmp_path, method=method))


def test_a_cpu_whose_head_does_not_follow_is_refused(base: Path, serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="all weights would follow but the head's"):
        run(asking(serve("full", device="cpu"), base, tmp_path, "full"))


def test_a_temperature_and_cuts_have_no_log_probabilities_there() -> None:
    given = {"rewards": [{"kind": "length"}], "vllm": {"url": "http://x"}, "temperature": 0.7, "top_k": 5}
    with pytest.raises(ValueError, match="leave top_p and top_k out"):
        PolicyConfig.model_validate(given)


@pytest.mark.parametrize("init", ["pissa", "default"])
def test_what_ppo_values_states_with_stays_here(init: str, base: Path, serve: Serve, tmp_path: Path) -> None:
    """And an adapter that changed its base reaches the server as one on the untouched base."""
    server = serve("lora")
    critic = {"kind": "separate"} if init == "default" else {}
    method = {"algorithm": "ppo", "passes": 1, "critic": critic, "lora": {"init": init}}
    result = run(asking(server, base, tmp_path, method=method))
    assert all(update["gap"] < 1e-5 for update in told(result.folder, "vllm"))
    (left,) = (result.folder / "vllm").iterdir()
    assert not [
        name for name in load_file(left / "adapter_model.safetensors") if "critic" in name or "value" in name
    ]
    assert (result.folder / "model" / CRITIC).exists() == (init == "default")


@pytest.mark.parametrize(("tuning", "step"), [("lora", 1), ("full", 2), ("lora", 3)])
def test_a_resumed_run_gives_its_weights_to_a_server_that_was_started_anew(
    tuning: str, step: int, base: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 1 and 3 are inside a rollout, which the checkpoint holds; 2 is between two. The stand-in's draws depend on
    nothing but their seeds, so the end is the same bit for bit."""
    (tmp_path / "rows").mkdir()
    more: dict[str, Any] = {
        "method": {"minibatches": 2},
        "train": {"save_every": 1, "max_steps": 2, "eval_every": 4},
    }
    first, second = serve(tuning), serve(tuning)
    tree = asking(first, base, tmp_path / "rows", tuning, **more)
    whole = run(tree | {"output": str(tmp_path / "whole")})
    with pytest.raises(Crash):
        run(tree | {"output": str(tmp_path / "cut")}, sink=at("checkpoint", crash, step=step))
    moved = tmp_path / "cut" / "tiny" / "config.yaml"
    moved.write_text(moved.read_text().replace(first.url, second.url))
    resume(tmp_path / "cut" / "tiny")
    assert_same(ending(tmp_path / "cut" / "tiny"), ending(whole.folder))
    assert [path.name for path in second.taken] == [path.name for path in first.taken[1:2] if step < 3]
