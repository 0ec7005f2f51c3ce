"""Numbers: scikit-learn and SciPy are the references."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score, root_mean_squared_error

from tunesmith.errors import DataError
from tunesmith.scoring import flips, goodness, score
from tunesmith.scoring import numbers as measures
from tunesmith.scoring.numbers import parse_numbers


def rows(num_targets: int, seed: int = 0, num: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wanted = rng.normal(3, 2, (num, num_targets)).round(1)  # ties
    return wanted, (wanted + rng.normal(0, 1.5, wanted.shape)).round(1)


def texts(values: np.ndarray) -> list[str]:
    return [json.dumps(row.tolist() if len(row) > 1 else row[0]) for row in values]


@pytest.mark.parametrize("num_targets", [1, 3])
def test_metrics_are_scikit_learns_and_scipys(num_targets: int) -> None:
    wanted, got = rows(num_targets)
    found = score("number", texts(wanted), texts(got)).metrics
    assert found["mae"] == pytest.approx(mean_absolute_error(wanted, got))
    assert found["mse"] == pytest.approx(mean_squared_error(wanted, got))
    assert found["rmse"] == pytest.approx(root_mean_squared_error(wanted, got))
    assert found["r2"] == pytest.approx(r2_score(wanted, got))
    pairs = list(zip(wanted.T, got.T, strict=True))
    assert found["pearson"] == pytest.approx(np.mean([scipy_stats.pearsonr(*p)[0] for p in pairs]))
    assert found["spearman"] == pytest.approx(np.mean([scipy_stats.spearmanr(*p)[0] for p in pairs]))


@pytest.mark.parametrize(
    ("function", "reference"),
    [
        (measures.r2, r2_score),
        (measures.pearson, lambda a, b: scipy_stats.pearsonr(a, b)[0]),
        (measures.spearman, lambda a, b: scipy_stats.spearmanr(a, b)[0]),
        (measures.rmse, root_mean_squared_error),
    ],
)
def test_a_reweighted_sample_is_one_with_repeated_rows(function, reference) -> None:  # type: ignore[no-untyped-def]
    wanted, got = rows(1, seed=2, num=30)
    weights = np.random.default_rng(1).integers(0, 4, (5, 30)).astype(float)
    found = function(wanted, got, weights)
    for row, value in zip(weights, found, strict=True):
        repeated = np.repeat(np.arange(30), row.astype(int))
        assert value == pytest.approx(reference(wanted[repeated, 0], got[repeated, 0]))


def test_targets_by_name_and_by_number() -> None:
    wanted, got = rows(2)
    found = score("number", texts(wanted), texts(got), ["price", "size"]).metrics
    assert found["mae.price"] == pytest.approx(mean_absolute_error(wanted[:, 0], got[:, 0]))
    assert found["r2.size"] == pytest.approx(r2_score(wanted[:, 1], got[:, 1]))
    assert found["mae"] == pytest.approx((found["mae.price"] + found["mae.size"]) / 2)
    assert {"mae.0", "mae.1"} <= score("number", texts(wanted), texts(got)).metrics.keys()
    assert not [n for n in score("number", ["1"], ["1"], ["price"]).metrics if "." in n]


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (" 4.5\n", (4.5,)),
        ("-1e3", (-1000.0,)),
        (".5", (0.5,)),
        ("+3.", (3.0,)),
        ("[4.5]", (4.5,)),
        ("[1, 2.5]", (1.0, 2.5)),
        ("[]", None),
        ("[true]", None),
        ("nan", None),
        ("[NaN]", None),
        ("inf", None),
        ("1e999", None),
        ("9" * 300, None),
        ("1" * 90, (float("1" * 90),)),
        ("[" + "9" * 400 + "]", None),
        ("1,000", None),
        ("1_000", None),
        ("4 stars", None),
        ("it is 4", None),
        ("", None),
    ],
)
def test_what_is_a_number(answer: str, value: tuple[float, ...] | None) -> None:
    assert parse_numbers(answer) == value


def test_an_answer_that_is_no_number_is_counted_and_is_the_worst_that_was_possible() -> None:
    found = score("number", ["0", "2", "10"], ["0", "none", "?"])
    assert found.metrics["valid_number"] == pytest.approx(1 / 3)
    assert found.per_row["mae"].tolist() == [0, 8, 10]
    assert found.answers == ("0.0", None, None)
    two = score("number", ["[0, 5]", "[4, 6]"], ["[0, 5]", "4"])
    assert two.metrics["valid_number"] == 0.5
    assert two.per_row["mae"].tolist() == [0, (4 + 1) / 2]


def test_silence_never_pays() -> None:
    wanted, got = rows(1, seed=3)
    inside = np.clip(got, wanted.min(), wanted.max())
    answered = score("number", texts(wanted), texts(inside))
    for row in range(0, 50, 7):
        silent = texts(inside)
        silent[row] = "I cannot say"
        assert score("number", texts(wanted), silent).metrics["mae"] >= answered.metrics["mae"]


def test_constant_answers_correlate_with_nothing() -> None:
    found = score("number", ["0.1", "0.2", "0.7"], ["0.1"] * 3).metrics
    assert found["pearson"] == found["spearman"] == 0
    assert score("number", ["2", "2"], ["2", "2"]).metrics["r2"] == 1
    assert score("number", ["2", "2"], ["2", "3"]).metrics["r2"] == 0


def test_a_repeated_digit_does_not_overflow() -> None:
    found = score("number", ["1", "2", "3"], ["1", "2", "3" * 100]).metrics
    assert all(np.isfinite(v) for v in found.values())


def test_nearer_rows_are_the_better_ones() -> None:
    base, tuned = (score("number", ["1", "2", "3"], p) for p in (["1", "4", "3"], ["2", "3", "3"]))
    assert flips(base, tuned) == ([1], [0])
    assert goodness(tuned).tolist() == [0.5, 0.5, 1]


def test_errors_name_the_row() -> None:
    with pytest.raises(DataError, match="reference of row 1 is 'x'"):
        score("number", ["1", "x"], ["1", "1"])
    with pytest.raises(DataError, match="row 1 has 2 numbers"):
        score("number", ["1", "[1, 2]"], ["1", "1"])
    with pytest.raises(DataError, match="row 0 has 1 numbers"):
        score("number", ["1"], ["1"], ["a", "b"])
