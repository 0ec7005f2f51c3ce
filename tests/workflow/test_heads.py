"""The main job with a head: classes, several classes, numbers, tags, pairs; on a tiny BERT and a tiny Llama."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model

import tunesmith
from tests.workflow.conftest import THINGS, TOKENIZER, label_rows, read_jsonl, settings, write_jsonl
from tunesmith.config.methods import ClassifyConfig
from tunesmith.config.run import DataConfig, Run
from tunesmith.data.account import Account
from tunesmith.data.load import read_examples
from tunesmith.errors import ConfigError, ModelError
from tunesmith.train.profile import COUNT, FIRST
from tunesmith.types import silent
from tunesmith.workflow.predict import predict
from tunesmith.workflow.train import resume

pytestmark = pytest.mark.usefixtures("quick")

COLOURS = ("red", "green", "blue")


def several(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        kinds = rng.sample(list(THINGS), rng.randint(0, 2))
        things = " and a ".join(rng.choice(THINGS[kind]) for kind in kinds) or "nothing"
        rows.append({"text": f"number {index + seed * 1000}: a {things}", "labels": kinds})
    return rows


def numbers(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    values = {thing: float(i) for i, thing in enumerate(t for ts in THINGS.values() for t in ts)}
    chosen = [rng.choice(list(values)) for _ in range(count)]
    return [
        {"text": f"number {i + seed * 1000}: a {thing}", "score": 10 * values[thing] + 100}
        for i, thing in enumerate(chosen)
    ]


def tags(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        colour, thing = rng.choice(COLOURS), rng.choice(THINGS["fruit"])
        text = f"number {index + seed * 1000}: a {colour} {thing} is here"
        at, to = text.index(colour), text.index(thing)
        spans = [[at, at + len(colour), "colour"], [to, to + len(thing), "fruit"]]
        rows.append({"text": text, "spans": spans})
    return rows


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """The two texts are of the same kind, or not."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        one, two = rng.choice(list(THINGS)), rng.choice(list(THINGS))
        a, b = rng.choice(THINGS[one]), rng.choice(THINGS[two])
        rows.append(
            {"text": f"{index + seed * 1000} {a}", "pair": b, "label": "same" if one == two else "other"}
        )
    return rows


MAKE: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "classify": label_rows,
    "many": several,
    "regress": numbers,
    "tag": tags,
    "pair": pairs,
}
METHOD: dict[str, dict[str, Any]] = {
    "classify": {"type": "classify"},
    "many": {"type": "classify", "multi_label": True},
    "regress": {"type": "regress"},
    "tag": {"type": "tag"},
    "pair": {"type": "classify"},
}
PRIMARY = {"classify": "accuracy", "many": "micro_f1", "regress": "mae", "tag": "span_f1", "pair": "accuracy"}


def recipe(kind: str, base: Path, folder: Path, **more: Any) -> dict[str, Any]:
    data = {
        "train": str(write_jsonl(folder / "train.jsonl", MAKE[kind](120))),
        "test": str(write_jsonl(folder / "test.jsonl", MAKE[kind](24, seed=7))),
    }
    train = {"max_steps": 40, "eval_every": 20, **more.pop("train", {})}
    method = {**METHOD[kind], "tuning": "full", **more.pop("method", {})}
    tree = settings(base, folder, data, train=train, **more)
    return {**tree, "method": method}


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_head_learns_and_comes_out_with_its_proof(
    kind: str, tuning: str, encoder: Path, tmp_path: Path
) -> None:
    run = Run.model_validate(recipe(kind, encoder, tmp_path, method={"tuning": tuning}))
    result = tunesmith.train(run)
    report = result.report
    assert report is not None
    by_name = {s.name: s.metrics for s in report.systems}
    assert {"base", "tuned"} <= by_name.keys()
    assert PRIMARY[kind] in by_name["tuned"]
    assert report.primary == PRIMARY[kind]
    assert report.curves.validation_loss[-1][1] < report.curves.validation_loss[0][1]
    answers, log = tmp_path / "answers.jsonl", tmp_path / "log.jsonl"
    predict(str(result.folder), tmp_path / "test.jsonl", answers, sink=silent, log=log)
    said = [row["answer"] for row in read_jsonl(answers)]
    assert len(said) == 24
    kinds = {"many": list, "tag": list, "regress": float}
    assert all(isinstance(a, kinds.get(kind, str)) for a in said)
    formats = {"tag": "tags", "regress": "number"}
    logged = DataConfig(format=formats.get(kind, "auto"))
    asked = read_examples([str(tmp_path / "test.jsonl")], run.data, Account("stop"))[0]
    again = read_examples([str(log)], logged, Account("stop"))[0]
    assert [row.texts for row in again] == [row.texts for row in asked]
    assert [row.answer for row in again] == [a if isinstance(a, str) else json.dumps(a) for a in said]


def test_a_span_whose_label_no_training_row_has_counts_as_missed(encoder: Path, tmp_path: Path) -> None:
    run = Run.model_validate(recipe("tag", encoder, tmp_path, train={"max_steps": 2, "eval_every": 1}))
    for name, seed in (("validation", 9), ("test", 7)):
        rows = tags(24, seed=seed)
        for row in rows:
            row["spans"].append([0, 6, "noun"])  # "number"
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    run.data.validation = [str(tmp_path / "validation.jsonl")]
    report = tunesmith.train(run).report
    assert report is not None
    found = {c.name: c for c in report.classes}["noun"]
    assert (found.support, found.tuned) == (24, 0.0)
    assert np.isfinite(report.curves.validation_loss[-1][1])


def test_a_well_learned_classifier_is_sure_and_right(encoder: Path, tmp_path: Path) -> None:
    train = {"max_steps": 120, "eval_every": 40, "watch": "auroc"}
    tree = recipe("classify", encoder, tmp_path, method={"pooling": "mean"}, train=train)
    tree["model"]["dropout"] = 0  # at this size it is the masks that decide
    run = Run.model_validate(tree)
    report = tunesmith.train(run).report
    assert report is not None
    tuned = next(s for s in report.systems if s.name == "tuned").metrics
    assert tuned["accuracy"].value > 0.9
    assert tuned["auroc"].value > 0.95


def test_the_padded_path_gives_the_same_run(encoder: Path, tmp_path: Path) -> None:
    values = []
    for path in ("layout", "padded"):
        tree = recipe("classify", encoder, tmp_path, name=path, train={"max_steps": 6, "eval_every": 6})
        tree["model"]["path"], tree["model"]["dropout"] = path, 0.0
        report = tunesmith.train(Run.model_validate(tree)).report
        assert report is not None
        values.append([loss for _, loss in report.curves.train_loss])
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_a_resumed_run_is_bit_identical(encoder: Path, tmp_path: Path) -> None:
    class Crash(Exception):
        """Stands for the process's death."""

    def dies(event: str, /, **fields: Any) -> None:
        if event == "step" and fields["step"] == 6:
            raise Crash

    tree = recipe("tag", encoder, tmp_path, train={"max_steps": 8, "eval_every": 4})
    tree["model"]["dropout"] = 0.1
    whole = tunesmith.train(Run.model_validate({**tree, "name": "whole"}))
    with pytest.raises(Crash):
        tunesmith.train(Run.model_validate({**tree, "name": "cut"}), sink=dies)
    again = resume(tmp_path / "cut")
    one, two = (load_file(r.folder / "model" / "model.safetensors") for r in (whole, again))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_class_weights_labels_and_scales_are_worked_out_and_written_down(
    encoder: Path, tmp_path: Path
) -> None:
    tree = recipe("classify", encoder, tmp_path, method={"class_weights": "balanced"})
    plan = tunesmith.train(Run.model_validate(tree), dry_run=True)
    assert "labels: [animal, fruit, metal]" in plan.text
    assert "class_weights:\n" in plan.text
    tree = recipe("regress", encoder, tmp_path)
    assert "scale: [[" in tunesmith.train(Run.model_validate(tree), dry_run=True).text


def test_a_classifier_abstains_below_its_threshold(encoder: Path, tmp_path: Path) -> None:
    tree = recipe(
        "classify",
        encoder,
        tmp_path,
        method={"abstain_below": 0.999},
        train={"max_steps": 2, "eval_every": 2},
    )
    result = tunesmith.train(Run.model_validate(tree))
    answers = tmp_path / "answers.jsonl"
    predict(str(result.folder), tmp_path / "test.jsonl", answers, sink=silent)
    rows = read_jsonl(answers)
    assert all(row["answer"] is None for row in rows)
    assert all(0 < row["confidence"] < 0.999 for row in rows)


def test_a_decoder_takes_a_head(base: Path, tmp_path: Path) -> None:
    result = tunesmith.train(Run.model_validate(recipe("classify", base, tmp_path)))
    assert json.loads((result.folder / "model" / "config.json").read_text())["architectures"] == [
        "LlamaForSequenceClassification"
    ]


@pytest.mark.parametrize("kind", ["classify", "tag", "pair"])
def test_an_encoder_that_the_gate_refuses_takes_a_head_padded(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
    )
    DebertaV2Model(config).save_pretrained(tmp_path / "deberta")
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(tmp_path / "deberta")
    result = tunesmith.train(Run.model_validate(recipe(kind, tmp_path / "deberta", tmp_path)))
    report = result.report
    assert report is not None
    assert "padded rows" in report.model.path
    assert report.model.architecture.startswith("DebertaV2For")
    assert report.curves.validation_loss[-1][1] < report.curves.validation_loss[0][1]
    answers = tmp_path / "answers.jsonl"
    predict(str(result.folder), tmp_path / "test.jsonl", answers, sink=silent)
    assert len(read_jsonl(answers)) == 24


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"method": {"type": "sft"}}, ModelError, "is an encoder"),
        ({"data": {"format": "messages"}}, ConfigError, "label rows"),
        ({"method": {"labels": ["fruit"]}}, ConfigError, "not among method.labels"),
        ({"model": {"template": "plain"}}, ConfigError, "reads texts as they are"),
    ],
)
def test_what_cannot_be_is_refused(
    change: dict[str, Any], error: type[Exception], words: str, encoder: Path, tmp_path: Path
) -> None:
    tree = recipe("classify", encoder, tmp_path)
    for section, values in change.items():
        tree[section] = {**tree[section], **values}
    with pytest.raises(error, match=words):
        tunesmith.train(Run.model_validate(tree))


def test_training_goes_on_from_a_run_with_other_classes(encoder: Path, tmp_path: Path) -> None:
    """Two stages: the body is kept, the head is new where its outputs are others."""
    first = tunesmith.train(Run.model_validate(recipe("classify", encoder, tmp_path, name="first")))
    tree = recipe("pair", first.folder, tmp_path, name="second")
    report = tunesmith.train(Run.model_validate(tree)).report
    assert report is not None
    assert "other outputs" in report.model.path


@pytest.mark.parametrize("kind", ["many", "tag"])
def test_a_label_that_no_output_stands_for_is_refused(kind: str, encoder: Path, tmp_path: Path) -> None:
    labels = ["fruit", "metal"] if kind == "many" else ["O", "B-fruit", "I-fruit"]
    tree = recipe(kind, encoder, tmp_path, method={"labels": labels})
    with pytest.raises(ConfigError, match=r"not among method\.labels"):
        tunesmith.train(Run.model_validate(tree))


def test_class_weights_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(ValueError, match="one class a row"):
        ClassifyConfig(multi_label=True, class_weights="balanced")
    with pytest.raises(ValueError, match="'frut', which is none"):
        ClassifyConfig(labels=["fruit", "metal"], class_weights={"frut": 2.0})


def test_a_run_reports_its_profile(encoder: Path, tmp_path: Path) -> None:
    run = Run.model_validate(recipe("classify", encoder, tmp_path, train={"max_steps": FIRST + COUNT + 1}))
    result = tunesmith.train(run, profile=True)
    assert result.report is not None
    found = result.report.cost.profile
    assert found is not None
    assert found.steps == COUNT
    assert {"linear layers", "attention", "optimizer", "data", "other"} <= found.parts.keys()
    assert sum(found.parts.values()) <= 1.05 * found.seconds
    page = (result.folder / "report" / "report.html").read_text()
    assert "Where the time of a training step goes" in page
    assert "linear layers" in page
    assert "Where the time of 5 training steps went" in (result.folder / "report" / "report.md").read_text()


def test_a_short_run_reports_the_profile_of_its_last_step(encoder: Path, tmp_path: Path) -> None:
    run = Run.model_validate(recipe("classify", encoder, tmp_path, train={"max_steps": 2, "eval_every": 1}))
    result = tunesmith.train(run, profile=True)
    assert result.report is not None
    found = result.report.cost.profile
    assert found is not None
    assert found.steps == 1
    assert 0 < sum(found.parts.values()) <= 1.05 * found.seconds
