"""Completions that people scored: does a system put them in the same order, and does it go by their length?

A system answers a row with a JSON list of K numbers, one for each completion, higher is better: rewards, or
log-probabilities. Rows of several completions are judged within each row, each row counting alike; rows of one
completion (ratings, verdicts) against one another. Rows whose answer is no such list count as wrong in what measures
agreement; what measures the numbers themselves (calibration, length) knows nothing of them.

Shapes: N rows, C completions in all, P pairs of completions of one row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.scoring import probabilities as p
from tunesmith.scoring.concordance import concordance
from tunesmith.scoring.json_answers import parse_json
from tunesmith.scoring.numbers import LARGEST, parse_numbers, pearson, spearman
from tunesmith.scoring.pooled import Array, Columns, Floats, Pooled, whole
from tunesmith.scoring.scores import LengthBin, Scores, means
from tunesmith.types import Example

LENGTH_BINS = 8
"""Groups of as many pairs each, by how much longer the longer completion is."""

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def reference_of(example: Example) -> str:
    """What the people said of a row: the JSON list of [score, characters] of its completions."""
    return json.dumps([[float(c.score), len(c.message.content)] for c in example.completions])


def score_judged(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Scores:
    """references: as `reference_of` says. predictions: JSON lists of as many numbers. `labels` play no part.

    Raises DataError for references that are none, for rows of one completion among rows of several, and where no two
    completions that could be compared have unequal scores.
    """
    judged = _read(references, predictions)
    sizes = np.unique(judged.sizes)
    if sizes[0] == 1 and sizes[-1] > 1:
        row = int(np.flatnonzero(judged.sizes == 1)[0])
        raise DataError(
            f"row {row} has one completion and other rows have several",
            "rows of one completion each, or of at least two each",
            "put them in files of their own: the one kind is compared with other rows, the other within its row",
        )
    found = _across(judged) if sizes[-1] == 1 else _within(judged)
    found.per_row["valid_scores"] = judged.valid.astype(np.float64)
    found.metrics["valid_scores"] = float(judged.valid.mean())
    return found


@dataclass(frozen=True, slots=True)
class _Judged:
    """People's scores, lengths and the system's scores, all (C,), row after row. first: (N,) where each row begins;
    sizes: (N,) its K; valid: (N,) whether the system gave K numbers (else its scores are 0)."""

    people: Floats
    lengths: Floats
    system: Floats
    first: Ints
    sizes: Ints
    valid: Bools
    answers: tuple[str | None, ...]

    @property
    def row(self) -> Ints:
        """(C,) the row of each completion."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def _read(references: Sequence[str], predictions: Sequence[str]) -> _Judged:
    wanted = [_reference(row, text) for row, text in enumerate(references)]
    said = [parse_numbers(text) for text in predictions]
    found = [s if s is not None and len(s) == len(w) else None for s, w in zip(said, wanted, strict=True)]
    sizes = np.array([len(w) for w in wanted])
    people, lengths = np.array([pair for w in wanted for pair in w], np.float64).T
    return _Judged(
        people=people,
        lengths=lengths,
        system=np.array([x for s, k in zip(found, sizes, strict=True) for x in s or (0.0,) * k]),
        first=np.cumsum(sizes) - sizes,
        sizes=sizes,
        valid=np.array([s is not None for s in found]),
        answers=tuple(None if s is None else json.dumps(list(s)) for s in found),
    )


def _reference(row: int, text: str) -> list[list[float]]:
    value = parse_json(text)
    if isinstance(value, list) and value and all(_is_judgement(pair) for pair in value):
        return value
    raise DataError(f"reference of row {row} is '{text}'", "a JSON list of [score, characters], at least one")


def _is_judgement(pair: object) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(x) in (int, float) and abs(x) <= LARGEST for x in pair)
    )


def _across(judged: _Judged) -> Scores:
    """Rows of one completion: each against every other row."""
    from scipy.stats import rankdata

    people, system, lengths, valid = judged.people, judged.system, judged.lengths, judged.valid
    agreement = concordance(people, system, valid)
    if not agreement.pairs.any():
        raise _all_alike()
    got = system.copy()
    low, high = (system[valid].min(), system[valid].max()) if valid.any() else (0.0, 0.0)
    far = people - people.min() > people.max() - people
    got[~valid] = np.where(far, low, high)[~valid]
    pooled: dict[str, Pooled] = {
        "pair_accuracy": agreement.pooled(),
        "spearman": Columns(people, rankdata(got), spearman),  # ranks: systems may swap answers in any unit
        "pearson": Columns(people, got, pearson),
    }
    if valid.any() and np.ptp(lengths[valid]) > 0:
        pooled["prefers_longer"] = concordance(lengths[valid], system[valid]).pooled()
        pooled["people_prefer_longer"] = concordance(lengths, people).pooled()
        pooled["length_correlation"] = Columns(lengths[valid], system[valid], spearman)
    metrics = {name: whole(columns) for name, columns in pooled.items()}
    rows = {"pair_accuracy_by_row": agreement.by_row()}  # tells rows apart; no metric, see Concordance.pooled
    return Scores("judged", metrics, rows, pooled, answers=judged.answers)


def _within(judged: _Judged) -> Scores:
    """Rows of several completions: each against those of its row."""
    pairs = _Pairs.of(judged)
    if not pairs.counts(pairs.apart).any():
        raise _all_alike()
    shorter, longer = pairs.apart & (pairs.longer < 0), pairs.apart & (pairs.longer > 0)
    valid = judged.valid[pairs.row]
    unequal = pairs.longer != 0
    preferred = np.where(pairs.longer > 0, pairs.won(pairs.gap), 1 - pairs.won(pairs.gap))
    people = np.where(pairs.longer > 0, pairs.won(pairs.better), 1 - pairs.won(pairs.better))
    right = np.where(valid, pairs.won(pairs.gap), 0.0)
    rows = {
        "pair_accuracy": pairs.mean(right, pairs.apart),
        "best_of_k": _best_of_k(judged),
        "kendall_tau": _kendall_tau(judged, pairs),
        "ndcg": _ndcg(judged),
        "pair_nll": pairs.mean(np.logaddexp(0.0, -pairs.gap), pairs.apart & valid),
        "prefers_longer": pairs.mean(preferred, unequal & valid),
        "people_prefer_longer": pairs.mean(people, unequal),
        "pair_accuracy_shorter": pairs.mean(right, shorter),
        "pair_accuracy_longer": pairs.mean(right, longer),
    }
    if judged.sizes.max() < 3:
        del rows["kendall_tau"], rows["ndcg"]
    rows = {name: values for name, values in rows.items() if not np.isnan(values).all()}
    pooled: dict[str, Pooled] = {}
    calibration = None
    sure = pairs.apart & valid
    if sure.any():
        confidence, correct = _confidence(pairs.gap[sure])
        pooled["pair_ece"] = calibration_error(confidence, correct, pairs.row[sure], len(judged.sizes))
        calibration = p.Calibration(
            p.reliability(confidence, correct),
            tuple(p.abstention(confidence, correct, threshold) for threshold in p.THRESHOLDS),
        )
    if (unequal & valid).any():
        pooled["length_correlation"] = _length_correlation(pairs, valid)
    metrics = means(rows) | {name: whole(columns) for name, columns in pooled.items()}
    lengths = _by_length(pairs.longer, preferred, people, unequal & valid)
    return Scores(
        "judged", metrics, rows, pooled, answers=judged.answers, calibration=calibration, lengths=lengths
    )


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The P pairs of completions of one row, the one that people prefer first (of equals the earlier).

    row: (P,). better: people's score of the first less that of the second, never negative; gap: the same of the
    system; longer: the same of their characters; num_rows: N.
    """

    row: Ints
    better: Floats
    gap: Floats
    longer: Floats
    num_rows: int

    @classmethod
    def of(cls, judged: _Judged) -> _Pairs:
        rows, firsts, seconds = [], [], []
        for size in np.unique(judged.sizes):
            of_size = np.flatnonzero(judged.sizes == size)
            a, b = np.triu_indices(int(size), 1)
            rows.append(np.repeat(of_size, len(a)))
            firsts.append((judged.first[of_size][:, None] + a).reshape(-1))
            seconds.append((judged.first[of_size][:, None] + b).reshape(-1))
        row, first, second = (np.concatenate(found) for found in (rows, firsts, seconds))
        turned = judged.people[first] < judged.people[second]
        first, second = np.where(turned, second, first), np.where(turned, first, second)
        better, gap, longer = (x[first] - x[second] for x in (judged.people, judged.system, judged.lengths))
        return cls(row, better, gap, longer, len(judged.sizes))

    @property
    def apart(self) -> Bools:
        """(P,) people's scores are unequal."""
        return np.asarray(self.better > 0)

    @staticmethod
    def won(difference: Floats) -> Floats:
        """(P,) 1 where the first has the higher number, one half where they are equal."""
        return np.asarray((np.sign(difference) + 1) / 2)

    def counts(self, which: Bools) -> Floats:
        """(N,) how many of each row's pairs are among `which`."""
        return np.bincount(self.row[which], minlength=self.num_rows).astype(np.float64)

    def sums(self, values: Floats, which: Bools) -> Floats:
        """(N,)"""
        return np.asarray(np.bincount(self.row[which], values[which], self.num_rows), np.float64)

    def mean(self, values: Floats, which: Bools) -> Floats:
        """(N,) the mean over those of each row's pairs that are among `which`; NaN where none is."""
        count = self.counts(which)
        out = np.full(self.num_rows, np.nan)
        np.divide(self.sums(values, which), count, out=out, where=count > 0)
        return out


def _all_alike() -> DataError:
    return DataError(
        "no two completions that could be compared have unequal scores",
        "people who preferred one to another in at least one row",
    )


def _extreme(judged: _Judged, reduce: Callable[..., Floats], values: Floats) -> Floats:
    """(C,) the greatest or least of each completion's row."""
    return np.repeat(reduce(values, judged.first), judged.sizes)


def _best_of_k(judged: _Judged) -> Floats:
    """(N,) whether what the system puts highest is what people put highest; NaN where they put all alike."""
    people = judged.people
    top = people == _extreme(judged, np.maximum.reduceat, people)
    named = judged.system == _extreme(judged, np.maximum.reduceat, judged.system)
    share = np.add.reduceat((top & named).astype(np.float64), judged.first) / np.add.reduceat(
        named.astype(np.float64), judged.first
    )
    share[~judged.valid] = 0.0
    share[np.logical_and.reduceat(top, judged.first)] = np.nan
    return share


def _kendall_tau(judged: _Judged, pairs: _Pairs) -> Floats:
    """(N,) Kendall's tau-b; -1 for an answer that is none, 0 for one of equal numbers; NaN where people's are equal."""
    all_pairs = np.ones(len(pairs.row), bool)
    people = pairs.counts(pairs.apart)
    spread = np.sqrt(people * pairs.counts(pairs.gap != 0))
    out: Floats = np.divide(
        pairs.sums(np.sign(pairs.gap) * pairs.apart, all_pairs),
        spread,
        out=np.zeros(pairs.num_rows),
        where=spread > 0,
    )
    out[~judged.valid] = -1.0
    out[people == 0] = np.nan
    return out


def _ndcg(judged: _Judged) -> Floats:
    """(N,) normalised discounted cumulative gain of the whole row: gain 2^grade - 1, where the grade counts how many
    different scores of people lie below, discount log2(1 + position); completions of equal numbers share their
    positions. An answer that is none counts as the reverse of people's order; NaN where they put all alike."""
    out = np.full(len(judged.sizes), np.nan)
    for size in np.unique(judged.sizes):
        of_size = np.flatnonzero(judged.sizes == size)
        at = judged.first[of_size][:, None] + np.arange(size)
        people = judged.people[at]
        system = np.where(judged.valid[of_size][:, None], judged.system[at], -people)
        gain = _gains(people)
        discount = 1 / np.log2(np.arange(size) + 2)
        ideal = np.sort(gain, axis=1)[:, ::-1] @ discount
        order = np.argsort(-system, axis=1, kind="stable")
        gain, system = np.take_along_axis(gain, order, 1), np.take_along_axis(system, order, 1)
        group = (np.diff(system, axis=1, prepend=np.inf) != 0).reshape(
            -1
        ).cumsum() - 1  # rows begin with a new group
        shared = np.bincount(group, gain.reshape(-1)) / np.bincount(group)
        found = shared[group].reshape(gain.shape) @ discount
        out[of_size] = np.divide(found, ideal, out=np.full(len(ideal), np.nan), where=ideal > 0)
    return out


def _gains(people: Floats) -> Floats:
    """(n, K): 2^grade - 1, divided by 2 to the highest grade of the row so that long rows do not overflow."""
    order = np.argsort(people, axis=1, kind="stable")
    ranked = np.take_along_axis(people, order, 1)
    steps = (np.diff(ranked, axis=1, prepend=ranked[:, :1]) != 0).cumsum(axis=1)
    grade = np.empty_like(steps)
    np.put_along_axis(grade, order, steps, 1)
    top = grade.max(axis=1, keepdims=True).astype(np.float64)
    return np.asarray(np.exp2(grade - top) - np.exp2(-top))


def _confidence(gap: Floats) -> tuple[Floats, Floats]:
    """Of pairs: the probability that sigmoid(gap) gives to the completion the system prefers, and whether people
    prefer it too; half right where it prefers neither."""
    return 1 / (1 + np.exp(-np.abs(gap))), _Pairs.won(gap)


def calibration_error(confidence: Floats, right: Floats, row: Ints, num_rows: int) -> Columns:
    """Calibration error over all pairs, of rows that are drawn with all of their pairs: by bin the sum of accuracy less
    confidence of a row's pairs, and last how many these are."""
    of_bin = p.bin_of(confidence, p.NUM_BINS)
    sums = np.bincount(row * p.NUM_BINS + of_bin, right - confidence, num_rows * p.NUM_BINS)
    count = np.bincount(row, minlength=num_rows).astype(np.float64)
    columns = np.column_stack([sums.reshape(num_rows, p.NUM_BINS), count])

    def value(reference: Array, predicted: Array, weights: Floats) -> Floats:
        return _ratio(np.abs(weights @ predicted[:, :-1]).sum(axis=1), weights @ predicted[:, -1])

    return Columns(np.empty((num_rows, 0)), columns, value)


def _length_correlation(pairs: _Pairs, valid: Bools) -> Columns:
    """Spearman's correlation of differences of score and of length over pairs, each pair taken both ways round: so it
    does not hang on which of the two comes first, and the mean rank is the middle one. Ranks are those of all rows,
    also in a sample of them. 0 where either side is constant."""
    scores, lengths = _middle_ranks(pairs.gap[valid]), _middle_ranks(pairs.longer[valid])
    row = pairs.row[valid]
    products = (scores * lengths, scores**2, lengths**2)
    columns = np.column_stack([np.bincount(row, values, pairs.num_rows) for values in products])

    def value(reference: Array, predicted: Array, weights: Floats) -> Floats:
        shared, a, b = (weights @ predicted).T
        return np.clip(_ratio(shared, np.sqrt(a * b)), -1.0, 1.0)

    return Columns(np.empty((pairs.num_rows, 0)), columns, value)


def _middle_ranks(differences: Floats) -> Floats:
    """Ranks about the middle one among the differences and their negatives."""
    from scipy.stats import rankdata  # a second to load, which most commands have no use for

    both = rankdata(np.concatenate([differences, -differences]))
    return np.asarray(both[: len(differences)] - (len(both) + 1) / 2)


def _ratio(above: Floats, below: Floats) -> Floats:
    """0 / 0 is 0."""
    out: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return out


def _by_length(longer: Floats, preferred: Floats, people: Floats, which: Bools) -> tuple[LengthBin, ...]:
    """Pairs of unequal length in groups of as many, from those of the least difference to those of the greatest; pairs
    of equal difference stay together."""
    difference, preferred, people = np.abs(longer[which]), preferred[which], people[which]
    if not len(difference):
        return ()
    edges = np.unique(np.quantile(difference, np.linspace(0, 1, LENGTH_BINS + 1)[1:-1]))
    group = np.searchsorted(edges, difference)
    return tuple(
        LengthBin(
            characters=float(np.median(difference[group == i])),
            prefers_longer=float(preferred[group == i].mean()),
            people_prefer_longer=float(people[group == i].mean()),
            count=int((group == i).sum()),
        )
        for i in np.unique(group)
    )
