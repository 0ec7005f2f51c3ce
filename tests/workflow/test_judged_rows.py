"""What judged rows leave to say, or to refuse, before a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.workflow.conftest import settings, write_jsonl
from tests.workflow.test_judged import pairs, ratings, verdicts
from tunesmith.config.run import Run
from tunesmith.errors import ConfigError, DataError
from tunesmith.types import silent
from tunesmith.workflow.prepare import prepare


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"type": "preference"}, "not used; method.margin_scale"),
        ({"type": "preference", "margin_scale": 0.1}, "asked to be larger by 0.1 x the row's"),
        ({"type": "reward", "margin_scale": 0.0}, "not used; method.margin_scale"),
        ({"type": "preference", "loss": "ipo"}, "method.type=preference with loss ipo does not use them"),
        ({"type": "unpaired"}, "method.type=unpaired with loss kto does not use them"),
        ({"type": "reward", "margin_scale": 0.5}, "is asked to be larger by 0.5 x the row's"),
        ({"type": "reward", "loss": "plackett_luce"}, "with loss plackett_luce does not use them"),
    ],
    ids=str,
)
def test_what_becomes_of_margins_is_said(
    method: dict[str, Any], said: str, base: Path, tmp_path: Path
) -> None:
    rows = [{**row, "good": 5, "bad": 2} for row in pairs(48)]
    columns = {"score_chosen": "good", "score_rejected": "bad"}
    data = {"train": str(write_jsonl(tmp_path / "rows.jsonl", rows)), "columns": columns}
    tree = {**settings(base, tmp_path, data), "method": method}
    told: list[str] = []
    prepare(Run.model_validate(tree), tmp_path, lambda kind, **what: told.append(str(what.get("text"))))
    found = [text for text in told if text.startswith("margins (good - bad): ")]
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("method", "kind"), [("unpaired", "verdict"), ("reward", "verdict"), ("reward", "rating")]
)
def test_judgements_that_are_all_the_same_are_refused_in_any_split(
    method: str, kind: str, split: str, base: Path, tmp_path: Path
) -> None:
    """They teach nothing, and nothing can be measured on them: better known now than in the first evaluation."""
    make = {"verdict": verdicts, "rating": ratings}[kind]
    column, same = {"verdict": ("label", True), "rating": ("rating", 3)}[kind]
    pool = make(72)
    rows = {"train": pool[:48], "validation": pool[48:60], "test": pool[60:]}
    rows[split] = [{**row, column: same} for row in rows[split]]
    data = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", of_split)) for name, of_split in rows.items()}
    tree = {**settings(base, tmp_path, data), "method": {"type": method}}
    with pytest.raises(DataError, match=rf"all \d+ {split} rows have the same {kind}"):
        prepare(Run.model_validate(tree), tmp_path, silent)


def test_a_setting_that_the_loss_of_the_rows_has_no_use_for_is_refused(base: Path, tmp_path: Path) -> None:
    data = {"train": str(write_jsonl(tmp_path / "rows.jsonl", ratings(48)))}
    tree = {**settings(base, tmp_path, data), "method": {"type": "reward", "label_smoothing": 0.2}}
    with pytest.raises(
        ConfigError, match="label_smoothing on rating rows, of which a reward model learns by regression"
    ):
        prepare(Run.model_validate(tree), tmp_path, silent)
