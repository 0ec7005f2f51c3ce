"""Margins of rows: what becomes of them is said before a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.workflow.conftest import settings, write_jsonl
from tests.workflow.test_judged import pairs
from tunesmith.config.run import Run
from tunesmith.workflow.prepare import prepare


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"type": "preference"}, ["the chosen answer's reward is asked to be larger by 1 x the row's"]),
        ({"type": "preference", "margin_scale": 0.0}, []),
        ({"type": "preference", "loss": "ipo"}, ["method.type=preference with loss ipo does not use them"]),
        ({"type": "unpaired"}, ["method.type=unpaired with loss kto does not use them"]),
        ({"type": "reward", "margin_scale": 0.5}, ["is asked to be larger by 0.5 x the row's"]),
        ({"type": "reward", "loss": "plackett_luce"}, ["with loss plackett_luce does not use them"]),
    ],
    ids=str,
)
def test_what_becomes_of_margins_is_said(
    method: dict[str, Any], said: list[str], base: Path, tmp_path: Path
) -> None:
    rows = [{**row, "good": 5, "bad": 2} for row in pairs(48)]
    columns = {"score_chosen": "good", "score_rejected": "bad"}
    data = {"train": str(write_jsonl(tmp_path / "rows.jsonl", rows)), "columns": columns}
    tree = {**settings(base, tmp_path, data), "method": method}
    told: list[str] = []
    prepare(Run.model_validate(tree), tmp_path, lambda kind, **what: told.append(str(what.get("text"))))
    found = [text for text in told if text.startswith("margins (good - bad): ")]
    assert len(found) == len(said)
    assert all(text in line for text, line in zip(said, found, strict=True))
