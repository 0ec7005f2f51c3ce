"""Intervals and tests on test rows. Seeded and vectorised.

Everything here treats rows as the unit that was sampled: an interval says how far a number would move had
other rows of the same kind been drawn. It says nothing about another training seed or another kind of data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from tunesmith.errors import DataError
from tunesmith.scoring import Codes, Scores
from tunesmith.scoring.labels import weighted_macro_f1

Floats = NDArray[np.float64]
Statistic = Callable[[NDArray[Any], Floats], Floats]
"""(distinct rows (U, K), how often each counts (B, U)) -> (B,) values."""

EXACT_ROWS = 12
"""Up to this many rows that differ, permutation tests enumerate all 2^n assignments."""

_CHUNK = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """value with its interval [low, high], from n rows; `method` names how it was found."""

    value: float
    low: float
    high: float
    n: int
    method: str


@dataclass(frozen=True, slots=True)
class Test:
    """A two-sided p-value and the name of its test."""

    __test__ = False  # a result, not something for pytest to collect

    p: float
    name: str


@dataclass(frozen=True, slots=True)
class Settings:
    """How intervals and tests are computed; from `evaluate.bootstrap`, `evaluate.confidence` and `seed`."""

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0
    permutations: int = 9999


DEFAULT = Settings()


def bootstrap(rows: NDArray[Any], statistic: Statistic, settings: Settings = DEFAULT) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13) of any statistic of rows (N, K).

    Equal rows are merged: drawing N rows with replacement is one multinomial draw over the distinct rows, so
    a thousand right/wrong rows cost as much as two. Both systems' columns in `rows` make it a paired one.
    """
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    rng = np.random.default_rng(settings.seed)
    size = max(1, _CHUNK // len(kinds))
    drawn = [
        statistic(kinds, rng.multinomial(len(rows), counts / len(rows), size=n).astype(np.float64))
        for n in _chunks(settings.resamples, size)
    ]
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return float(low), float(high)


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    z2 = float(norm.ppf((1 + confidence) / 2)) ** 2
    p = successes / n
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(values: Floats, settings: Settings = DEFAULT) -> Interval:
    """The mean of row scores (N,) in [0, 1] with its interval; NaN rows do not count.

    Where all rows agree the bootstrap would give an interval of no width; then Wilson's.
    """
    values = _counted(values)
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return Interval(mean, *wilson(values.sum(), len(values), settings.confidence), len(values), "Wilson")
    return Interval(mean, *bootstrap(values[:, None], _mean, settings), len(values), "bootstrap")


def mean_difference(base: Floats, tuned: Floats, settings: Settings = DEFAULT) -> Interval:
    """Mean of tuned - base over paired rows in [0, 1], with its interval; rows NaN on a side do not count.

    Where every row differs by the same d the bootstrap degenerates. With u Wilson's bound on the share of
    rows that could have differed otherwise (0 seen among n), the mean lies within u (1 + |d|) of d.
    """
    _same_length(base, tuned)
    differences = _counted(tuned - base)
    n, mean = len(differences), float(differences.mean())
    if np.ptp(differences) == 0:
        reach = wilson(0, n, settings.confidence)[1] * (1 + abs(mean))
        return Interval(mean, max(-1.0, mean - reach), min(1.0, mean + reach), n, "Wilson")
    return Interval(mean, *bootstrap(differences[:, None], _mean, settings), n, "paired bootstrap")


def macro_f1_interval(codes: Codes, settings: Settings = DEFAULT) -> Interval:
    """Macro-F1 with its interval, recomputed on resampled rows. All rows right or wrong: Wilson's."""
    right = codes.reference == codes.predicted
    if right.all() or not right.any():
        bounds = wilson(float(right.sum()), len(right), settings.confidence)
        return Interval(float(right[0]), *bounds, len(right), "Wilson")
    rows = np.stack([codes.reference, codes.predicted], axis=1)
    statistic = _macro_f1(len(codes.classes))
    value = float(statistic(rows, np.ones((1, len(rows))))[0])
    return Interval(value, *bootstrap(rows, statistic, settings), len(rows), "bootstrap")


def macro_f1_difference(base: Codes, tuned: Codes, settings: Settings = DEFAULT) -> Interval:
    """Macro-F1 of tuned - base on the same rows, with its interval. Where both give the same answers:
    as `mean_difference`, the share of rows that could have differed bounds the difference."""
    _same_rows(base, tuned)
    n = len(base.reference)
    if np.array_equal(base.predicted, tuned.predicted):
        reach = wilson(0, n, settings.confidence)[1]
        return Interval(0.0, -reach, reach, n, "Wilson")
    one = _macro_f1(len(base.classes))

    def difference(rows: NDArray[Any], weights: Floats) -> Floats:
        return one(rows[:, [0, 2]], weights) - one(rows[:, [0, 1]], weights)

    rows = np.stack([base.reference, base.predicted, tuned.predicted], axis=1)
    value = float(difference(rows, np.ones((1, n)))[0])
    return Interval(value, *bootstrap(rows, difference, settings), n, "paired bootstrap")


def perplexity_interval(nll: Floats, tokens: NDArray[np.int64], settings: Settings = DEFAULT) -> Interval:
    """Perplexity with its interval. nll: (N,) summed nats of each row; tokens: (N,) how many it has."""
    rows = _token_rows(nll, tokens)
    value = float(_rate(rows, np.ones((1, len(rows))))[0])
    low, high = bootstrap(rows, _rate, settings) if len(rows) > 1 else (-math.inf, math.inf)
    return Interval(_exp(value), _exp(low), _exp(high), len(rows), "bootstrap")


def perplexity_ratio(
    before: Floats, after: Floats, tokens: NDArray[np.int64], settings: Settings = DEFAULT
) -> Interval:
    """Perplexity after / before on the same rows, with its interval: exp of the change of the mean loss."""
    _same_length(before, after)
    return perplexity_interval(after - before, tokens, settings)


def perplexity_difference(
    base: Floats, tuned: Floats, tokens: NDArray[np.int64], settings: Settings = DEFAULT
) -> tuple[Interval, Test]:
    """Perplexity of tuned - base on the same rows with its interval; tested on the difference of losses."""
    _same_length(base, tuned)
    rows = np.concatenate([_token_rows(base, tokens), _token_rows(tuned, tokens)[:, :1]], axis=1)

    def change(rows: NDArray[Any], weights: Floats) -> Floats:
        return np.asarray(np.exp(_rate(rows[:, [2, 1]], weights)) - np.exp(_rate(rows, weights)))

    value = float(change(rows, np.ones((1, len(rows))))[0])
    low, high = bootstrap(rows, change, settings) if len(rows) > 1 else (-math.inf, math.inf)
    found = Interval(value, low, high, len(rows), "paired bootstrap")
    return found, sign_flip(rows[:, 2] - rows[:, 0], settings)


def mcnemar(base: NDArray[Any], tuned: NDArray[Any]) -> Test:
    """Exact McNemar test (McNemar 1947) on paired right/wrong rows: of the rows on which the systems differ,
    each is as likely to favour the one as the other. No such row: p = 1."""
    _same_length(base, tuned)
    gained = int((~base.astype(bool) & tuned.astype(bool)).sum())
    lost = int((base.astype(bool) & ~tuned.astype(bool)).sum())
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Test(p, "McNemar, exact")


def sign_flip(differences: Floats, settings: Settings = DEFAULT) -> Test:
    """Paired permutation test of a mean difference of zero: the sign of each row's difference is arbitrary.

    Exact over all 2^n signs when at most 12 rows differ, else Monte Carlo with p = (b + 1) / (m + 1)
    (Phipson & Smyth 2010). Rows without a difference change nothing and are left out.
    """
    differences = _counted(differences)
    differences = differences[differences != 0]
    observed = abs(differences.sum())
    return _permute(
        len(differences),
        settings,
        lambda swap: np.abs(differences.sum() - 2 * (swap @ differences)) >= observed - 1e-9 * (1 + observed),
    )


def swap_test(base: Codes, tuned: Codes, settings: Settings = DEFAULT) -> Test:
    """Paired permutation test of equal macro-F1 (approximate randomisation, Yeh 2000): which of the two
    answers of a row is whose is arbitrary. Exact or Monte Carlo as `sign_flip`."""
    _same_rows(base, tuned)
    classes = np.arange(len(base.classes))
    right, ours, theirs = (x[:, None] == classes for x in (base.reference, base.predicted, tuned.predicted))
    support = right.sum(axis=0)
    counts = [np.stack([right & x, x]).astype(np.float64) for x in (ours, theirs)]  # (2, N, L): hits, named
    totals = [c.sum(axis=1)[:, None] for c in counts]  # (2, 1, L)
    differ = base.predicted != tuned.predicted
    change = (counts[1] - counts[0])[
        :, differ
    ]  # what a swapped row brings to the one and takes from the other

    def macro_f1(hits_and_named: Floats) -> Floats:
        hits, named = hits_and_named[..., support > 0]
        return np.asarray((2 * hits / (support[support > 0] + named)).mean(axis=1))

    def difference(swap: Floats) -> Floats:
        moved = swap @ change  # (2, M, L)
        return np.abs(macro_f1(totals[1] - moved) - macro_f1(totals[0] + moved))

    observed = float(difference(np.zeros((1, int(differ.sum()))))[0])
    return _permute(int(differ.sum()), settings, lambda swap: difference(swap) >= observed - 1e-9)


def interval(scores: Scores, name: str, settings: Settings = DEFAULT) -> Interval | None:
    """The interval of one metric of a system, by the kind of metric; None for a metric that has neither row
    scores nor class numbers (the precision and recall averages: descriptive only)."""
    if name in scores.codes:
        return macro_f1_interval(scores.codes[name], settings)
    return mean_interval(scores.per_row[name], settings) if name in scores.per_row else None


def difference(
    base: Scores, tuned: Scores, name: str, settings: Settings = DEFAULT
) -> tuple[Interval, Test] | None:
    """Difference tuned - base of one metric with its interval and test, by the kind of metric: McNemar for
    right/wrong rows, sign flips for graded rows, swapped answers for macro-F1. None as in `interval`, or
    where one of the systems lacks the metric."""
    if name in base.codes and name in tuned.codes:
        a, b = base.codes[name], tuned.codes[name]
        return macro_f1_difference(a, b, settings), swap_test(a, b, settings)
    if name not in base.per_row or name not in tuned.per_row:
        return None
    before, after = base.per_row[name], tuned.per_row[name]
    found = mean_difference(before, after, settings)
    keep = ~np.isnan(after - before)
    before, after = before[keep], after[keep]
    binary = bool(np.isin(np.concatenate([before, after]), (0.0, 1.0)).all())
    return found, mcnemar(before, after) if binary else sign_flip(after - before, settings)


def _permute(num_rows: int, settings: Settings, as_extreme: Callable[[Floats], NDArray[np.bool_]]) -> Test:
    """Runs a swap test. as_extreme: swaps (M, num_rows) of 0 and 1 -> (M,) which are at least as extreme."""
    if num_rows <= EXACT_ROWS:
        bits = np.arange(2**num_rows)[:, None] >> np.arange(num_rows)
        return Test(float(as_extreme((bits & 1).astype(np.float64)).mean()), "paired permutation, exact")
    rng = np.random.default_rng(settings.seed)
    hits = 0
    for n in _chunks(settings.permutations, max(1, _CHUNK // num_rows)):
        hits += int(as_extreme(rng.integers(0, 2, (n, num_rows)).astype(np.float64)).sum())
    p = (hits + 1) / (settings.permutations + 1)
    return Test(p, f"paired permutation, {settings.permutations} draws")


def _chunks(total: int, size: int) -> Iterator[int]:
    for start in range(0, total, size):
        yield min(size, total - start)


def _mean(rows: NDArray[Any], weights: Floats) -> Floats:
    return np.asarray(weights @ rows[:, 0] / weights.sum(axis=1))


def _rate(rows: NDArray[Any], weights: Floats) -> Floats:
    return np.asarray((weights @ rows[:, 0]) / (weights @ rows[:, 1]))


def _macro_f1(num_classes: int) -> Statistic:
    return lambda rows, weights: weighted_macro_f1(rows[:, 0], rows[:, 1], weights, num_classes)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _counted(values: Floats) -> Floats:
    values = values[~np.isnan(values)]
    if not len(values):
        raise DataError("no row counts for this metric", "at least one row with a score")
    return values


def _token_rows(nll: Floats, tokens: NDArray[np.int64]) -> Floats:
    _same_length(nll, tokens)
    rows = np.stack([nll, tokens], axis=1).astype(np.float64)[tokens > 0]
    if not len(rows):
        raise DataError("no row has a token to predict", "at least one row with a supervised token")
    return rows


def _same_length(a: NDArray[Any], b: NDArray[Any]) -> None:
    if len(a) != len(b):
        raise DataError(f"{len(a)} and {len(b)} rows", "both systems on the same rows")


def _same_rows(a: Codes, b: Codes) -> None:
    if not (np.array_equal(a.reference, b.reference) and a.classes == b.classes):
        raise DataError("two systems scored on other rows or classes", "both on the same rows and labels")
