"""The main job with embeddings: pairs in, a sentence-transformers folder out, and the proof that it ranks better."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from tests.workflow.conftest import label_rows, read_jsonl, settings, write_jsonl
from tunesmith.config.run import Run
from tunesmith.errors import ConfigError, DataError
from tunesmith.workflow.evaluate import compare, evaluate
from tunesmith.workflow.predict import predict
from tunesmith.workflow.train import resume

pytestmark = pytest.mark.usefixtures("quick")

WORDS = (
    "amber birch cedar delta ember fjord grove heath inlet jetty knoll ledge marsh north orbit plaza".split()
)


def pairs(count: int, seed: int = 0, negatives: bool = False) -> list[dict[str, Any]]:
    """Question and answer share a number of their own, which the answer says in words."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        one, two = rng.sample(WORDS, 2)
        row: dict[str, Any] = {
            "question": f"where is {one} by {two} {index + 1000 * seed}",
            "answer": f"{two} {one} place {index}",
        }
        if negatives:
            row["negative"] = [f"{rng.choice(WORDS)} {two} elsewhere {index}"]
        rows.append(row)
    return rows


def recipe(base: Path, folder: Path, negatives: bool = False, **more: Any) -> dict[str, Any]:
    data = {
        "train": str(write_jsonl(folder / "train.jsonl", pairs(160, negatives=negatives))),
        "test": str(write_jsonl(folder / "test.jsonl", pairs(40, 7, negatives))),
    }
    train = {"max_steps": 60, "eval_every": 30, "batch_size": 16, **more.pop("train", {})}
    method = {"type": "embed", "pooling": "mean", "tuning": "full", **more.pop("method", {})}
    return {**settings(base, folder, data, train=train, **more), "method": method}


def metrics(result: Any) -> dict[str, dict[str, float]]:
    return {s.name: {name: m.value for name, m in s.metrics.items()} for s in result.report.systems}


def stock(folder: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    from sentence_transformers import SentenceTransformer

    found: np.ndarray[Any, Any] = SentenceTransformer(str(folder), device="cpu").encode(texts)
    return found


@pytest.mark.parametrize(
    ("tuning", "criterion", "negatives"),
    [("full", "contrastive", False), ("full", "triplet", True), ("lora", "contrastive", True)],
)
def test_texts_that_belong_together_come_near(
    tuning: str, criterion: str, negatives: bool, encoder: Path, tmp_path: Path
) -> None:
    method = {"tuning": tuning, "criterion": criterion}
    result = tunesmith.train(Run.model_validate(recipe(encoder, tmp_path, negatives, method=method)))
    assert result.report is not None
    assert result.report.task == "ranking"
    assert result.report.primary == "mrr_at_10"
    found = metrics(result)
    assert {"base", "tfidf ranking", "tuned"} == found.keys()
    assert found["tuned"]["mrr_at_10"] > found["base"]["mrr_at_10"]
    assert found["tuned"]["recall_at_1"] <= found["tuned"]["mrr_at_10"] <= found["tuned"]["recall_at_10"]
    card = (result.folder / "model" / "README.md").read_text()
    assert "pipeline_tag: sentence-similarity" in card
    page = (result.folder / "report" / "report.html").read_text()
    assert "ranking by embeddings" in page
    assert "TF-IDF ranking" in page


def test_stock_sentence_transformers_gives_the_embeddings_that_predict_writes(
    encoder: Path, tmp_path: Path
) -> None:
    result = tunesmith.train(
        Run.model_validate(recipe(encoder, tmp_path, train={"max_steps": 4, "eval_every": 4}))
    )
    rows = [{"text": "where is amber"}, {"text": "a cedar and an inlet"}]
    out = tmp_path / "vectors.jsonl"
    predict(
        str(result.folder), write_jsonl(tmp_path / "in.jsonl", rows), out, sink=lambda kind, /, **fields: None
    )
    said = np.array([row["embedding"] for row in read_jsonl(out)])
    assert np.linalg.norm(said, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert said == pytest.approx(stock(result.folder / "model", [r["text"] for r in rows]), abs=1e-5)
    assert [p["path"] for p in json.loads((result.folder / "model" / "modules.json").read_text())] == [
        "",
        "1_Pooling",
        "2_Normalize",
    ]


def test_rows_as_they_were_trained_on_are_asked_by_their_anchor(encoder: Path, tmp_path: Path) -> None:
    result = tunesmith.train(
        Run.model_validate(recipe(encoder, tmp_path, train={"max_steps": 2, "eval_every": 2}))
    )
    out = tmp_path / "vectors.jsonl"
    predict(str(result.folder), tmp_path / "test.jsonl", out, sink=lambda kind, /, **fields: None)
    said = np.array([row["embedding"] for row in read_jsonl(out)])
    asked = [row["question"] for row in read_jsonl(tmp_path / "test.jsonl")]
    assert said == pytest.approx(stock(result.folder / "model", asked), abs=1e-5)


def test_micro_batches_and_a_crash_change_nothing(encoder: Path, tmp_path: Path) -> None:
    class Crash(Exception):
        """Stands for the process's death."""

    def dies(event: str, /, **fields: Any) -> None:
        if event == "step" and fields["step"] == 6:
            raise Crash

    tree = recipe(encoder, tmp_path, train={"max_steps": 8, "eval_every": 4, "micro_batch_tokens": 128})
    tree["model"]["dropout"] = 0.1
    whole = tunesmith.train(Run.model_validate({**tree, "name": "whole"}))
    with pytest.raises(Crash):
        tunesmith.train(Run.model_validate({**tree, "name": "cut"}), sink=dies)
    again = resume(tmp_path / "cut")
    one, two = (load_file(r.folder / "model" / "model.safetensors") for r in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_models_are_evaluated_and_compared_on_pairs(encoder: Path, tmp_path: Path) -> None:
    tree = recipe(encoder, tmp_path)
    models = []
    for steps in (2, 60):
        train = {**tree["train"], "max_steps": steps, "eval_every": steps}
        run = Run.model_validate({**tree, "name": f"run{steps}", "train": train})
        models.append(str(tunesmith.train(run).folder))
    own = evaluate(models[1], [tmp_path / "test.jsonl"])
    assert own.report.systems[0].metrics["mrr_at_10"].value > 0.2
    both = compare(*models, [tmp_path / "test.jsonl"])
    assert any(c.metric == "mrr_at_10" for c in both.report.comparisons)


def test_training_goes_on_from_embeddings_and_from_them_to_a_classifier(
    encoder: Path, tmp_path: Path
) -> None:
    short = {"max_steps": 2, "eval_every": 2}
    first = tunesmith.train(Run.model_validate(recipe(encoder, tmp_path, name="first", train=short)))
    tree = recipe(first.folder, tmp_path, name="second", train=short)
    assert tunesmith.train(Run.model_validate(tree)).report is not None
    rows = [{"text": f"{w} {i}", "label": "ab"[i % 2]} for i, w in enumerate(WORDS * 4)]
    data = {"train": str(write_jsonl(tmp_path / "labels.jsonl", rows))}
    tree = settings(first.folder, tmp_path, data, name="third", train=short)
    tree["method"] = {"type": "classify", "tuning": "full"}
    third = tunesmith.train(Run.model_validate(tree))
    assert third.report is not None
    assert "mean of its states" in third.report.model.architecture


def test_texts_of_one_class_come_near(encoder: Path, tmp_path: Path) -> None:
    """Rows of classes, a pair each; a class of one text has none, and is told of."""
    tree = recipe(encoder, tmp_path, train={"max_steps": 60, "eval_every": 30})
    data = {
        "format": "label",
        "train": str(
            write_jsonl(tmp_path / "train.jsonl", [*label_rows(150), {"text": "one", "label": "alone"}])
        ),
        "test": str(write_jsonl(tmp_path / "test.jsonl", label_rows(24, seed=7))),
    }
    result = tunesmith.train(Run.model_validate({**tree, "data": data}))
    assert result.report is not None
    assert result.report.data.dropped == {"alone_in_its_class": 1}
    found = metrics(result)
    assert found["tuned"]["mrr_at_10"] > found["base"]["mrr_at_10"]
    again = evaluate(str(result.folder), [tmp_path / "test.jsonl"])
    assert again.report.systems[0].metrics["mrr_at_10"].value == pytest.approx(found["tuned"]["mrr_at_10"])
    out = tmp_path / "vectors.jsonl"
    predict(str(result.folder), tmp_path / "test.jsonl", out, sink=lambda kind, /, **fields: None)
    assert len(read_jsonl(out)[0]["embedding"]) == 32


def test_a_second_text_beside_a_class_is_refused(encoder: Path, tmp_path: Path) -> None:
    rows = [{**row, "pair": "another text"} for row in label_rows(30)]
    data = {"format": "label", "train": str(write_jsonl(tmp_path / "two.jsonl", rows))}
    with pytest.raises(DataError, match="a second text beside a class"):
        tunesmith.train(Run.model_validate({**recipe(encoder, tmp_path), "data": data}), dry_run=True)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"method": {"candidates": "own"}}, ConfigError, "has no negative"),
        ({"data": {"format": "prompt"}}, ConfigError, "pairs rows"),
        ({"data": {"columns": {"positive": "reply"}}}, DataError, "no column 'reply'"),
        (
            {"data": {"columns": {"anchor": "answer"}}},
            DataError,
            "data.format=label where texts of one class",
        ),
        ({"method": {"head_init": "probe"}}, ValueError, "head_init"),
    ],
)
def test_what_cannot_be_is_refused(
    change: dict[str, Any], error: type[Exception], words: str, encoder: Path, tmp_path: Path
) -> None:
    tree = recipe(encoder, tmp_path)
    for section, values in change.items():
        tree[section] = {**tree[section], **values}
    with pytest.raises(error, match=words):
        tunesmith.train(Run.model_validate(tree), dry_run=True)
