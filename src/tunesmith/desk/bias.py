"""Groups of people in rows: how many there are of each, and how their labels differ, with intervals.

A gap is the share of a label in one group less its share among rows of the other groups, with Newcombe's interval of a
difference of proportions (1998, method 10: of two Wilson intervals). All gaps of an audit are looked at together, so
each interval is widened until, were there no difference at all, one of them would leave out 0 as seldom as asked for.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from tunesmith.desk.terms import NONE, SEVERAL
from tunesmith.evaluate.stats import wilson

LEAST = 5
"""Rows of a group below which nothing is said of its labels."""
MOST_LABELS = 200
"""Labels up to which rates are compared; with more, answers are no classes."""


@dataclass(frozen=True)
class Share:
    """count of n, and the interval of the share."""

    count: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, n: int, confidence: float) -> Share:
        return cls(count, n, *wilson(count, n, confidence))

    @property
    def value(self) -> float:
        return self.count / self.n

    def as_dict(self) -> dict[str, float]:
        return {**asdict(self), "value": self.value}


@dataclass(frozen=True)
class Gap:
    """How much more often (or seldom) a label stands in a group than in the others. found: 0 is outside. weighted: the
    same of rows that have weights, by these."""

    dimension: str
    group: str
    label: str
    inside: Share
    outside: Share
    low: float
    high: float
    weighted: float | None = None

    @property
    def value(self) -> float:
        return self.inside.value - self.outside.value

    @property
    def found(self) -> bool:
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, object]:
        return {
            "dimension": self.dimension,
            "group": self.group,
            "label": self.label,
            "gap": self.value,
            "low": self.low,
            "high": self.high,
            "found": self.found,
            "weighted": self.weighted,
            "inside": self.inside.as_dict(),
            "outside": self.outside.as_dict(),
        }


def difference(inside: Share, outside: Share, confidence: float) -> tuple[float, float]:
    """Newcombe's interval of inside - outside."""
    (l1, u1), (l2, u2) = (wilson(one.count, one.n, confidence) for one in (inside, outside))
    p1, p2 = inside.value, outside.value
    return p1 - p2 - math.hypot(p1 - l1, u2 - p2), p1 - p2 + math.hypot(u1 - p1, p2 - l2)


def representation(groups: Sequence[str], confidence: float) -> dict[str, Share]:
    """Of each group its share of all rows, the largest first."""
    return {group: Share.of(n, len(groups), confidence) for group, n in Counter(groups).most_common()}


def rates(groups: Sequence[str], labels: Sequence[str], confidence: float) -> dict[str, dict[str, Share]]:
    """group -> label -> its share of the group's rows."""
    counts, sizes = Counter(zip(groups, labels, strict=True)), Counter(groups)
    out: dict[str, dict[str, Share]] = {}
    for (group, label), n in sorted(counts.items()):
        out.setdefault(group, {})[label] = Share.of(n, sizes[group], confidence)
    return out


def gaps(
    by_dimension: Mapping[str, Sequence[str]],
    labels: Sequence[str],
    confidence: float,
    weights: Sequence[float] | None = None,
) -> list[Gap]:
    """by_dimension: dimension -> (N,) group of each row. labels (N,). weights (N,) of rows that have them; counts and
    intervals are of the rows. The largest first."""
    pairs = []
    for dimension, groups in by_dimension.items():
        counts, sizes = Counter(zip(groups, labels, strict=True)), Counter(groups)
        heavy = _Weights.summed(groups, labels, weights)
        people = [group for group in sizes if group not in (NONE, SEVERAL)]
        for group in people:
            others = [other for other in people if other != group] or [
                other for other in sizes if other != group
            ]
            outside = sum(sizes[other] for other in others)
            if sizes[group] < LEAST or outside < LEAST:
                continue
            for label in sorted(set(labels)):
                own, beyond = counts[group, label], sum(counts[other, label] for other in others)
                if own or beyond:
                    weighted = None if heavy is None else heavy.gap(group, others, label)
                    pairs.append((dimension, group, label, (own, sizes[group]), (beyond, outside), weighted))
    each = 1 - (1 - confidence) / max(len(pairs), 1)
    found = []
    for dimension, group, label, (count, n), (beyond, outside), weighted in pairs:
        inside, others_share = Share.of(count, n, confidence), Share.of(beyond, outside, confidence)
        interval = difference(inside, others_share, each)
        found.append(Gap(dimension, group, label, inside, others_share, *interval, weighted))
    return sorted(found, key=lambda gap: (not gap.found, -abs(gap.value)))


@dataclass(frozen=True)
class _Weights:
    """What the rows of each group and label weigh together."""

    of: Mapping[tuple[str, str], float]

    @classmethod
    def summed(
        cls, groups: Sequence[str], labels: Sequence[str], weights: Sequence[float] | None
    ) -> _Weights | None:
        if weights is None:
            return None
        found: defaultdict[tuple[str, str], float] = defaultdict(float)
        for cell, weight in zip(zip(groups, labels, strict=True), weights, strict=True):
            found[cell] += weight
        return cls(found)

    def share(self, groups: Collection[str], label: str) -> float:
        """Of the label in what these groups weigh; 0 where they weigh nothing."""
        whole = sum(weight for (group, _), weight in self.of.items() if group in groups)
        return sum(self.of.get((group, label), 0.0) for group in groups) / whole if whole else 0.0

    def gap(self, group: str, others: Collection[str], label: str) -> float:
        return self.share([group], label) - self.share(others, label)
