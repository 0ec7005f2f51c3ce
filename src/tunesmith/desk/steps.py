"""What a step of the desk is.

A row step is a pure function of one row: it leaves it, changes it, or drops it, and says by which of its rules. A step
that must know all rows is a `Survey`: it looks at each row by itself, and from what it saw it makes a row step. So any
chain of steps is a chain of passes over the rows, each of which runs in as many processes as there are cores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith.desk.rows import Row, Split, Values


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row. rules: those that acted, in their order; of a dropped row the last one is the reason.

    values: None where it is dropped; the row's own where it only moves. message: for a person: what was found there.
    split: where it moves to. more: rows that are added after it, by the last of the rules; they keep its number and
    place, so that only the last step of a recipe adds any.
    """

    values: Values | None
    rules: tuple[str, ...]
    message: str = ""
    split: Split | None = None
    more: tuple[Values, ...] = ()


class RowStep(Protocol):
    @property
    def name(self) -> str: ...

    def apply(self, row: Row) -> Outcome | None:
        """None: the row stays as it is."""
        ...


class Survey(Protocol):
    @property
    def name(self) -> str: ...

    def look(self, rows: Sequence[Row]) -> NDArray[Any]:
        """(n, ...) what each of these rows tells, whatever the others are; of one shape and type for all rows. A survey
        that only counts may give fewer: what it found in these rows together."""
        ...

    def decide(self, seen: Seen) -> RowStep: ...


class RunsModel:
    """A survey that runs a model looks at all rows in one process, in their order: a process that is forked has not the
    threads by which a model computes."""


Step = RowStep | Survey


@dataclass(frozen=True)
class Seen:
    """All rows that came as far as a survey, in the order of their numbers. numbers (N,), splits (N,) as places in
    SPLITS, files (N,) as places in `names`, lines (N,), looks (N, ...). Of what is no look as few bytes as it takes."""

    numbers: NDArray[np.integer[Any]]
    splits: NDArray[np.integer[Any]]
    files: NDArray[np.integer[Any]]
    lines: NDArray[np.integer[Any]]
    looks: NDArray[Any]
    names: Sequence[str]

    def place(self, at: int) -> str:
        """File and line of the row at this place."""
        return f"{self.names[self.files[at]]}:{self.lines[at]}"


def is_survey(step: Step) -> bool:
    return hasattr(step, "decide")


@dataclass(frozen=True)
class Dropping:
    """Drops the rows of a table: number -> (rule, message)."""

    name: str
    rows: dict[int, tuple[str, str]]

    def apply(self, row: Row) -> Outcome | None:
        found = self.rows.get(row.number)
        return None if found is None else Outcome(None, (found[0],), found[1])


@dataclass(frozen=True)
class Moving:
    """Puts rows into splits: number -> split."""

    name: str
    splits: dict[int, Split]

    def apply(self, row: Row) -> Outcome | None:
        split = self.splits.get(row.number, row.split)
        return None if split == row.split else Outcome(row.values, (split,), split=split)


def excerpt(texts: Iterable[str], most: int = 160) -> str:
    text = " | ".join(texts)
    return text if len(text) <= most else text[: most - 1] + "…"
