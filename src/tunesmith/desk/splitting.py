"""Train, validation and test made of rows, with those that belong together on one side, and a check that says so.

Rows belong together when their prompts are equal, when the prompts are alike (MinHash), and when a column says so
(the same customer). What belongs together is a group; groups, never rows, are dealt out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.desk import Split as SplitConfig
from tunesmith.desk.alike import Sketches, key_of
from tunesmith.desk.dedup import said
from tunesmith.desk.rows import Row, Split
from tunesmith.desk.steps import Moving, Seen
from tunesmith.errors import DataError

PERMUTATIONS = 128
FULL = 1e9
"""A side that has its rows comes after every one that lacks some; one that is to have none never comes."""


@dataclass(frozen=True)
class Splitting:
    """Looks at what ties rows together, and deals them out."""

    config: SplitConfig
    seed: int
    name: str = "split"

    @property
    def sketches(self) -> Sketches | None:
        near = self.config.near
        return None if near is None or near == 1 else Sketches(near, PERMUTATIONS)

    def look(self, rows: Sequence[Row]) -> NDArray[Any]:
        """Of each row 8 bytes each of prompt, group and label, its time, and a sketch."""
        keys = b"".join(
            key_of(said(row, "prompt"))[:8] + key_of([self._group(row)])[:8] + key_of([_label(row)])[:8]
            for row in rows
        )
        times = np.array([self._time(row) for row in rows], "<f8").view(np.uint8).reshape(len(rows), 8)
        parts = [np.frombuffer(keys, np.uint8).reshape(len(rows), 24), times]
        if self.sketches is not None:
            parts.append(self.sketches.of(["\n".join(said(row, "prompt")) for row in rows]))
        return np.concatenate(parts, 1)

    def decide(self, seen: Seen) -> Moving:
        keys = np.ascontiguousarray(seen.looks[:, :24]).view("<u8")
        times = np.ascontiguousarray(seen.looks[:, 24:32]).view("<f8")[:, 0]
        groups = self._groups(seen, keys)
        labels = keys[:, 2] if self.config.stratify else np.zeros(len(keys), np.uint64)
        dealt = self._by_time(times, groups) if self.config.time else self._at_random(groups, labels)
        check_sides(groups, dealt)
        for name, share in (("validation", self.config.validation), ("test", self.config.test)):
            if (share or self.config.folds) and (dealt == name).sum() < 2:
                raise DataError(
                    f"the {name} split has {(dealt == name).sum()} of {len(dealt)} rows",
                    "at least 2 rows",
                    f"raise split.{name}, or split.near; groups that belong together are never divided",
                )
        return Moving(self.name, dict(zip(seen.numbers.tolist(), dealt.tolist(), strict=True)))

    def _group(self, row: Row) -> str:
        column = self.config.group
        if column is None:
            return str(row.number)
        value = row.values.get(column)
        if value in (None, ""):
            raise DataError(
                f"{row.ref}: field '{column}': nothing in it",
                "the group of every row (split.group)",
                "fill it in",
            )
        return str(value)

    def _time(self, row: Row) -> float:
        return 0.0 if self.config.time is None else time_of(row, self.config.time)

    def _groups(self, seen: Seen, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(N,) the group of each row, as the place of its first row."""
        joined = Joined(len(keys))
        for column in (0, 1):
            order = np.argsort(keys[:, column], kind="stable")
            same = np.flatnonzero(keys[order][1:, column] == keys[order][:-1, column])
            for at in same:
                joined.join(int(order[at]), int(order[at + 1]))
        if self.sketches is not None:
            for pairs, _ in self.sketches.pairs(seen.looks[:, 32:]):
                for a, b in pairs.tolist():
                    joined.join(a, b)
        return np.array([joined.first(i) for i in range(len(keys))])

    def _at_random(self, groups: NDArray[np.int64], labels: NDArray[np.uint64]) -> NDArray[Any]:
        """Groups in random order, each to the side that lacks most rows of the group's labels."""
        folds = self.config.folds
        names: list[Any] = ["train", "validation", "test"] if folds is None else list(range(folds))
        rest = 1 - self.config.validation - self.config.test
        shares = [rest, self.config.validation, self.config.test] if folds is None else [1 / folds] * folds
        members: dict[int, list[int]] = defaultdict(list)
        for place, group in enumerate(groups.tolist()):
            members[group].append(place)
        order = np.random.default_rng(self.seed).permutation(sorted(members))
        totals = Counter(labels.tolist())
        lacking = {label: np.array(shares) * n for label, n in totals.items()}
        overall = np.array(shares) * len(groups)
        never = np.where(overall > 0, 0.0, -np.inf)
        dealt = np.empty(len(groups), object)
        for group in sorted(order.tolist(), key=lambda g: -len(members[g])):
            wanted = Counter(labels[members[group]].tolist())
            need = sum(lacking[label] * n for label, n in wanted.items()) / len(members[group])
            # Of sides that lack alike, the one that lacks most of its rows at all.
            side = int(np.argmax(need + never - FULL * (overall <= -1e-9) + 1e-6 * overall))
            dealt[members[group]] = names[side]
            for label, n in wanted.items():
                lacking[label][side] -= n
            overall[side] -= len(members[group])
        return dealt if folds is None else _folded(dealt, self.config.fold or 0, folds)

    def _by_time(self, times: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[Any]:
        """The last rows are test, those before them validation; a group goes where its last row is."""
        last = np.full(len(groups), -np.inf)
        np.maximum.at(last, groups, times)
        of_group = last[groups]
        order = np.lexsort((groups, of_group))
        dealt = np.full(len(groups), "train", object)
        ends = np.cumsum([1 - self.config.validation - self.config.test, self.config.validation]) * len(
            groups
        )
        place = np.empty(len(groups), np.int64)
        place[order] = np.arange(len(groups))
        firsts = np.full(len(groups), len(groups))
        np.minimum.at(firsts, groups, place)
        start = firsts[groups]
        dealt[start >= ends[0]] = "validation"
        dealt[start >= ends[1]] = "test"
        return dealt


def _folded(dealt: NDArray[Any], fold: int, folds: int) -> NDArray[Any]:
    out = np.full(len(dealt), "train", object)
    out[dealt == (fold + 1) % folds] = "validation"
    out[dealt == fold] = "test"
    return out


def check_sides(groups: NDArray[np.int64], dealt: NDArray[Any]) -> None:
    """Raises AssertionError where a group stands on two sides: no split with a leak is ever written."""
    sides: dict[int, Split] = {}
    for group, side in zip(groups.tolist(), dealt.tolist(), strict=True):
        if sides.setdefault(group, side) != side:
            raise AssertionError(f"rows that belong together stand in {sides[group]} and in {side}")


def time_of(row: Row, column: str) -> float:
    """Seconds, or whatever unit numbers have. Raises DataError where there is no time."""
    from datetime import UTC, datetime

    value = row.values.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        found = datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise DataError(
            f"{row.ref}: field '{column}': {str(value)[:40]!r} is no time",
            "ISO 8601 (2026-03-01, 2026-03-01T09:30:00+01:00) or a number (split.time)",
            "correct the column",
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _label(row: Row) -> str:
    return "\x1f".join(sorted(text.text for text in row.texts if text.part == "label"))


class Joined:
    """Which of n things hang together (union-find; the first of a set speaks for it)."""

    def __init__(self, count: int) -> None:
        self._up = list(range(count))

    def first(self, one: int) -> int:
        while self._up[one] != one:
            self._up[one] = self._up[self._up[one]]
            one = self._up[one]
        return one

    def join(self, one: int, other: int) -> None:
        a, b = self.first(one), self.first(other)
        self._up[max(a, b)] = min(a, b)
