"""Agreement with people, against a loop over all pairs, scipy and scikit-learn."""

from __future__ import annotations

import itertools
import json
import math
import time

import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.metrics import ndcg_score, roc_auc_score

from tunesmith.errors import DataError
from tunesmith.evaluate.stats import Settings, difference, interval
from tunesmith.scoring import METRICS, Scores, flips, goodness, score, whole
from tunesmith.scoring.concordance import concordance
from tunesmith.scoring.judged import reference_of
from tunesmith.types import Completion, Example, Message, RowRef

Row = list[tuple[float, int, float]]
"""Of each completion: people's score, characters, the system's score."""


def rows_of(seed: int, sizes: tuple[int, ...] = (2, 3, 5), num_rows: int = 40) -> list[Row]:
    """Few different numbers, so that there are ties of every kind, also rows that are all alike."""
    rng = np.random.default_rng(seed)
    return [
        [
            (float(rng.integers(4)), int(rng.integers(10, 14)), float(rng.integers(-2, 3)) / 2)
            for _ in range(rng.choice(sizes))
        ]
        for _ in range(num_rows)
    ]


def texts(rows: list[Row]) -> tuple[list[str], list[str]]:
    said = [json.dumps([system for *_, system in row]) for row in rows]
    return [json.dumps([[people, chars] for people, chars, _ in row]) for row in rows], said


def scored(rows: list[Row]) -> Scores:
    return score("judged", *texts(rows))


def half(difference: float) -> float:
    return 0.5 if difference == 0 else float(difference > 0)


def by_pairs(row: Row) -> dict[str, float]:
    """The metrics of one row from the loop over its pairs; NaN where no pair counts."""
    found: dict[str, list[float]] = {
        name: [] for name in ("right", "nll", "longer", "people", "short", "long")
    }
    for (h1, l1, s1), (h2, l2, s2) in itertools.permutations(row, 2):
        if l1 > l2:
            found["longer"].append(half(s1 - s2))
            found["people"].append(half(h1 - h2))
        if h1 > h2:
            found["right"].append(half(s1 - s2))
            found["nll"].append(-math.log(1 / (1 + math.exp(s2 - s1))))
            if l1 != l2:
                found["short" if l1 < l2 else "long"].append(half(s1 - s2))
    return {name: float(np.mean(values)) if values else math.nan for name, values in found.items()}


@pytest.mark.parametrize("seed", range(4))
def test_pairs_of_a_row_by_a_loop_over_them(seed: int) -> None:
    rows = rows_of(seed)
    found = scored(rows)
    wanted = [by_pairs(row) for row in rows]
    for name, key in {
        "pair_accuracy": "right",
        "pair_nll": "nll",
        "prefers_longer": "longer",
        "people_prefer_longer": "people",
        "pair_accuracy_shorter": "short",
        "pair_accuracy_longer": "long",
    }.items():
        values = [row[key] for row in wanted]
        np.testing.assert_allclose(found.per_row[name], values, rtol=1e-12, err_msg=name)
        assert found.metrics[name] == pytest.approx(np.nanmean(values))


@pytest.mark.filterwarnings("ignore:.*constant")
@pytest.mark.parametrize("seed", range(4))
def test_order_of_a_row_by_scipy_and_scikit_learn(seed: int) -> None:
    rows = rows_of(seed)
    found = scored(rows)
    for i, row in enumerate(rows):
        people, _, system = map(list, zip(*row, strict=True))
        tau, best = found.per_row["kendall_tau"][i], found.per_row["best_of_k"][i]
        if len(set(people)) == 1:
            assert np.isnan([tau, best, found.per_row["ndcg"][i], found.per_row["pair_accuracy"][i]]).all()
            continue
        assert tau == pytest.approx(np.nan_to_num(kendalltau(people, system).statistic))
        named = [h for h, s in zip(people, system, strict=True) if s == max(system)]
        assert best == pytest.approx(np.mean([h == max(people) for h in named]))
        gains = [2.0 ** sorted(set(people)).index(h) - 1 for h in people]
        assert found.per_row["ndcg"][i] == pytest.approx(ndcg_score([gains], [system]))


@pytest.mark.parametrize("seed", range(4))
def test_what_pools_pairs(seed: int) -> None:
    rows = rows_of(seed)
    found = scored(rows)
    both = [(a, b) for row in rows for a, b in itertools.permutations(row, 2)]
    gaps, lengths = ([a[k] - b[k] for a, b in both] for k in (2, 1))
    assert found.metrics["length_correlation"] == pytest.approx(spearmanr(gaps, lengths).statistic)
    bins: dict[int, list[tuple[float, float]]] = {}
    for a, b in both:
        if a[0] > b[0]:
            sure = 1 / (1 + math.exp(-abs(a[2] - b[2])))
            bins.setdefault(math.ceil(sure * 15), []).append((sure, half(a[2] - b[2])))
    num = sum(map(len, bins.values()))
    ece = sum(abs(sum(r - c for c, r in pairs)) for pairs in bins.values()) / num
    assert found.metrics["pair_ece"] == pytest.approx(ece)
    assert found.calibration is not None
    assert found.calibration.ece == pytest.approx(ece)
    assert sum(b.count for b in found.calibration.bins) == num
    unequal = sum(a[1] > b[1] for a, b in both)
    assert sum(b.count for b in found.lengths) == unequal
    longer = [half(a[2] - b[2]) for a, b in both if a[1] > b[1]]
    mean = sum(b.count * b.prefers_longer for b in found.lengths) / unequal
    assert mean == pytest.approx(np.mean(longer))
    assert [b.characters for b in found.lengths] == sorted(b.characters for b in found.lengths)


def test_pairs_alone_have_no_order_of_three() -> None:
    found = score("judged", *texts(rows_of(0, (2,))))
    assert not {"kendall_tau", "ndcg", "spearman"} & found.metrics.keys()
    assert {
        "pair_accuracy",
        "best_of_k",
        "pair_nll",
        "pair_ece",
        "length_correlation",
    } <= found.metrics.keys()


def test_constant_numbers_say_nothing_of_length() -> None:
    rows = [[(1.0, 5, 0.0), (0.0, 9, 0.0)]] * 3
    found = scored(rows)
    assert found.metrics["length_correlation"] == 0
    assert (
        found.metrics["pair_accuracy"] == found.metrics["best_of_k"] == found.metrics["prefers_longer"] == 0.5
    )
    assert found.metrics["people_prefer_longer"] == found.metrics["pair_accuracy_shorter"] - 0.5 == 0
    assert "pair_accuracy_longer" not in found.metrics
    same = [[(1.0, 5, 2.0), (0.0, 5, 1.0)]] * 3
    alike = score("judged", *texts(same))
    assert not {n for n in alike.metrics if "longer" in n or "length" in n}
    assert alike.lengths == ()


@pytest.mark.parametrize("seed", range(4))
def test_single_completions_are_judged_against_other_rows(seed: int) -> None:
    rows = rows_of(seed, (1,))
    found = scored(rows)
    people, chars, system = zip(*(row[0] for row in rows), strict=True)
    both = list(itertools.permutations(zip(people, chars, system, strict=True), 2))
    right = [half(a[2] - b[2]) for a, b in both if a[0] > b[0]]
    assert found.metrics["pair_accuracy"] == pytest.approx(np.mean(right))
    for i, a in enumerate(rows):
        others = [half((a[0][2] - b[0][2]) * (a[0][0] - b[0][0])) for b in rows if b[0][0] != a[0][0]]
        assert found.per_row["pair_accuracy_by_row"][i] == pytest.approx(np.mean(others))
    assert (
        "pair_accuracy_by_row" not in found.metrics
    )  # the interval of such a mean is half as wide as it should be
    assert found.metrics["spearman"] == pytest.approx(spearmanr(people, system).statistic)
    assert found.metrics["pearson"] == pytest.approx(pearsonr(people, system).statistic)
    assert found.metrics["length_correlation"] == pytest.approx(spearmanr(chars, system).statistic)
    for name, at in {"prefers_longer": 2, "people_prefer_longer": 0}.items():
        preferred = [half(a[at] - b[at]) for a, b in both if a[1] > b[1]]
        assert found.metrics[name] == pytest.approx(np.mean(preferred))
    assert not {"pair_nll", "pair_ece", "best_of_k"} & found.metrics.keys()


def test_of_two_verdicts_it_is_auroc() -> None:
    rng = np.random.default_rng(0)
    rows: list[Row] = [[(float(rng.random() < 0.3), 7, round(float(rng.normal()), 1))] for _ in range(200)]
    found = scored(rows)
    people, _, system = zip(*(row[0] for row in rows), strict=True)
    assert found.metrics["pair_accuracy"] == pytest.approx(roc_auc_score(people, system))


def test_the_interval_of_pairs_of_rows_is_as_wide_as_that_of_recounted_samples() -> None:
    rng = np.random.default_rng(1)
    people = rng.integers(0, 3, 150).astype(float)
    system = people + rng.normal(0, 1.5, 150)
    rows: list[Row] = [[(h, 5, s)] for h, s in zip(people.tolist(), system.tolist(), strict=True)]
    found = interval(scored(rows), "pair_accuracy")
    assert found is not None
    values = []
    for _ in range(400):
        drawn = rng.integers(0, 150, 150)
        values.append(whole(concordance(people[drawn], system[drawn]).pooled()))
    low, high = np.quantile(values, [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.15)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_systems_are_compared_row_by_row_and_as_a_whole() -> None:
    for sizes in ((2, 3), (1,)):
        rows = rows_of(5, sizes, 60)
        better = [[(h, chars, h) for h, chars, _ in row] for row in rows]
        base, tuned = scored(rows), scored(better)
        found = difference(base, tuned, "pair_accuracy", Settings(200, permutations=199))
        assert found is not None
        assert found[0].value == pytest.approx(1 - base.metrics["pair_accuracy"])
        assert found[0].low > 0
        assert found[1].p < 0.05
        fixed, broken = flips(base, tuned)
        assert fixed
        assert not broken
        assert np.nanmin(goodness(tuned)) == 1
        back = difference(tuned, base, "pair_accuracy", Settings(200, permutations=199))
        assert back is not None
        assert back[1].p == pytest.approx(found[1].p, abs=0.01)


@pytest.mark.parametrize("sizes", [(2, 3), (1,)])
def test_it_does_not_matter_in_which_unit_scores_are(sizes: tuple[int, ...]) -> None:
    rows, others = rows_of(5, sizes, 60), rows_of(6, sizes, 60)
    base = scored(rows)
    tuned, scaled = (
        scored(
            [
                [(h, chars, unit * (s + other[0][2] * (j + 1)) + 7) for j, (h, chars, s) in enumerate(row)]
                for row, other in zip(rows, others, strict=True)
            ]
        )
        for unit in (1, 1000)
    )
    for name in {"pair_accuracy", "spearman", "kendall_tau"} & base.metrics.keys():
        wanted, found = (difference(base, other, name) for other in (tuned, scaled))
        assert wanted is not None
        assert wanted[1].p > 0.001
        assert found == wanted


@pytest.mark.parametrize(
    "said", ["", "first", "[1]", "[1, 2, 3]", "[1, NaN]", "[1, true]", '{"a": 1}', "[[1, 2]]"]
)
def test_an_answer_that_is_no_list_of_numbers_is_wrong(said: str) -> None:
    references = ["[[2, 5], [1, 9]]", "[[1, 5], [1, 9]]", "[[2, 9], [1, 5], [0, 1]]"]
    found = score("judged", references, [said, "[1, 2]", "[1, 2, 0]"])
    assert found.per_row["valid_scores"].tolist() == [0, 1, 1]
    assert found.answers == (None, "[1.0, 2.0]", "[1.0, 2.0, 0.0]")
    assert [found.per_row[n][0] for n in ("pair_accuracy", "best_of_k", "kendall_tau")] == [0, 0, -1]
    worst = score("judged", references, ["[1, 2]", "[1, 2]", "[1, 2, 0]"])
    assert found.per_row["ndcg"][0] == worst.per_row["ndcg"][0]
    assert math.isnan(found.per_row["pair_nll"][0])
    assert found.per_row["pair_accuracy_shorter"][0] == 0


def test_single_answers_that_are_none_are_wrong_in_all_their_pairs() -> None:
    references = ["[[5, 3]]", "[[1, 4]]", "[[3, 5]]"]
    found = score("judged", references, ["great", "[-2]", "0.5"])
    assert found.metrics["pair_accuracy"] == pytest.approx(1 / 3)
    assert found.per_row["pair_accuracy_by_row"].tolist() == [0, 0.5, 0.5]
    assert found.metrics["spearman"] == pytest.approx(spearmanr([5, 1, 3], [-2, -2, 0.5]).statistic)
    nothing = score("judged", references, ["", "", ""])
    assert nothing.metrics["pair_accuracy"] == nothing.metrics["spearman"] == 0


def test_nothing_valid_leaves_out_what_only_numbers_can_tell() -> None:
    found = score("judged", ["[[2, 5], [1, 9]]"] * 3, ["a", "b", "c"])
    assert found.metrics["pair_accuracy"] == found.metrics["valid_scores"] == 0
    assert not {"pair_nll", "pair_ece", "prefers_longer", "length_correlation"} & found.metrics.keys()
    assert found.calibration is None


def test_a_long_row_does_not_overflow() -> None:
    rows: list[Row] = [[(float(i), i, float(i)) for i in range(1100)]]
    assert scored(rows).metrics["ndcg"] == pytest.approx(1)


def test_the_order_of_completions_does_not_matter() -> None:
    rows = rows_of(7)
    turned = [row[::-1] for row in rows]
    assert scored(rows).metrics == pytest.approx(score("judged", *texts(turned)).metrics)


def test_refused() -> None:
    with pytest.raises(DataError, match="row 1 has one completion and other rows have several"):
        score("judged", ["[[1, 2], [0, 2]]", "[[1, 2]]"], ["[1, 0]", "[1]"])
    for alike in (["[[1, 2], [1, 3]]"], ["[[1, 2]]", "[[1, 3]]"]):
        with pytest.raises(DataError, match="unequal scores"):
            score("judged", alike, ["[1, 0]"] * len(alike))
    for reference in ("[]", "[1, 2]", "[[1]]", '[["a", 2]]', "[[1, NaN]]", "good"):
        with pytest.raises(DataError, match="reference of row 0"):
            score("judged", [reference], ["[1]"])


def test_references_come_from_completions() -> None:
    answers = (Completion(Message("assistant", "yes"), 1.0), Completion(Message("assistant", "no way"), -0.5))
    assert reference_of(Example(RowRef("f", 1), completions=answers)) == "[[1.0, 3], [-0.5, 6]]"


def test_a_hundred_thousand_rows_take_seconds() -> None:
    rng = np.random.default_rng(0)
    people, system = rng.normal(size=(2, 100_000))
    started = time.process_time()
    found = concordance(people, system)
    assert time.process_time() - started < 5
    assert whole(found.pooled()) == pytest.approx((kendalltau(people, system).statistic + 1) / 2)


def test_every_metric_says_what_it_is() -> None:
    for sizes in ((2, 3), (1,)):
        for name in score("judged", *texts(rows_of(0, sizes))).metrics:
            assert METRICS[name].title
