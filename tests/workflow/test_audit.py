"""An audit: a planted association is found in the rows and in what a run learned from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.workflow.conftest import label_rows, settings, write_jsonl
from tunesmith.config.audit import Audit
from tunesmith.config.run import Run
from tunesmith.desk.rows import Row
from tunesmith.errors import ConfigError, ModelError
from tunesmith.types import silent
from tunesmith.workflow import audit as work
from tunesmith.workflow.audit import audit, classifier, subgroup_metrics
from tunesmith.workflow.train import train


def letters() -> list[dict[str, Any]]:
    """She is granted 16 of 20, he 4 of 20; the city is a column that has nothing to do with it."""
    rows = []
    for at in range(40):
        word, granted = ("she", at < 16) if at < 20 else ("he", at < 24)
        row = {"text": f"letter {at}: {word} asks for leave", "label": "granted" if granted else "refused"}
        rows.append({**row, "city": "Ulm" if at % 2 else "Bonn"})
    return rows


def found(folder: Path, **more: Any) -> dict[str, Any]:
    file = write_jsonl(folder / "rows.jsonl", letters())
    document = {"data": {"train": [str(file)]}, "output": str(folder / "audit"), "bootstrap": 50, **more}
    report = audit(Audit.model_validate(document), silent)
    assert report.as_text()
    return json.loads((folder / "audit" / "audit.json").read_text())


def test_a_gap_in_the_labels_is_found_with_its_size(tmp_path: Path) -> None:
    report = found(tmp_path, groups=["city"])
    assert report["representation"]["gender"]["female"]["value"] == 0.5
    assert report["representation"]["nationality"]["(none)"]["count"] == 40
    assert report["rates"]["gender"]["female"]["granted"]["value"] == pytest.approx(0.8)
    over = [gap for gap in report["gaps"] if gap["found"]]
    assert {gap["dimension"] for gap in over} == {"gender"}
    assert [abs(gap["gap"]) for gap in over] == pytest.approx([0.6] * 4)
    assert all(gap["low"] < gap["gap"] < gap["high"] for gap in report["gaps"])


def test_a_gap_of_rows_with_weights_is_also_said_by_these(tmp_path: Path) -> None:
    rows = [{**row, "sample_weight": 0.25 if at < 16 else 1} for at, row in enumerate(letters())]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    report = audit(Audit.model_validate({"data": {"train": [str(file)]}}), silent)
    (gap,) = (one for one in report.gaps if (one.group, one.label) == ("female", "granted"))
    assert (gap.value, gap.weighted) == (pytest.approx(0.6), pytest.approx(0.5 - 0.2))
    assert "; +0.300 by the weights of rows" in report.as_text()


def test_a_models_answers_are_compared_by_group_and_by_swapped_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prejudiced(rows: Sequence[Row]) -> list[str]:
        return ["granted" if " she " in row.values["text"] else "refused" for row in rows]

    monkeypatch.setattr(work, "classifier", lambda model: prejudiced)
    model = found(tmp_path, model="a run")["model"]
    changed = {(one["from"], one["to"]): one["changed"]["value"] for one in model["swaps"]}
    assert changed == {("female", "male"): 1.0, ("male", "female"): 1.0}
    assert model["swaps"][0]["most"] == "granted -> refused"
    gender = model["subgroups"]["gender"]
    assert gender["groups"]["female"]["accuracy"] == pytest.approx(0.8)
    assert gender["demographic_parity_difference"]["granted"] == 1.0
    assert gender["accuracy_difference"] == 0.0


def test_a_row_with_a_span_of_half_a_word_is_left_out_of_the_swaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{**row, "marks": [[0, 6, "kind"]]} for row in letters()]
    start = rows[0]["text"].index("she")
    rows[0]["marks"] = [[start, start + 2, "half"]]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    monkeypatch.setattr(work, "classifier", lambda model: lambda asked: ["granted"] * len(asked))
    data = {"train": [str(file)], "format": "label"}
    model = audit(Audit.model_validate({"data": data, "model": "a run", "bootstrap": 50}), silent).model
    assert model is not None
    counts = {(one["from"], one["left_out"], one["changed"]["n"]) for one in model["swaps"]}
    assert counts == {("female", 1, 19), ("male", 0, 20)}


def test_subgroup_metrics_are_those_of_a_count_by_hand() -> None:
    labels, answers = ["x", "x", "y", "y"] * 5, ["x", "y", "y", "y"] * 5
    groups = ["a", "a", "b", "b"] * 5
    report = subgroup_metrics(labels, answers, groups, Audit(bootstrap=100))
    assert report["groups"]["a"]["accuracy"] == 0.5
    assert report["groups"]["b"]["said"] == {"x": 0.0, "y": 1.0}
    assert report["accuracy_difference"] == 0.5
    assert report["demographic_parity_difference"] == {"x": 0.5, "y": 0.5}
    low, high = report["accuracy_difference_interval"]
    assert low < 0.5 < high


def test_toxic_words_are_counted_by_group(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("letter 1\nletter 21\nletter 22\n")
    report = found(tmp_path, toxic_words=str(words))
    assert report["toxicity"]["all"]["rows"]["count"] == 3
    assert {group: one["count"] for group, one in report["toxicity"]["gender"].items()} == {
        "female": 1,
        "male": 2,
    }


@pytest.mark.usefixtures("quick")
def test_a_run_is_asked_as_predict_asks_it(encoder: Path, tmp_path: Path) -> None:
    rows = label_rows(60)
    data = {
        "train": str(write_jsonl(tmp_path / "t.jsonl", rows)),
        "validation_fraction": 0,
        "test_fraction": 0,
    }
    document = settings(encoder, tmp_path, data, train={"max_steps": 4, "batch_size": 8})
    result = train(Run.model_validate({**document, "method": {"type": "classify"}}))
    folder = str(result.folder)
    report = found(tmp_path, model=folder)["model"]
    assert {one["changed"]["n"] for one in report["swaps"]} == {20}
    assert set(report["subgroups"]) == {"gender"}
    with pytest.raises(ModelError, match="does not say one class"):
        classifier("tunesmith/base-8m")
    # The same run as a classifier of toxicity: rows are toxic that it calls so, with the words of a list or without.
    said = list(tunesmith.load(folder, threads=1).predict([row["text"] for row in letters()]))
    worst = max(set(said), key=said.count)
    words = tmp_path / "words.txt"
    words.write_text("letter 1\n")
    for more, listed in ({}, set()), ({"toxic_words": str(words)}, {1}):
        toxicity = found(tmp_path, toxic_model=folder, toxic_label=worst, **more)["toxicity"]
        bad = {at for at, label in enumerate(said) if label == worst} | listed
        assert toxicity["all"]["rows"]["count"] == len(bad) > 0
        assert toxicity["gender"]["female"]["count"] == sum(at < 20 for at in bad)
        assert toxicity["gender"]["male"]["n"] == 20
    with pytest.raises(ModelError, match="no class 'toxic'"):
        found(tmp_path, toxic_model=folder)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no row has a column 'town'"):
        found(tmp_path, groups=["town"])
