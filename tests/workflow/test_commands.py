"""The verbs, end to end: each prints one JSON document with --json, and ends with its own exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.conftest import label_rows, settings, write_jsonl
from tunesmith.cli.main import main

pytestmark = pytest.mark.usefixtures("quick")


def call(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    code = caught.value.code
    out, err = capsys.readouterr()
    return (code if isinstance(code, int) else 0), out, err


@pytest.fixture
def recipe(base: Path, labels: Path, label_test: Path, tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    data = {"train": str(labels), "test": str(label_test)}
    file.write_text(yaml.safe_dump(settings(base, tmp_path, data, method={"tuning": "lora"})))
    return file


def test_from_rows_to_an_exported_model(recipe, base, label_test, tmp_path, capsys):
    run = tmp_path / "tiny"
    code, out, _ = call(capsys, "train", recipe, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["plan"]["steps"] == 8
    assert not run.exists()

    code, out, err = call(capsys, "train", recipe, "--json", "train.max_steps=4")
    assert code == 0, err
    report = json.loads(out)["report"]
    assert report["fit"]["last_step"] == 4
    tuned = next(s["metrics"] for s in report["systems"] if s["name"] == "tuned")

    code, _, err = call(capsys, "train", recipe)
    assert code == 5
    assert "holds a finished run" in err

    code, out, _ = call(capsys, "evaluate", run, "--data", label_test, "--json", "--quiet")
    assert code == 0
    found = json.loads(out)["systems"][0]["metrics"]
    assert {n: m["value"] for n, m in found.items()} == pytest.approx(
        {n: m["value"] for n, m in tuned.items()}, rel=1e-5
    )

    code, out, _ = call(capsys, "compare", run, base, "--data", label_test, "--json", "--quiet")
    assert code == 0
    assert {s["name"] for s in json.loads(out)["systems"]} >= {"a", "b"}

    source = write_jsonl(tmp_path / "in.jsonl", label_rows(3))
    code, out, _ = call(capsys, "predict", run, source, "--quiet")
    assert code == 0
    assert [json.loads(line)["line"] for line in out.splitlines()] == [1, 2, 3]

    code, out, _ = call(capsys, "export", run, tmp_path / "out", "--merged", "--json")
    assert code == 0
    assert json.loads(out)["kind"] == "merged"

    code, out, _ = call(capsys, "runs", "list", tmp_path, "--json")
    assert code == 0
    assert [r["name"] for r in json.loads(out)] == ["tiny"]


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ("train.watch=bleu", 2, "train.watch=bleu"),
        ("data.train=nowhere.csv", 3, "nowhere.csv"),
        ("model.base=./nowhere", 4, "nowhere"),
        ("method.lora.modules=[nothing]", 2, "nothing"),
    ],
)
def test_each_kind_of_error_has_its_exit_code_and_is_json_too(change, code, word, recipe, capsys):
    found, out, err = call(capsys, "train", recipe, change, "--json", "--quiet")
    assert found == code
    assert out == ""
    error = json.loads(err.splitlines()[-1])["error"]
    assert word in error["got"]
    assert error["expected"] or error["fix"]


def test_a_loss_that_is_no_number_ends_with_6(recipe, capsys):
    how = ["train.learning_rate=3e37", "train.max_grad_norm=null", "train.warmup_fraction=0"]
    code, _, err = call(capsys, "train", recipe, "--quiet", *how, "method.tuning=full")
    assert code == 6
    assert "not a finite number" in err
