"""Metrics that are not means of rows, through one mechanism: against plain resampling and plain enumeration."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from tests.scoring.test_tasks import ROWS, scored
from tunesmith.errors import DataError
from tunesmith.evaluate import stats
from tunesmith.evaluate.stats import Settings
from tunesmith.scoring import TASKS, Scores, Task, score
from tunesmith.scoring.pooled import Columns, whole

QUICK = Settings(resamples=300, permutations=199)
NAMES = ["ann", "bob", "cy"]


def spans(num: int = 60, right: float = 0.7, seed: int = 0) -> tuple[list[str], list[str]]:
    """(references, answers): one to three spans a row, each found with probability `right`."""
    rng = np.random.default_rng(seed)
    references, answers = [], []
    for _ in range(num):
        row = [[10 * i, 10 * i + 4, NAMES[rng.integers(3)]] for i in range(rng.integers(1, 4))]
        references.append(json.dumps(row))
        answers.append(json.dumps([s if rng.random() < right else [s[0], s[1], "ann"] for s in row]))
    return references, answers


def micro_f1(references: list[str], answers: list[str]) -> float:
    pairs = [({*map(tuple, json.loads(x))} for x in pair) for pair in zip(references, answers, strict=True)]
    hits = total = 0
    for wanted, got in pairs:
        hits, total = hits + len(wanted & got), total + len(wanted) + len(got)
    return 2 * hits / total


def test_the_interval_of_micro_f1_is_that_of_resampled_rows() -> None:
    references, answers = spans()
    found = stats.interval(score("spans", references, answers, NAMES), "span_f1", Settings(4000))
    rng = np.random.default_rng(9)
    drawn = []
    for _ in range(1000):
        rows = rng.integers(0, 60, 60)
        drawn.append(micro_f1([references[i] for i in rows], [answers[i] for i in rows]))
    assert found is not None
    assert found.value == pytest.approx(micro_f1(references, answers))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.012)
    assert found.method == "bootstrap"


def test_the_interval_of_a_difference_is_paired() -> None:
    references, base = spans(right=0.5)
    _, tuned = spans(right=0.5, seed=0)
    tuned = [references[i] if i % 6 == 0 else a for i, a in enumerate(tuned)]
    a, b = (score("spans", references, x, NAMES) for x in (base, tuned))
    result = stats.difference(a, b, "span_f1", Settings(4000))
    assert result is not None
    rng = np.random.default_rng(9)
    drawn = []
    for _ in range(1000):
        rows = rng.integers(0, 60, 60)
        one, two = ([x[i] for i in rows] for x in (base, tuned))
        of = [references[i] for i in rows]
        drawn.append(micro_f1(of, two) - micro_f1(of, one))
    wanted = tuple(np.quantile(drawn, [0.025, 0.975]))
    assert (result[0].low, result[0].high) == pytest.approx(wanted, abs=0.012)
    alone = stats.interval(b, "span_f1", Settings(4000))
    assert alone is not None
    assert result[0].high - result[0].low < alone.high - alone.low


@pytest.mark.parametrize("seed", range(8))
def test_the_swap_test_is_enumeration(seed: int) -> None:
    references, base = (x + x[-1:] * 4 for x in spans(8, right=0.3, seed=seed))  # equal rows are merged
    base = [json.dumps(json.loads(b)[i % 3 :]) for i, b in enumerate(base)]  # so that lengths differ too
    base[8:] = base[7:8] * 4
    tuned = [r if i % 2 else "[]" for i, r in enumerate(references[:6])] + base[6:]
    a, b = (score("spans", references, x, NAMES) for x in (base, tuned))
    observed = abs(micro_f1(references, tuned) - micro_f1(references, base))
    extreme = []
    for bits in itertools.product([False, True], repeat=6):
        swap = [*bits, *[False] * 6]
        one = [t if s else x for s, x, t in zip(swap, base, tuned, strict=True)]
        two = [x if s else t for s, x, t in zip(swap, base, tuned, strict=True)]
        extreme.append(abs(micro_f1(references, two) - micro_f1(references, one)) >= observed - 1e-12)
    found = stats.swap_test(a.pooled["span_f1"], b.pooled["span_f1"])
    assert found.p == pytest.approx(np.mean(extreme))
    assert "exact" in found.name


def test_the_swap_test_of_means_is_the_sign_flip_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 40))

    def mean(reference: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ rows[:, 0] / weights.sum(axis=1))

    pooled = [Columns(np.empty((40, 0)), x[:, None], mean) for x in (a, b)]
    assert stats.swap_test(*pooled, QUICK) == stats.sign_flip(b - a, QUICK)
    interval, same = stats.pooled_interval(pooled[0], QUICK), stats.mean_interval(a, QUICK)
    assert (interval.low, interval.high) == pytest.approx((same.low, same.high))


def test_chunks_do_not_change_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    references, base = spans()
    _, tuned = spans(right=0.8, seed=1)
    scores = [score("spans", references, x, NAMES) for x in (base, tuned)]
    whole_at_once = stats.difference(*scores, "span_f1", QUICK)
    monkeypatch.setattr(stats, "_CHUNK", 1000)
    assert stats.difference(*scores, "span_f1", QUICK) == whole_at_once


def test_bleu_and_chrf_have_intervals_in_their_own_unit() -> None:
    references = [f"the parcel number {i} left the house on day {i % 7}" for i in range(40)]
    answers = [r if i % 3 else r.replace("parcel", "letter") for i, r in enumerate(references)]
    scores = score("text", references, answers)
    for name in ("bleu", "chrf"):
        found = stats.interval(scores, name, QUICK)
        assert found is not None
        assert 50 < found.low < found.value < found.high < 100


def test_the_interval_of_an_error_is_that_of_its_rows() -> None:
    rng = np.random.default_rng(0)
    wanted, got = rng.normal(0, 9, (2, 80))
    scores = score("number", [*map(str, wanted)], [*map(str, got)])
    found = stats.interval(scores, "mae", Settings(4000))
    assert found is not None
    theirs = scipy_stats.bootstrap(
        (np.abs(wanted - got),), np.mean, n_resamples=4000, method="percentile", random_state=1
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=0.04)


@pytest.mark.parametrize("task", TASKS)
def test_every_compared_metric_gets_an_interval_and_a_test(task: Task) -> None:
    base, tuned = scored(task), scored(task, perfect=True)
    for name in filter(base.metrics.__contains__, TASKS[task].compared):
        result = stats.difference(base, tuned, name, QUICK)
        assert result is not None
        found, test = result
        assert found.low <= found.value <= found.high
        assert 0 < test.p <= 1
        for scores in (base, tuned):
            one = stats.interval(scores, name, QUICK)
            assert one is not None
            assert one.low <= one.value <= one.high
            assert one.value == pytest.approx(scores.metrics[name])


@pytest.mark.parametrize("task", TASKS)
def test_the_same_answers_are_no_difference(task: Task) -> None:
    scores = scored(task)
    for name in filter(scores.metrics.__contains__, TASKS[task].compared):
        result = stats.difference(scores, scores, name, QUICK)
        assert result is not None
        found, test = result
        assert found.low < found.value == 0 < found.high
        assert test.p == 1


def test_rows_that_agree_leave_an_error_unbounded() -> None:
    exact = score("number", ["1", "2", "3"], ["1", "2", "3"])
    found = stats.interval(exact, "mae", QUICK)
    assert found == stats.Interval(0.0, 0.0, math.inf, 3, stats.UNKNOWN)
    worse = score("number", ["1", "2", "3"], ["2", "3", "4"])
    result = stats.difference(exact, worse, "mae", QUICK)
    assert result is not None
    assert (result[0].low, result[0].high) == (-math.inf, math.inf)


def test_a_macro_f1_that_all_rows_agree_on_keeps_a_width() -> None:
    references = ["a", "b"] * 10
    wrong, right = (score("label", references, x, ["a", "b"]) for x in (["?"] * 20, references))
    result = stats.difference(wrong, right, "macro_f1", QUICK)
    assert result is not None
    assert 0.5 < result[0].low < result[0].value == 1


def test_constant_answers_keep_their_correlation_of_nothing() -> None:
    constant = score("number", ["1", "2", "4"], ["2", "2", "2"])
    found = stats.interval(constant, "spearman", QUICK)
    assert found is not None
    assert (found.low, found.value, found.high) == (0, 0, 0)


def test_samples_that_leave_a_metric_undefined_do_not_count() -> None:
    shares = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    scores = score("label", ["a", "a", "a", "b"], ["a"] * 4, ["a", "b"], probabilities=shares)
    found = stats.interval(scores, "auroc", QUICK)  # a third of the samples lack the one row of b
    assert found is not None
    assert found.value == 1
    assert 0.4 < found.low < 1

    def never(reference: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.full(len(weights), np.nan)

    unknown = stats.pooled_interval(Columns(np.empty((3, 0)), np.ones((3, 1)), never), QUICK)
    assert (unknown.low, unknown.high) == (0, 1)


def test_probabilities_have_intervals() -> None:
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 3, 90)
    logits = rng.normal(size=(90, 3)) + 2 * np.eye(3)[reference]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = ["x", "y", "z"]
    answers = [names[i] for i in shares.argmax(axis=1)]
    scores: Scores = score("label", [names[i] for i in reference], answers, names, probabilities=shares)
    for name in ("auroc", "auprc", "ece", "brier", "nll"):
        found = stats.interval(scores, name, QUICK)
        assert found is not None, name
        assert found.low <= scores.metrics[name] <= found.high, name
        assert found.value == pytest.approx(scores.metrics[name])


def test_other_rows_are_refused() -> None:
    references, answers = ROWS["spans"]
    one = score("spans", references, answers, ["a", "b"])
    two = score("spans", references[::-1], answers, ["a", "b"])
    with pytest.raises(DataError, match="other rows"):
        stats.difference(one, two, "span_f1", QUICK)
    assert whole(one.pooled["span_f1"]) == one.metrics["span_f1"]
