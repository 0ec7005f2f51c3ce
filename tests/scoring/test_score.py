"""`score` for each task, and what it promises: every documented metric, row scores that average to it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tunesmith.errors import ConfigError, DataError
from tunesmith.scoring import METRICS, PRIMARY, Scores, detect_task, flips, metric, score, show


def every_task() -> list[Scores]:
    objects = [json.dumps({"kind": k, "n": n}) for k, n in [("a", 1), ("b", 1), ("a", 2), ("b", 2)]]
    return [
        score("label", ["a", "b", "a"], ["A", "a", "don't know"], ["a", "b"], hit_limit=[False, False, True]),
        score("json", objects, [objects[0], objects[0], "no", ""], hit_limit=[False] * 4),
        score("text", ["a b", "c"], ["a b", "I cannot answer"], hit_limit=[False, True]),
    ]


@pytest.mark.parametrize("scores", every_task(), ids=lambda s: s.task)
def test_every_metric_is_documented_in_range_and_the_mean_of_its_rows(scores: Scores) -> None:
    assert PRIMARY[scores.task] in scores.per_row
    for name, value in scores.metrics.items():
        low, high = metric(name).range
        assert low <= value <= high
        assert name in scores.per_row or name in scores.codes or name in METRICS
    for name, rows in scores.per_row.items():
        assert rows.shape == (scores.num_rows,)
        assert scores.metrics[name] == pytest.approx(np.nanmean(rows))


def test_labels() -> None:
    scores = every_task()[0]
    assert scores.metrics["accuracy"] == pytest.approx(1 / 3)
    assert scores.metrics["valid_label"] == pytest.approx(2 / 3)
    assert scores.answers == ("a", "a", None)


def test_json() -> None:
    scores = every_task()[1]
    assert scores.metrics["json_valid"] == 0.5
    assert scores.metrics["json_exact"] == 0.25
    assert scores.metrics["field_accuracy"] == pytest.approx((1 + 0.5) / 4)
    assert scores.metrics["accuracy.n"] == 0.5
    assert scores.metrics["accuracy.kind"] == 0.25
    # kind a: found 1 of 2, named twice; kind b: never
    assert scores.metrics["macro_f1.kind"] == pytest.approx((2 * 1 / (2 + 2) + 0) / 2)
    assert scores.metrics["empty_rate"] == 0.25


def test_an_extra_key_is_not_exact() -> None:
    scores = score("json", ['{"a": 1}'], ['{"a": 1, "b": 2}'])
    assert scores.metrics["field_accuracy"] == 1
    assert scores.metrics["json_exact"] == 0
    assert scores.metrics["json_schema"] == 0


def test_references_that_are_no_json_do_not_count() -> None:
    scores = score("json", ['{"a": 1}', "broken"], ['{"a": 1}', '{"a": 1}'])
    assert scores.metrics["json_exact"] == 1
    assert np.isnan(scores.per_row["json_exact"][1])


def test_a_wanted_refusal_is_no_failure() -> None:
    scores = score("text", ["I cannot help with that."] * 2, ["I cannot help with that.", "Sure!"])
    assert scores.metrics["refusal_rate"] == 0


def test_cut_answers_are_measured_only_when_known() -> None:
    assert "overlong_rate" not in score("text", ["a"], ["a"]).metrics


def test_flips_name_rows_both_ways() -> None:
    base = score("label", ["a", "a", "b"], ["a", "b", "b"], ["a", "b"])
    tuned = score("label", ["a", "a", "b"], ["b", "a", "b"], ["a", "b"])
    assert flips(base, tuned) == ([1], [0])


def test_detect_task() -> None:
    assert detect_task(["x", "y"], ["x", "y"]) == "label"
    assert detect_task(["x", "y"], ["x", None]) == "text"
    assert detect_task(['{"a": 1}'] * 19 + ["no"]) == "json"
    assert detect_task(['{"a": 1}'] * 18 + ["no"] * 2) == "text"
    assert detect_task([]) == "text"


def test_errors_say_what_to_do() -> None:
    with pytest.raises(DataError, match="2 references and 1 predictions"):
        score("text", ["a", "b"], ["a"])
    with pytest.raises(DataError, match="0 references"):
        score("text", [], [])
    with pytest.raises(DataError, match="none of the references is a JSON object"):
        score("json", ["a"], ["a"])
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        metric("acuracy")


def test_values_are_shown_in_their_unit() -> None:
    assert show("accuracy.price", 0.9128) == "91.3 %"
    assert show("perplexity", 12.345) == "12.3"
    assert show("accuracy", float("nan")) == "not measured"
