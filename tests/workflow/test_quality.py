"""Scores of quality: the whole way from a file to the table, by a probe of labels and by a model's loss."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workflow.conftest import label_rows, write_jsonl
from tunesmith.config.desk import Desk
from tunesmith.config.quality import Quality
from tunesmith.data.formats import to_example
from tunesmith.desk.held import held
from tunesmith.desk.make import make
from tunesmith.desk.quality_page import label_errors, mixed_up
from tunesmith.desk.review import walk_of
from tunesmith.errors import ConfigError, DataError, ModelError
from tunesmith.types import silent
from tunesmith.workflow.open import load
from tunesmith.workflow.quality import quality


def table(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "quality.jsonl").read_text().splitlines()]


def flipped_rows(count: int, wrong: int) -> tuple[list[dict[str, Any]], set[int]]:
    rows = label_rows(count)
    labels = sorted({row["label"] for row in rows})
    chosen = set(random.Random(1).sample(range(count), wrong))
    for at in chosen:
        rows[at]["label"] = labels[(labels.index(rows[at]["label"]) + 1) % len(labels)]
    return rows, chosen


@pytest.mark.parametrize("by", ["words", "encoder"])
def test_wrong_labels_come_first(by: str, encoder: Path, tmp_path: Path) -> None:
    rows, wrong = flipped_rows(180, 9)
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    settings: dict[str, Any] = {"data": {"train": [str(file)]}, "output": str(tmp_path / "q"), "near": None}
    # A random encoder tells the nouns apart as well as any, given enough strength.
    settings |= {"encoder": str(encoder), "strength": 1.0} if by == "encoder" else {}
    report = quality(Quality.model_validate(settings), silent)
    found = table(tmp_path / "q")
    assert [one["row"] for one in found] == [one["row"] for one in report.records]
    assert sorted(one["row"] for one in found) == list(range(180))
    assert len(wrong & {one["row"] for one in found[:9]}) >= 7
    assert [one["confidence"] for one in found] == sorted(one["confidence"] for one in found)
    assert all(math.isclose(one["loss"], -math.log(one["confidence"]), abs_tol=1e-3) for one in found[50:])
    assert report.as_dict()["reasons"]["label_error"] > 0
    page = report.as_html()
    assert all(f'id="score-{name}' in page for name in ("confidence", "loss", "difficulty"))
    mixed = mixed_up(report.records)
    assert mixed is not None
    assert mixed["rows"] == {
        a: [sum((r["label"], r["suggested"]) == (a, b) for r in found) for b in mixed["labels"]]
        for a in mixed["labels"]
    }
    (bars,) = label_errors(report.records)
    assert sum(bars.counts.values()) == report.as_dict()["reasons"]["label_error"]


def test_of_a_data_set_the_table_stands_beside_its_version_and_is_reviewed(tmp_path: Path) -> None:
    rows, _ = flipped_rows(60, 3)
    rows.append({"text": rows[0]["text"], "label": "plant"})
    made = make(
        Desk.model_validate(
            {
                "output": str(tmp_path / "set"),
                "data": {"train": [str(write_jsonl(tmp_path / "r.jsonl", rows))]},
            }
        ),
        silent,
    )
    assert made.version is not None
    config = Quality.model_validate({"data": {"train": [str(tmp_path / "set")]}, "near": None})
    report = quality(config, silent)
    assert report.folder == str(tmp_path / "set" / "quality" / "0001")
    by_row = {one["row"]: one for one in report.records}
    assert by_row[60]["reasons"] == ["rare_class", "conflict"]
    assert by_row[60]["conflicts"][0]["place"].endswith("train.jsonl:1")
    assert "conflict" in by_row[0]["reasons"]
    walk = walk_of(tmp_path / "set", silent)
    assert len(walk.records) == sum(1 for one in report.records if one["reasons"])
    walk.press("d")
    steps = {"review": {"decisions": str(walk.path)}}
    again = {"output": str(tmp_path / "set"), "data": {"train": [str(tmp_path / "set")]}, **steps}
    assert make(Desk.model_validate(again), silent).rows == {"train": 60}


def test_answers_are_scored_by_the_loss_of_a_model(base: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"what is {n} + {n}?", "completion": f"it is {2 * n}"} for n in range(30)]
    rows[7]["completion"] = "zq xv kw jj qy vx wq " * 3
    rows[9]["prompt"] = rows[8]["prompt"]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    settings = {"data": {"train": [str(file)]}, "model": str(base), "near": None}
    report = quality(Quality.model_validate(settings), silent)
    losses = [one["loss"] for one in report.records]
    assert losses == sorted(losses, reverse=True)
    assert report.folder is None
    assert {one["row"] for one in report.records if "conflict" in one["reasons"]} == {8, 9}
    opened = load(base)
    row = held(Quality.model_validate(settings).data, silent).rows[3]
    (token_row,) = opened.renderer.rows(to_example(row.shape.meaning, row.values, row.ref), "assistant")  # type: ignore[union-attr]
    nll = opened.answerer(1, 1).losses([token_row])  # type: ignore[union-attr]
    expected = float(np.sum(nll.nll) / np.sum(nll.tokens))
    found = next(one["loss"] for one in report.records if one["row"] == 3)
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_model_that_such_rows_are_not_scored_by_is_refused(tmp_path: Path) -> None:
    labels = str(write_jsonl(tmp_path / "l.jsonl", label_rows(8)))
    with pytest.raises(ConfigError, match=r"model=m, and rows with a class"):
        quality(Quality.model_validate({"data": {"train": [labels]}, "model": "m"}), silent)
    prompts = str(write_jsonl(tmp_path / "p.jsonl", [{"prompt": "a", "completion": "b"}] * 4))
    with pytest.raises(ConfigError, match=r"encoder=e, and no rows with a class"):
        quality(Quality.model_validate({"data": {"train": [prompts]}, "encoder": "e"}), silent)


def test_rows_without_scores_are_refused(encoder: Path, tmp_path: Path) -> None:
    several = write_jsonl(tmp_path / "several.jsonl", [{"text": "a", "labels": ["b", "c"]}] * 4)
    with pytest.raises(DataError, match="labels rows have no scores"):
        quality(Quality.model_validate({"data": {"train": [str(several)], "format": "labels"}}), silent)
    prompts = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "a", "completion": "b"}] * 4)
    plain = write_jsonl(tmp_path / "t.jsonl", [{"text": "once upon a time"}] * 4)
    with pytest.raises(DataError, match="prompt and text rows have no scores"):
        quality(Quality.model_validate({"data": {"train": [str(prompts), str(plain)]}}), silent)
    with pytest.raises(ModelError):
        quality(Quality.model_validate({"data": {"train": [str(prompts)]}, "model": str(encoder)}), silent)
