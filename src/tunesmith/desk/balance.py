"""Training rows made so that their labels do not depend on a group of people.

With n rows, n_g of a group, n_y of a label and n_gy of both, e = n_g n_y / n would be of both were they independent
(Kamiran and Calders 2012). `reweigh` gives each row the weight e / n_gy; `sample` repeats rows until all cells are in
these proportions, and drops those of cells with more than twice their share; `counterfactual` adds each row again with
its words changed to those of every other group (arXiv:1807.11714), so that all groups of people have the same labels.
Rows that speak of nobody are a group to the first two, and are left alone by the last. Only training rows are touched:
other rows measure what came of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.desk import Balance
from tunesmith.desk.conflicts import answer_of
from tunesmith.desk.rows import SPLITS, Row
from tunesmith.desk.spans import SpanLost
from tunesmith.desk.steps import Outcome, Seen
from tunesmith.desk.terms import (
    NONE,
    SEVERAL,
    Column,
    Dimension,
    Grouping,
    counterfactual,
    group_of,
    grouping_of,
)
from tunesmith.errors import ConfigError, DataError

WIDTH = 64
"""Bytes of a group or label that are told apart."""
WEIGHT = "sample_weight"
MOST = 2.0
"""Times as many rows as there are now that sampling may make."""
Cell = tuple[str, str]
Cells = Mapping[Cell, float]
"""(group, label) -> how many rows, or the sum of their weights."""


@dataclass(frozen=True)
class Balancing:
    config: Balance
    seed: int
    grouping: Grouping
    name: str = "balance"

    @classmethod
    def of(cls, config: Balance, seed: int) -> Balancing:
        grouping = grouping_of(config.group, config.lists)
        if config.how == "counterfactual" and isinstance(grouping, Column):
            raise ConfigError(
                f"balance.how=counterfactual by '{config.group}', which no word list has",
                "a dimension of word lists, whose words are exchanged",
                "name one, give balance.lists, or write balance.how=reweigh",
            )
        return cls(config, seed, grouping)

    def look(self, rows: Sequence[Row]) -> NDArray[Any]:
        """(n, 2) group and label."""
        found = [(group_of(row, self.grouping), _label(row)) for row in rows]
        return np.array([[one.encode()[:WIDTH] for one in pair] for pair in found], f"S{WIDTH}").reshape(
            -1, 2
        )

    def decide(self, seen: Seen) -> Balanced:
        train = np.flatnonzero(seen.splits == SPLITS.index("train"))
        cells = [
            (group.decode("utf-8", "ignore"), label.decode("utf-8", "ignore")) for group, label in seen.looks
        ]
        counts = Counter(cells[at] for at in train)
        if len({group for group, _ in counts}) < 2:
            raise DataError(
                f"training rows are of {len({group for group, _ in counts})} group by '{self.config.group}'",
                "at least two groups",
                "name a column, or a dimension of word lists that the rows have words of (balance.group)",
            )
        if len({label for _, label in counts}) > len(train) / 2:
            raise DataError(
                "more than half of the training rows have an answer of their own",
                "labels, which rows share",
                "balance rows with labels",
            )
        of = {int(seen.numbers[at]): cells[at] for at in train}
        if self.config.how == "counterfactual":
            assert isinstance(self.grouping, Dimension)
            after: Cells = augmented(counts, tuple(self.grouping.groups))
            return self._made(counts, after, Counterfactual(self.grouping, of))
        expected = independent(counts)
        if self.config.how == "reweigh":
            weights = {cell: expected[cell] / n for cell, n in counts.items()}
            return self._made(counts, expected, Weighing({n: weights[cell] for n, cell in of.items()}))
        times = self._times(of, expected)
        after = Counter[Cell]()
        for number, cell in of.items():
            after[cell] += times[number]
        return self._made(counts, after, Sampling(times))

    def _times(self, of: Mapping[int, Cell], expected: Cells) -> dict[int, int]:
        """How often each row stands, so that cells have the sizes that they would have, all multiplied by the factor at
        which no row needs to go, or MOST if that is less."""
        members: dict[Cell, list[int]] = {}
        for number, cell in of.items():
            members.setdefault(cell, []).append(number)
        factor = min(max(len(rows) / expected[cell] for cell, rows in members.items()), MOST)
        out: dict[int, int] = {}
        generator = np.random.default_rng(self.seed)
        for cell in sorted(members):
            whole, more = divmod(round(factor * expected[cell]), len(members[cell]))
            order = generator.permutation(members[cell]).tolist()
            out |= {number: whole + (at < more) for at, number in enumerate(order)}
        return out

    def _made(self, before: Cells, after: Cells, how: Weighing | Sampling | Counterfactual) -> Balanced:
        (was, where), now = largest_gap(before), gap_of(after, largest_gap(before)[1])
        said = f"gap of '{where[1]}' for {where[0]} {was:+.3f} before, {now:+.3f} after"
        return Balanced(f"{self.name} ({self.config.how} by {self.config.group}: {said})", how)


def independent(counts: Cells) -> dict[Cell, float]:
    """Of each cell that has rows, how many it would have."""
    total = sum(counts.values())
    groups, labels = _sums(counts, 0), _sums(counts, 1)
    return {(g, y): groups[g] * labels[y] / total for g, y in counts}


def augmented(counts: Cells, groups: Sequence[str]) -> Counter[Cell]:
    """Every row of one of the groups once for each of them."""
    out: Counter[Cell] = Counter()
    for (group, label), n in counts.items():
        for other in groups if group in groups else (group,):
            out[other, label] += int(n)
    return out


def gap_of(cells: Cells, cell: Cell) -> float:
    """Share of the label in the group less that in other groups; where there are none, among all other rows."""
    group, label = cell
    rest = {c: n for c, n in cells.items() if c[0] != group}
    others = {c: n for c, n in rest.items() if c[0] not in (NONE, SEVERAL)} or rest
    inside = sum(n for c, n in cells.items() if c[0] == group)
    outside = sum(others.values())
    if not inside or not outside:
        return 0.0
    return cells.get(cell, 0) / inside - sum(n for c, n in others.items() if c[1] == label) / outside


def largest_gap(cells: Cells) -> tuple[float, Cell]:
    """The gap that is farthest from 0, and of which group and label."""
    found = [(gap_of(cells, cell), cell) for cell in sorted(cells) if cell[0] not in (NONE, SEVERAL)]
    return max(found, key=lambda one: abs(one[0]), default=(0.0, min(cells)))


def _sums(counts: Cells, side: int) -> Counter[str]:
    out: Counter[str] = Counter()
    for cell, n in counts.items():
        out[cell[side]] += n  # type: ignore[assignment]
    return out


def _label(row: Row) -> str:
    return "\x1f".join(answer_of(row))


# What becomes of a row -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weighing:
    """weights: number -> weight."""

    weights: Mapping[int, float]

    def __call__(self, row: Row) -> Outcome | None:
        if row.number not in self.weights:
            return None
        weight = round(self.weights[row.number], 6)
        return Outcome({**row.values, WEIGHT: weight}, ("reweighed",), f"weight {weight:g}")


@dataclass(frozen=True)
class Sampling:
    """times: number -> how often the row stands."""

    times: Mapping[int, int]

    def __call__(self, row: Row) -> Outcome | None:
        times = self.times.get(row.number, 1)
        if times == 0:
            return Outcome(None, ("sampled_out",), "its group has this label too often")
        return Outcome(row.values, ("repeated",), more=(row.values,) * (times - 1)) if times > 1 else None


@dataclass(frozen=True)
class Counterfactual:
    """of: number -> group and label."""

    dimension: Dimension
    of: Mapping[int, Cell]

    def __call__(self, row: Row) -> Outcome | None:
        group = self.of.get(row.number, (NONE, ""))[0]
        if group not in self.dimension.groups:
            return None
        others = [other for other in self.dimension.groups if other != group]
        try:
            more = tuple(counterfactual(row, self.dimension, group, other) for other in others)
        except SpanLost:
            return None
        return Outcome(row.values, ("counterfactual",), f"{group} -> {', '.join(others)}", more=more)


@dataclass(frozen=True)
class Balanced:
    name: str
    how: Weighing | Sampling | Counterfactual

    def apply(self, row: Row) -> Outcome | None:
        return self.how(row)
