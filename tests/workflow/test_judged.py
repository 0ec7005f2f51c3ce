"""The main job on judged answers: preferences, verdicts, rankings and rewards; on a tiny Llama and a tiny BERT."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import tunesmith
from tests.workflow.conftest import THINGS, read_jsonl, settings, write_jsonl
from tests.workflow.test_resume import Crash, assert_same, at, crash, ending
from tunesmith.config.methods import METHODS, TAKES
from tunesmith.config.run import Run
from tunesmith.config.tuning import Writes
from tunesmith.errors import ConfigError, DataError, ModelError
from tunesmith.train.folder import RunFolder
from tunesmith.workflow.evaluate import evaluate
from tunesmith.workflow.open import load
from tunesmith.workflow.predict import predict
from tunesmith.workflow.train import resume

pytestmark = pytest.mark.usefixtures("quick")

GOOD, BAD = "certainly", "never"


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """The better answer has one word, the worse one another, beside words that both may have."""
    things = [t for ts in THINGS.values() for t in ts]
    both = [(a, b) for a in things for b in things]
    random.Random(1).shuffle(both)
    chosen = both[-count:] if seed else both[:count]  # of different seeds no prompt twice
    return [
        {"prompt": f"is a {a} here beside a {b}?", "chosen": f"{GOOD} a {a}", "rejected": f"{BAD} a {a}"}
        for a, b in chosen
    ]


def verdicts(count: int, seed: int = 0) -> list[dict[str, Any]]:
    return [
        {"prompt": r["prompt"], "completion": r["chosen" if i % 2 else "rejected"], "label": bool(i % 2)}
        for i, r in enumerate(pairs(count, seed))
    ]


def rankings(count: int, seed: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "prompt": r["prompt"],
            "completions": [r["rejected"], f"perhaps {r['chosen'][len(GOOD) :]}", r["chosen"]],
            "ranks": [3, 2, 1],
        }
        for r in pairs(count, seed)
    ]


def ratings(count: int, seed: int = 0) -> list[dict[str, Any]]:
    words = {1: BAD, 3: "perhaps", 5: GOOD}
    return [
        {"prompt": r["prompt"], "completion": f"{words[(1, 3, 5)[i % 3]]} it is", "rating": (1, 3, 5)[i % 3]}
        for i, r in enumerate(pairs(count, seed))
    ]


def steps(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Answers of four steps; from a step with the bad word on, all are wrong."""
    draw, rows = random.Random(seed), []
    for r in pairs(count, seed):
        wrong, words = draw.randrange(6), ["perhaps", "perhaps", "perhaps", GOOD]
        said = [BAD if i == wrong else draw.choice(words) for i in range(4)]
        texts = [f"{word} {r['chosen'][len(GOOD) + 1 :]}" for word in said]
        rows.append({"prompt": r["prompt"], "completions": texts, "labels": [i < wrong for i in range(4)]})
    return rows


MAKE = {"preference": pairs, "unpaired": verdicts, "ranking": rankings, "rating": ratings, "stepwise": steps}


def recipe(kind: str, rows: str, base: Path, folder: Path, /, **more: Any) -> dict[str, Any]:
    data = {
        "train": str(write_jsonl(folder / "train.jsonl", MAKE[rows](96))),
        "test": str(write_jsonl(folder / "test.jsonl", MAKE[rows](24, seed=7))),
    }
    train = {"max_steps": 24, "eval_every": 8, "learning_rate": 3e-3, **more.pop("train", {})}
    said = {"type": kind, "tuning": "full", **more.pop("method", {})}
    tree = settings(base, folder, data, train=train, **more)
    return {**tree, "method": said}


def run(tree: dict[str, Any], **how: Any) -> Any:
    return tunesmith.train(Run.model_validate(tree), **how)


def metric(result: Any, system: str, name: str = "pair_accuracy") -> float:
    found = next(s for s in result.report.systems if s.name == system)
    return float(found.metrics[name].value)


@pytest.mark.parametrize(
    "method, rows, tuning",
    [("preference", "preference", "full"), ("preference", "ranking", "full"), ("unpaired", "unpaired", "full"),
     ("unpaired", "preference", "full"), ("ranking", "ranking", "full"), ("preference", "preference", "lora"),
     ("unpaired", "unpaired", "lora"), ("ranking", "ranking", "lora")],
)  # fmt: skip
def test_a_policy_learns_what_people_prefer(
    method: str, rows: str, tuning: str, base: Path, tmp_path: Path
) -> None:
    rate = {"full": 3e-3, "lora": 2e-2}[tuning]
    result = run(
        recipe(method, rows, base, tmp_path, method={"tuning": tuning}, train={"learning_rate": rate})
    )
    assert result.report.task == "judged"
    assert metric(result, "tuned (by reward)") > 0.95
    assert metric(result, "tuned") >= metric(result, "base")
    assert result.report.forgetting is None
    steps = RunFolder(result.folder).curve("step")
    if method == "preference":
        assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    evaluations = RunFolder(result.folder).curve("evaluation")
    assert evaluations[-1]["metrics"]["loss"] < evaluations[0]["metrics"]["loss"]
    # It is a language model as any other: it answers, and is evaluated on judged rows by likelihood.
    assert load(result.folder).predict(["is a dog here?"], max_new_tokens=4)
    again = evaluate(str(result.folder), [tmp_path / "test.jsonl"])
    found = again.report.systems[0].metrics["pair_accuracy"].value
    assert found == pytest.approx(metric(result, "tuned"))


@pytest.mark.parametrize(
    "kind, rows",
    [("decoder", "preference"), ("decoder", "ranking"), ("decoder", "unpaired"), ("decoder", "rating"),
     ("encoder", "preference"), ("encoder", "rating")],
)  # fmt: skip
def test_a_reward_model_scores_as_people_do(
    kind: str,
    rows: str,
    base: Path,
    encoder: Path,
    tmp_path: Path,
) -> None:
    model = base if kind == "decoder" else encoder
    tree = recipe(
        "reward", rows, model, tmp_path, train={"max_steps": 100, "eval_every": 50, "learning_rate": 5e-3}
    )
    result = run(tree)
    assert metric(result, "tuned") > 0.9
    assert result.report.absent["forgetting"]
    opened = load(result.folder)
    good, bad = opened.score("is a dog here beside a pear?", [f"{GOOD} a dog", f"{BAD} a dog"])
    assert good > bad
    if rows == "rating":
        assert good > 3.5
        assert bad < 2.5  # in the unit of the ratings
    predict(str(result.folder), tmp_path / "test.jsonl", tmp_path / "out.jsonl", sink=lambda *a, **k: None)
    written = read_jsonl(tmp_path / "out.jsonl")
    assert len(written) == 24
    count = {"preference": 2, "ranking": 3, "unpaired": 1, "rating": 1}[rows]
    assert {len(row["scores"]) for row in written} == {count}


def test_the_report_shows_answers_before_and_after_and_whose_are_rewarded_more(
    base: Path, tmp_path: Path
) -> None:
    rewards = [{"kind": "length", "unit": "characters"}, {"kind": "regex", "pattern": GOOD, "weight": 100.0}]
    tree = recipe("preference", "preference", base, tmp_path, evaluate={"rewards": rewards})
    result = run(tree)
    report, opened = result.report, load(result.folder, threads=1)
    assert len(report.written.samples) == 5
    asked = {r["prompt"]: r["chosen"] for r in pairs(24, seed=7)}
    written = opened.predict([s.prompt for s in report.written.samples], max_new_tokens=8)
    assert [s.tuned for s in report.written.samples] == list(written)
    assert [s.reference for s in report.written.samples] == [asked[s.prompt] for s in report.written.samples]
    assert any(s.base != s.tuned for s in report.written.samples)
    everything = {s: load(path, threads=1) for s, path in (("base", base), ("tuned", result.folder))}
    said = {s: list(model.predict(list(asked), max_new_tokens=8)) for s, model in everything.items()}
    worth = {s: [len(a) + 100 * (GOOD in a) for a in answers] for s, answers in said.items()}
    won = np.mean([t > b for b, t in zip(worth["base"], worth["tuned"], strict=True)])
    assert f"rewarded more than the base in {100 * won:.0f} % of 24 prompts" in report.wins
    assert report.wins in result.as_text()
    for name in ("report.md", "report.html"):
        page = (result.folder / "report" / name).read_text()
        assert report.wins in page
        assert "nswers before and after" in page


def test_without_rewards_there_is_no_win_rate_and_the_report_says_why(base: Path, tmp_path: Path) -> None:
    result = run(recipe("unpaired", "unpaired", base, tmp_path, train={"max_steps": 2}))
    assert result.report.wins == ""
    assert "evaluate.rewards" in result.report.absent["wins"]
    notes = {s.reference.split()[0]: s.note for s in result.report.written.samples}
    assert notes.items() <= {GOOD: "people gave the reference 1", BAD: "people gave the reference 0"}.items()


def test_what_cannot_reward_answers_is_told_before_training(base: Path, tmp_path: Path) -> None:
    rewards = [{"kind": "model", "path": str(base)}]
    with pytest.raises(ConfigError, match="is no reward model"):
        run(recipe("preference", "preference", base, tmp_path, evaluate={"rewards": rewards}))
    with pytest.raises(ValueError, match=r"evaluate\.rewards has no meaning with method\.type sft"):
        Run.model_validate({"evaluate": {"rewards": [{"kind": "length"}]}})


def test_a_reward_of_a_decoder_loads_with_stock_transformers(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    result = run(recipe("reward", "preference", base, tmp_path, train={"max_steps": 4}))
    folder = result.folder / "model"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    talk = [{"role": "user", "content": "is a dog here?"}, {"role": "assistant", "content": f"{GOOD} a dog"}]
    ids = tokenizer.apply_chat_template(talk, return_tensors="pt", return_dict=True)["input_ids"]
    end = int(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    ids = ids[:, : ids[0].tolist().index(end, ids.shape[1] // 2) + 1]  # up to the answer's end token
    (ours,) = load(result.folder).score("is a dog here?", [f"{GOOD} a dog"])
    assert model(ids).logits.item() == pytest.approx(ours, abs=1e-4)


def test_ordinal_thresholds_are_the_log_odds_of_the_training_ratings(base: Path, tmp_path: Path) -> None:
    tree = recipe("reward", "rating", base, tmp_path, method={"loss": "ordinal"})
    tree["data"] |= {"validation_fraction": 0.0}
    result = run(tree)
    method = Run.model_validate(
        __import__("yaml").safe_load((result.folder / "config.yaml").read_text())
    ).method
    assert method.levels == [1.0, 3.0, 5.0]
    assert method.thresholds == pytest.approx([math.log(32.5 / 64.5), math.log(64.5 / 32.5)])
    assert metric(result, "tuned") > 0.8


def test_ratings_of_answers_to_one_prompt_are_compared(base: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": r["prompt"], "completion": r[name], "rating": value}
        for r in pairs(48)
        for name, value in (("chosen", 5), ("rejected", 2))
    ]
    tree = recipe("preference", "preference", base, tmp_path)
    tree["data"] = {"train": str(write_jsonl(tmp_path / "rated.jsonl", rows))}
    result = run(tree)
    assert result.report.data.splits["train"] + result.report.data.splits["test"] < 48 + 1
    assert metric(result, "tuned (by reward)") > 0.9


@pytest.mark.parametrize("method", TAKES)
def test_a_resumed_run_is_bit_identical(method: str, base: Path, tmp_path: Path) -> None:
    rows = TAKES[method][0]
    (tmp_path / "rows").mkdir()
    more: dict[str, Any] = {"train": {"max_steps": 12, "eval_every": 4, "save_every": 3}}
    whole = run(recipe(method, rows, base, tmp_path / "rows", **more) | {"output": str(tmp_path / "whole")})
    tree = recipe(method, rows, base, tmp_path / "rows", **more) | {"output": str(tmp_path / "cut")}
    with pytest.raises(Crash):
        run(tree, sink=at("step", crash, step=8))
    resume(tmp_path / "cut" / "tiny")
    asks = issubclass(METHODS[method], Writes)
    a, b = ending(whole.folder, asks), ending(tmp_path / "cut" / "tiny", asks)
    assert_same(a, b)


def test_a_resumed_run_whose_reference_is_gone_computes_it_of_the_model_as_it_started(
    base: Path, tmp_path: Path
) -> None:
    more = {"train": {"max_steps": 8, "eval_every": 4, "save_every": 3}}
    with pytest.raises(Crash):
        run(recipe("preference", "preference", base, tmp_path, **more), sink=at("step", crash, step=8))
    kept = tmp_path / "tiny" / "reference.npz"
    before = kept.read_bytes()
    kept.unlink()
    resume(tmp_path / "tiny")
    assert kept.read_bytes() == before


def test_the_reference_is_the_model_that_the_run_starts_with(base: Path, tmp_path: Path) -> None:
    """On top of an adapter the loss starts at ln 2 again: it is held against that adapter, not against its base."""
    (tmp_path / "one").mkdir()
    first = run(
        recipe("preference", "preference", base, tmp_path / "one", method={"tuning": "lora"},
               train={"learning_rate": 2e-2})
    )  # fmt: skip
    kept = np.load(first.folder / "reference.npz")
    (tmp_path / "two").mkdir()
    second = run(
        recipe("preference", "preference", first.folder, tmp_path / "two", method={"tuning": "lora"},
               train={"learning_rate": 2e-2, "max_steps": 4})
    )  # fmt: skip
    own = np.load(second.folder / "reference.npz")
    assert RunFolder(second.folder).curve("step")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(own["test"] - kept["test"]).max() > 0.1
    saved = load_file(second.folder / "model" / "adapter_model.safetensors")
    before = load_file(first.folder / "model" / "adapter_model.safetensors")
    assert saved.keys() == before.keys()


def test_dropout_of_the_architecture_is_off_unless_it_is_asked_for(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text()) | {"attention_dropout": 0.2}
    dropping = tmp_path / "dropping"
    dropping.mkdir()
    for file in base.iterdir():
        (dropping / file.name).write_bytes(file.read_bytes())
    (dropping / "config.json").write_text(json.dumps(config))
    result = run(recipe("preference", "preference", dropping, tmp_path, train={"max_steps": 2}))
    assert RunFolder(result.folder).curve("step")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    asked = recipe("preference", "preference", dropping, tmp_path, name="asked", train={"max_steps": 2})
    asked["model"]["dropout"] = 0.2
    result = run(asked)
    assert abs(RunFolder(result.folder).curve("step")[0]["loss"] - math.log(2)) > 1e-4


@pytest.mark.parametrize(
    "method, rows, more, said",
    [
        ("preference", "unpaired", {}, "no prompt has two"),
        ("ranking", "unpaired", {}, "unpaired rows with method.type=ranking"),
        ("reward", "preference", {"loss": "ordinal"}, "which compare answers"),
        ("unpaired", "ranking", {}, "ranking rows with method.type=unpaired"),
    ],
)
def test_rows_that_a_method_cannot_learn_from_are_refused(
    method: str, rows: str, more: dict[str, Any], said: str, base: Path, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        run(recipe(method, rows, base, tmp_path, method=more))
    expected = "unpaired rows with method.type=preference" if said == "no prompt has two" else said
    assert expected in str(caught.value)


def test_supervised_learning_names_the_methods_for_judged_rows(base: Path, tmp_path: Path) -> None:
    tree = recipe("sft", "preference", base, tmp_path)
    with pytest.raises(DataError, match=r"method\.type=preference"):
        run(tree)
    tree["data"]["format"] = "preference"
    with pytest.raises(ConfigError, match=r"method\.type=preference"):
        run(tree)


@pytest.mark.parametrize("rows", ["preference", "unpaired", "ranking"])
def test_what_a_refusal_of_judged_rows_says_to_write_can_be_run(
    rows: str, base: Path, tmp_path: Path
) -> None:
    tree = recipe("sft", rows, base, tmp_path)
    with pytest.raises(DataError) as caught:
        run(tree)
    (kind,) = re.findall(r"method\.type=(\w+)", str(caught.value))
    assert kind == rows
    run(tree | {"method": {"type": kind}}, dry_run=True)
    columns = dict(re.findall(r"data\.columns\.(\w+)=(\w+)", str(caught.value)))
    assert columns == ({"completion": "chosen"} if rows == "preference" else {})
    if columns:
        run(tree | {"data": tree["data"] | {"columns": columns}}, dry_run=True)


def test_a_model_without_a_reward_says_so(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not score answers"):
        load(base).score("a", ["b"])


def test_a_reward_model_that_is_asked_to_answer_says_so(base: Path, tmp_path: Path) -> None:
    result = run(recipe("reward", "preference", base, tmp_path, train={"max_steps": 2}))
    with pytest.raises(ModelError, match="scores answers"):
        next(load(result.folder).predict(["a"]))


def test_every_method_of_judged_rows_is_documented_where_it_is_refused() -> None:
    from tunesmith.workflow.judged import methods_for

    for kind in ("preference", "unpaired", "rating", "ranking"):
        assert all(
            (f"method.type={name}" in methods_for(kind)) == (kind in kinds) for name, kinds in TAKES.items()
        )


def test_rows_carry_what_the_objective_reads(base: Path, tmp_path: Path) -> None:
    """A row that lost its scores on the way would fail, and not train on nothing."""
    from tests import fakes
    from tunesmith.core.batch import Batch

    row = replace(fakes.judged_row([3], [[4], [5]], [1.0, 0.0]), given={})
    with pytest.raises(KeyError, match="scores"):
        Batch.from_rows([row]).given("scores")
