"""`evaluate` and `compare` say of a model what its own report says, and nothing more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.workflow.conftest import label_rows, settings, write_jsonl
from tunesmith.config.load import load_run
from tunesmith.config.run import Run
from tunesmith.errors import DataError
from tunesmith.evaluate.answers import Answerer
from tunesmith.evaluate.report_model import Report


def metrics(report: Report, name: str) -> dict[str, float]:
    return next({n: m.value for n, m in s.metrics.items()} for s in report.systems if s.name == name)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_numbers_are_those_of_the_runs_own_report(tuning, trained, label_test, tmp_path):
    run = trained(tuning)
    config = load_run(run.folder / "config.yaml")
    found = tunesmith.evaluate(str(run.folder), [label_test], settings=config, output=tmp_path / "report")
    for here, there in (("model", "tuned"), ("model (choosing a label)", "tuned (choosing a label)")):
        assert metrics(found.report, here) == pytest.approx(metrics(run.report, there), rel=1e-5)
    assert found.report.data.read == found.report.data.used == 24
    assert Report.model_validate_json((tmp_path / "report" / "metrics.json").read_text()) == found.report
    json.dumps(found.as_dict(), allow_nan=False)
    assert "model" in found.as_text()


def test_a_base_model_can_be_evaluated(base, trained, label_test):
    run = trained("full")
    config = load_run(run.folder / "config.yaml")
    found = tunesmith.evaluate(str(base), [label_test], settings=config)
    assert metrics(found.report, "model") == pytest.approx(metrics(run.report, "base"), rel=1e-5)
    assert found.folder is None


def test_an_adapter_folder_is_a_model_too(trained, label_test):
    run = trained("lora")
    config = load_run(run.folder / "config.yaml")
    found = tunesmith.evaluate(str(run.folder / "model"), [label_test], settings=config)
    assert metrics(found.report, "model") == pytest.approx(metrics(run.report, "tuned"), rel=1e-5)
    assert found.report.model.kind == "lora"


def test_a_comparison_is_that_of_the_runs_own_report(base, trained, label_test):
    run = trained("full")
    config = load_run(run.folder / "config.yaml")
    found = tunesmith.compare(str(base), str(run.folder), [label_test], settings=config)
    own = {c.metric: c for c in run.report.comparisons if c.base == "base"}
    here = {c.metric: c for c in found.report.comparisons if c.base == "a"}
    assert here.keys() == own.keys()
    for name, comparison in here.items():
        assert comparison.difference.value == pytest.approx(own[name].difference.value, rel=1e-5)
        assert comparison.tone == own[name].tone


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_model_does_not_differ_from_itself(tuning, trained, label_test):
    folder = trained(tuning).folder
    config = load_run(folder / "config.yaml")
    found = tunesmith.compare(str(folder), str(folder), [label_test], settings=config)
    against_itself = [c for c in found.report.comparisons if c.base == "a"]
    assert against_itself
    for comparison in against_itself:
        assert comparison.tone == "none"
        assert comparison.difference.value == 0
    assert metrics(found.report, "a") == metrics(found.report, "b")
    json.dumps(found.as_dict(), allow_nan=False)


def conversations(folder: Path) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": r["text"]},
                {"role": "assistant", "content": f"First, {r['label']}."},
                {"role": "user", "content": "Sure?"},
                {"role": "assistant", "content": r["label"]},
            ]
        }
        for r in label_rows(40)
    ]
    write_jsonl(folder / "test.jsonl", rows[30:])
    return write_jsonl(folder / "train.jsonl", rows[:30])


def texts(folder: Path) -> Path:
    rows = [{"text": f"{r['text']}, a {r['label']}"} for r in label_rows(40)]
    write_jsonl(folder / "test.jsonl", rows[30:])
    return write_jsonl(folder / "train.jsonl", rows[:30])


@pytest.mark.parametrize(
    ("make", "method"),
    [(conversations, {}), (conversations, {"supervise": "completion"}), (texts, {"supervise": "all"})],
    ids=["every turn", "last turn", "plain text"],
)
def test_perplexity_is_of_the_same_tokens_as_in_the_report(make, method, base, tmp_path, quick):
    train = make(tmp_path)
    test = tmp_path / "test.jsonl"
    tree = settings(base, tmp_path, {"train": str(train), "test": str(test)}, method=method)
    run = tunesmith.train(Run.model_validate(tree))
    config = load_run(run.folder / "config.yaml")
    found = tunesmith.evaluate(str(run.folder), [test], settings=config)
    assert metrics(found.report, "model") == pytest.approx(metrics(run.report, "tuned"), rel=1e-5)
    both = tunesmith.compare(str(run.folder), str(run.folder), [test], settings=config)
    assert all(c.tone == "none" for c in both.report.comparisons)


def test_a_file_without_a_usable_row_is_an_error(base, tmp_path):
    with pytest.raises(DataError):
        tunesmith.evaluate(str(base), [write_jsonl(tmp_path / "bad.jsonl", ["{", "["])])


def test_a_limit_scores_that_many_rows(base, label_test):
    config: dict[str, Any] = {"evaluate": {"limit": 5, "max_new_tokens": 4, "bootstrap": 50}}
    found = tunesmith.evaluate(str(base), [label_test], settings=Run.model_validate(config))
    assert {m.n for s in found.report.systems for m in s.metrics.values() if m.n} == {5}


def test_a_label_is_chosen_among_those_of_training_too(trained, base, tmp_path, monkeypatch):
    """A file of one class would otherwise leave no choice: every model would be right."""
    folder = trained("full").folder
    config = load_run(folder / "config.yaml")
    asked = []
    real = Answerer.choose

    def choose(self: Answerer, examples: Any, labels: Any) -> list[str]:
        asked.append(tuple(labels))
        return real(self, examples, labels)

    monkeypatch.setattr(Answerer, "choose", choose)
    rows = [r for r in label_rows(20) if r["label"] == "fruit"] + [{"text": "a fern", "label": "plant"}]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    tunesmith.evaluate(str(folder), [source], settings=config)
    tunesmith.compare(str(base), str(folder), [source], settings=config)
    tunesmith.evaluate(str(base), [source], settings=config)
    assert asked == [("animal", "fruit", "metal", "plant")] * 3 + [("fruit", "plant")]
