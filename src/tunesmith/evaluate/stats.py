"""Intervals and tests on test rows. Seeded and vectorised.

A metric is a mean of row scores, or it is `Pooled`: a function of all rows together. Both are resampled by
`bootstrap` and permuted by `_permute`; a mean needs less to be stored. Everything here treats rows as the
unit that was sampled: an interval says how far a number would move had other rows of the same kind been
drawn. It says nothing about another training seed or another kind of data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.scoring import Pooled, Scores, metric, table

Floats = NDArray[np.float64]
Statistic = Callable[[NDArray[Any], Floats], Floats]
"""(distinct rows (U, K), how often each counts (B, U)) -> (B,) values."""

EXACT_ROWS = 12
"""Up to this many rows that differ, permutation tests enumerate all 2^n assignments."""

SHARE = (0.0, 1.0)
"""The range of most metrics."""

UNKNOWN = "unbounded: all rows agree"
"""How an interval of rows that all agree is named where the metric has no finite range."""

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
    Samples that leave the statistic undefined (NaN) do not count; where all do, the interval is unbounded.
    """
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    rng = np.random.default_rng(settings.seed)
    size = max(1, _CHUNK // len(kinds))
    drawn = [
        statistic(kinds, rng.multinomial(len(rows), counts / len(rows), size=n).astype(np.float64))
        for n in _chunks(settings.resamples, size)
    ]
    values = np.concatenate(drawn)
    values = values[~np.isnan(values)]
    if not len(values):
        return -math.inf, math.inf
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    from scipy.stats import norm

    z2 = float(norm.ppf((1 + confidence) / 2)) ** 2
    p = successes / n
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(
    values: Floats, settings: Settings = DEFAULT, limits: tuple[float, float] = SHARE
) -> Interval:
    """The mean of row scores (N,) within `limits`, with its interval; NaN rows do not count.

    Where all rows agree the bootstrap would give an interval of no width; then Wilson's.
    """
    values = _counted(values)
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return _agreeing(mean, len(values), limits, settings)
    return Interval(mean, *bootstrap(values[:, None], _mean, settings), len(values), "bootstrap")


def mean_difference(
    base: Floats, tuned: Floats, settings: Settings = DEFAULT, limits: tuple[float, float] = SHARE
) -> Interval:
    """Mean of tuned - base over paired rows within `limits`, with its interval; rows NaN on a side do not
    count.

    Where every row differs by the same d the bootstrap degenerates: see `_agreeing_difference`.
    """
    _same_length(base, tuned)
    differences = _counted(tuned - base)
    n, mean = len(differences), float(differences.mean())
    if np.ptp(differences) == 0:
        return _agreeing_difference(mean, n, limits, settings)
    return Interval(mean, *bootstrap(differences[:, None], _mean, settings), n, "paired bootstrap")


def pooled_interval(
    pooled: Pooled, settings: Settings = DEFAULT, limits: tuple[float, float] = SHARE
) -> Interval:
    """A metric of all rows together, recomputed on resampled rows. Where no sample moves it from an end of
    `limits`: Wilson's (elsewhere it stands still by definition, as the correlation of answers that are all
    the same)."""
    reference, predicted = table(pooled.reference), table(pooled.predicted)
    known = reference.shape[1]

    def statistic(rows: NDArray[Any], weights: Floats) -> Floats:
        return pooled.value(rows[:, :known], rows[:, known:], weights)

    rows = np.hstack([reference, predicted])
    n, value = len(rows), float(statistic(rows, np.ones((1, len(rows))))[0])
    low, high = bootstrap(rows, statistic, settings)
    if low == high and value in limits:
        return _agreeing(value, n, limits, settings)
    return Interval(value, max(low, limits[0]), min(high, limits[1]), n, "bootstrap")


def pooled_difference(
    base: Pooled, tuned: Pooled, settings: Settings = DEFAULT, limits: tuple[float, float] = SHARE
) -> Interval:
    """A metric of all rows together, tuned - base on the same rows, with its interval. Where no sample moves
    it: see `_agreeing_difference`."""
    _same_rows(base, tuned)
    reference, before, after = table(base.reference), table(base.predicted), table(tuned.predicted)
    known, ours = reference.shape[1], reference.shape[1] + before.shape[1]

    def change(rows: NDArray[Any], weights: Floats) -> Floats:
        told = rows[:, :known]
        return tuned.value(told, rows[:, ours:], weights) - base.value(told, rows[:, known:ours], weights)

    rows = np.hstack([reference, before, after])
    n, value = len(rows), float(change(rows, np.ones((1, len(rows))))[0])
    low, high = bootstrap(rows, change, settings)
    if low == high:
        return _agreeing_difference(value, n, limits, settings)
    return Interval(value, low, high, n, "paired bootstrap")


macro_f1_interval = pooled_interval
"""Macro-F1 from class numbers (`Codes`) is one of these."""


def perplexity_interval(nll: Floats, tokens: NDArray[np.int64], settings: Settings = DEFAULT) -> Interval:
    """Perplexity with its interval. nll: (N,) summed nats of each row; tokens: (N,) how many it has."""
    rows = _token_rows(nll, tokens)
    value = float(ratio_of_sums(rows, np.ones((1, len(rows))))[0])
    low, high = bootstrap(rows, ratio_of_sums, settings) if len(rows) > 1 else (-math.inf, math.inf)
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
        return np.asarray(
            np.exp(ratio_of_sums(rows[:, [2, 1]], weights)) - np.exp(ratio_of_sums(rows, weights))
        )

    value = float(change(rows, np.ones((1, len(rows))))[0])
    low, high = bootstrap(rows, change, settings) if len(rows) > 1 else (-math.inf, math.inf)
    found = Interval(value, low, high, len(rows), "paired bootstrap")
    return found, sign_flip(rows[:, 2] - rows[:, 0], settings)


def mcnemar(base: NDArray[Any], tuned: NDArray[Any]) -> Test:
    """Exact McNemar test (McNemar 1947) on paired right/wrong rows: of the rows on which the systems differ,
    each is as likely to favour the one as the other. No such row: p = 1."""
    from scipy.stats import binomtest

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


def swap_test(base: Pooled, tuned: Pooled, settings: Settings = DEFAULT) -> Test:
    """Paired permutation test of an equal metric of all rows together (approximate randomisation, Yeh 2000):
    which of the two answers of a row is whose is arbitrary. Exact or Monte Carlo as `sign_flip`."""
    _same_rows(base, tuned)
    reference, before, after = table(base.reference), table(base.predicted), table(tuned.predicted)
    differ = (before != after).any(axis=1)
    known, num = reference.shape[1], int(differ.sum())
    shared, counts = np.unique(np.hstack([reference, before])[~differ], axis=0, return_counts=True)
    told = np.vstack([shared[:, :known], reference[differ], reference[differ]])
    answers = np.vstack([shared[:, known:], before[differ], after[differ]])

    def gap(swap: Floats) -> Floats:
        fixed = np.broadcast_to(counts.astype(np.float64), (len(swap), len(counts)))
        ours = base.value(told, answers, np.hstack([fixed, 1 - swap, swap]))
        return np.asarray(np.abs(tuned.value(told, answers, np.hstack([fixed, swap, 1 - swap])) - ours))

    observed = float(gap(np.zeros((1, num)))[0])
    tolerance = 1e-9 * (1 + observed)
    return _permute(num, settings, lambda swap: gap(swap) >= observed - tolerance, width=len(told))


def interval(scores: Scores, name: str, settings: Settings = DEFAULT) -> Interval | None:
    """The interval of one metric of a system; None for a metric that has neither row scores nor a pooled form
    (the precision and recall averages of single labels: descriptive only)."""
    limits = metric(name).range
    if name in scores.pooled:
        return pooled_interval(scores.pooled[name], settings, limits)
    return mean_interval(scores.per_row[name], settings, limits) if name in scores.per_row else None


def difference(
    base: Scores, tuned: Scores, name: str, settings: Settings = DEFAULT
) -> tuple[Interval, Test] | None:
    """Difference tuned - base of one metric with its interval and test, by the kind of metric: McNemar for
    right/wrong rows, sign flips for graded rows, swapped answers for pooled metrics. None as in `interval`,
    or where one of the systems lacks the metric."""
    limits = metric(name).range
    if name in base.pooled and name in tuned.pooled:
        a, b = base.pooled[name], tuned.pooled[name]
        return pooled_difference(a, b, settings, limits), swap_test(a, b, settings)
    if name not in base.per_row or name not in tuned.per_row:
        return None
    before, after = base.per_row[name], tuned.per_row[name]
    found = mean_difference(before, after, settings, limits)
    keep = ~np.isnan(after - before)
    before, after = before[keep], after[keep]
    binary = bool(np.isin(np.concatenate([before, after]), (0.0, 1.0)).all())
    return found, mcnemar(before, after) if binary else sign_flip(after - before, settings)


def _agreeing(value: float, n: int, limits: tuple[float, float], settings: Settings) -> Interval:
    """Where all rows agree: Wilson's interval of that share of `limits`; without finite limits, the limits
    themselves."""
    low, high = limits
    width = high - low
    if not math.isfinite(width):
        return Interval(value, low, high, n, UNKNOWN)
    bounds = wilson(n * (value - low) / width, n, settings.confidence)
    return Interval(value, low + width * bounds[0], low + width * bounds[1], n, "Wilson")


def _agreeing_difference(value: float, n: int, limits: tuple[float, float], settings: Settings) -> Interval:
    """Where every row differs by the same d, as a share of the width of `limits`: with u Wilson's bound on
    the share of rows that could have differed otherwise (0 seen among n), the mean lies within u (1 + |d|) of
    d. Without finite limits nothing bounds it."""
    width = limits[1] - limits[0]
    if not math.isfinite(width):
        return Interval(value, -math.inf, math.inf, n, UNKNOWN)
    reach = wilson(0, n, settings.confidence)[1] * (width + abs(value))
    return Interval(value, max(-width, value - reach), min(width, value + reach), n, "Wilson")


def _permute(
    num_rows: int, settings: Settings, as_extreme: Callable[[Floats], NDArray[np.bool_]], width: int = 0
) -> Test:
    """Runs a swap test. as_extreme: swaps (M, num_rows) of 0 and 1 -> (M,) which are at least as extreme.
    width: how many numbers it makes of each swap, if more than num_rows."""
    if num_rows <= EXACT_ROWS:
        bits = np.arange(2**num_rows)[:, None] >> np.arange(num_rows)
        return Test(float(as_extreme((bits & 1).astype(np.float64)).mean()), "paired permutation, exact")
    rng = np.random.default_rng(settings.seed)
    hits = 0
    for n in _chunks(settings.permutations, max(1, _CHUNK // max(num_rows, width))):
        hits += int(as_extreme(rng.integers(0, 2, (n, num_rows)).astype(np.float64)).sum())
    p = (hits + 1) / (settings.permutations + 1)
    return Test(p, f"paired permutation, {settings.permutations} draws")


def _chunks(total: int, size: int) -> Iterator[int]:
    for start in range(0, total, size):
        yield min(size, total - start)


def _mean(rows: NDArray[Any], weights: Floats) -> Floats:
    return np.asarray(weights @ rows[:, 0] / weights.sum(axis=1))


def ratio_of_sums(rows: NDArray[Any], weights: Floats) -> Floats:
    """Sum of the first column / sum of the second: a mean over what the second counts."""
    return np.asarray((weights @ rows[:, 0]) / (weights @ rows[:, 1]))


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


def _same_rows(a: Pooled, b: Pooled) -> None:
    if not (np.array_equal(a.reference, b.reference) and a.classes == b.classes):
        raise DataError("two systems scored on other rows or classes", "both on the same rows and labels")
