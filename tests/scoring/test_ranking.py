"""Ranks that count, by hand."""

from __future__ import annotations

import json

import pytest

from tunesmith.scoring import score


def test_ranks_by_hand() -> None:
    ten = [f"t{i}" for i in range(12)]
    said = [json.dumps(ten), json.dumps(ten), json.dumps(ten), "[1]", ""]
    found = score("ranking", ["t0", "t3", "t11", "t0", "t0"], said)
    assert found.per_row["mrr_at_10"].tolist() == [1, 0.25, 0, 0, 0]
    assert found.metrics["mrr_at_10"] == pytest.approx(1.25 / 5)
    assert [found.metrics[f"recall_at_{k}"] for k in (1, 5, 10)] == pytest.approx([0.2, 0.4, 0.4])
    assert found.answers[3:] == ('["[1]"]', None)
    assert score("ranking", ["t0"], ["t0"]).metrics["recall_at_1"] == 1
    assert found.answers[0] == json.dumps(ten[:10])
