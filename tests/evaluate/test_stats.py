"""Intervals and tests against SciPy, against enumeration, and by simulating their coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import f1_score

from tunesmith.errors import DataError
from tunesmith.evaluate import stats
from tunesmith.evaluate.stats import Settings
from tunesmith.scoring import Codes, score

QUICK = Settings(resamples=600, permutations=999)


def codes(reference: list[int], predicted: list[int], num_classes: int = 3) -> Codes:
    return Codes(
        np.array(reference),
        np.array(predicted),
        tuple("abcdef"[:num_classes]),
        np.arange(len(reference)),
    )


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (20, 20), (7, 31), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_is_scipys(successes: int, n: int, confidence: float) -> None:
    wanted = scipy_stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert stats.wilson(successes, n, confidence) == pytest.approx((wanted.low, wanted.high))


def test_bootstrap_of_a_mean_is_scipys() -> None:
    values = np.random.default_rng(3).gamma(2, 0.2, 80)
    wanted = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", random_state=1
    ).confidence_interval
    found = stats.mean_interval(values, Settings(resamples=9999))
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=0.02)


def test_merging_equal_rows_changes_nothing_but_the_cost() -> None:
    # right/wrong rows: the resampled number of rights is binomial
    values = np.array([1.0] * 63 + [0.0] * 37)
    found = stats.mean_interval(values, Settings(resamples=20_000))
    wanted = scipy_stats.binom(100, 0.63).ppf([0.025, 0.975]) / 100
    assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=0.011)


def test_the_interval_of_a_difference_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    shared = rng.random((300, 120))  # pairs are correlated through the row's difficulty
    noise = rng.random((2, 300, 120))
    base = (0.7 * shared + 0.3 * noise[0] > 0.55).astype(float)
    tuned = (0.7 * shared + 0.3 * noise[1] > 0.40).astype(float)
    big = rng.random((3, 2_000_000))
    truth = np.mean(0.7 * big[0] + 0.3 * big[2] > 0.40) - np.mean(0.7 * big[0] + 0.3 * big[1] > 0.55)
    covered = [
        (found := stats.mean_difference(b, t, Settings(resamples=300, seed=i))).low <= truth <= found.high
        for i, (b, t) in enumerate(zip(base, tuned, strict=True))
    ]
    assert 0.90 <= np.mean(covered) <= 0.985


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(200)
    base, tuned = hard, np.clip(hard + 0.05 + 0.01 * rng.standard_normal(200), 0, 1)
    paired = stats.mean_difference(base, tuned, QUICK)
    alone = stats.mean_interval(tuned, QUICK)
    assert paired.high - paired.low < (alone.high - alone.low) / 5


def test_equal_seeds_equal_intervals() -> None:
    values = np.random.default_rng(0).random(50)
    assert stats.mean_interval(values, QUICK) == stats.mean_interval(values, QUICK)
    assert stats.mean_interval(values, QUICK) != stats.mean_interval(values, Settings(600, seed=1))


def test_where_all_rows_agree_the_interval_is_wilsons() -> None:
    found = stats.mean_interval(np.ones(30))
    assert (found.low, found.high) == stats.wilson(30, 30)
    assert found.method == "Wilson"
    same = stats.mean_difference(np.ones(30), np.ones(30))
    assert same.low < 0 < same.high
    assert stats.mean_difference(np.zeros(30), np.ones(30)).low > 0.5


def test_rows_that_do_not_count_are_left_out() -> None:
    values = np.array([1, 0, np.nan, 1, 0.0])
    assert stats.mean_interval(values).n == 4
    with pytest.raises(DataError, match="no row counts"):
        stats.mean_interval(np.array([np.nan]))


def test_macro_f1_interval_is_that_of_resampled_rows() -> None:
    rng = np.random.default_rng(5)
    reference = rng.integers(0, 3, 90)
    predicted = np.where(rng.random(90) < 0.7, reference, rng.integers(0, 4, 90))
    found = stats.macro_f1_interval(codes(reference.tolist(), predicted.tolist()), Settings(3000))
    draws = []
    for _ in range(400):
        rows = rng.integers(0, 90, 90)
        draws.append(f1_score(reference[rows], predicted[rows], labels=[0, 1, 2], average="macro"))
    wanted = np.quantile(draws, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=0.025)
    assert found.value == pytest.approx(f1_score(reference, predicted, labels=[0, 1, 2], average="macro"))


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (8, 2), (3, 3), (30, 11)])
def test_mcnemar_by_enumeration(gained: int, lost: int) -> None:
    base = np.array([0] * gained + [1] * lost + [1, 0])
    tuned = np.array([1] * gained + [0] * lost + [1, 0])
    n = gained + lost
    as_extreme = sum(math.comb(n, k) for k in range(n + 1) if abs(k - n / 2) >= abs(gained - n / 2))
    assert stats.mcnemar(base, tuned).p == pytest.approx(as_extreme / 2**n)


def test_sign_flip_is_exact_for_few_rows() -> None:
    differences = np.array([0.3, -0.1, 0.25, 0.4, 0.05, 0.0, 0.0])
    live = differences[differences != 0]
    sums = [abs(np.dot(signs, live)) for signs in itertools.product([1, -1], repeat=len(live))]
    wanted = np.mean(np.array(sums) >= abs(live.sum()) - 1e-12)
    found = stats.sign_flip(differences)
    assert found.p == pytest.approx(wanted)
    assert "exact" in found.name


def test_sign_flip_is_scipys_permutation_test() -> None:
    differences = np.random.default_rng(8).normal(0.12, 0.4, 40)
    wanted = scipy_stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=9999, random_state=0
    ).pvalue
    assert stats.sign_flip(differences).p == pytest.approx(wanted, abs=0.015)


def test_monte_carlo_p_is_never_zero() -> None:
    assert stats.sign_flip(np.ones(50), QUICK).p == pytest.approx(1 / 1000)


def test_no_difference_has_p_1() -> None:
    assert stats.sign_flip(np.zeros(9)).p == 1
    same = codes([0, 1, 2], [0, 1, 1])
    assert stats.swap_test(same, same).p == 1


@pytest.mark.parametrize("seed", range(4))
def test_swap_test_by_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 3, 16)
    a = np.where(rng.random(16) < 0.5, reference, rng.integers(0, 4, 16))  # 3 = no valid class
    b = np.where(np.arange(16) < 10, a, reference)  # only the last rows may differ

    def f1(predicted: np.ndarray) -> float:
        hits = [(2 * np.sum((reference == c) & (predicted == c))) for c in range(3)]
        return float(
            np.mean([h / (np.sum(reference == c) + np.sum(predicted == c)) for c, h in enumerate(hits)])
        )

    observed = abs(f1(b) - f1(a))
    extreme = [
        abs(f1(np.where(swap, a, b)) - f1(np.where(swap, b, a))) >= observed - 1e-12
        for bits in itertools.product([False, True], repeat=6)
        if (swap := np.array([False] * 10 + list(bits))) is not None
    ]
    found = stats.swap_test(codes(reference.tolist(), a.tolist()), codes(reference.tolist(), b.tolist()))
    assert found.p == pytest.approx(np.mean(extreme))


def test_swap_test_by_drawing() -> None:
    rng = np.random.default_rng(2)
    reference = rng.integers(0, 3, 60)
    a = np.where(rng.random(60) < 0.6, reference, rng.integers(0, 4, 60))
    b = np.where(np.arange(60) < 25, rng.integers(0, 4, 60), a)
    found = stats.swap_test(codes(reference.tolist(), a.tolist()), codes(reference.tolist(), b.tolist()))
    assert "9999 draws" in found.name

    def f1(predicted: np.ndarray) -> float:
        return float(f1_score(reference, predicted, labels=[0, 1, 2], average="macro", zero_division=0))

    observed = abs(f1(b) - f1(a))
    swaps = rng.integers(0, 2, (300, 60)).astype(bool)
    drawn = [abs(f1(np.where(s, a, b)) - f1(np.where(s, b, a))) >= observed - 1e-12 for s in swaps]
    assert found.p == pytest.approx(np.mean(drawn), abs=0.09)


def test_p_values_are_fair_when_nothing_differs() -> None:
    rng = np.random.default_rng(1)
    p = [stats.sign_flip(rng.normal(size=20), Settings(permutations=199, seed=i)).p for i in range(300)]
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.10


def test_perplexity_weighs_rows_by_tokens() -> None:
    nll, tokens = np.array([2.0, 30.0, 0.0]), np.array([1, 10, 0])
    found = stats.perplexity_interval(nll, tokens, QUICK)
    assert found.value == pytest.approx(math.exp(32 / 11))
    assert found.n == 2
    assert found.low <= found.value <= found.high


def test_perplexity_change_is_paired() -> None:
    rng = np.random.default_rng(0)
    before, tokens = rng.gamma(5, 4, 60), rng.integers(4, 30, 60)
    after = before - 0.1 * tokens
    ratio = stats.perplexity_ratio(before, after, tokens, QUICK)
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((math.exp(-0.1),) * 3)
    found, test = stats.perplexity_difference(before, after, tokens, QUICK)
    assert found.high < 0
    assert test.p < 0.01


def test_each_kind_of_metric_gets_its_own_test() -> None:
    references = ["a", "b", "a", "b", "a"]
    base, tuned = (score("label", references, p, ["a", "b"]) for p in (["a"] * 5, references))
    names = {}
    for name in ("accuracy", "macro_f1"):
        found = stats.difference(base, tuned, name, QUICK)
        assert found is not None
        names[name] = found[1].name
    assert names == {"accuracy": "McNemar, exact", "macro_f1": "paired permutation, exact"}
    assert stats.difference(base, tuned, "weighted_f1") is None
    graded = [score("text", ["a b c"] * 3, p) for p in (["a", "b", "x"], ["a b", "b", "a b c"])]
    found = stats.difference(*graded, "rouge_l", QUICK)
    assert found is not None
    assert found[1].name == "paired permutation, exact"


def test_other_rows_are_refused() -> None:
    with pytest.raises(DataError, match="other rows"):
        stats.swap_test(codes([0, 1], [0, 1]), codes([1, 1], [0, 1]))
    with pytest.raises(DataError, match="2 and 3 rows"):
        stats.mean_difference(np.ones(2), np.ones(3))
