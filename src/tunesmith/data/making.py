"""Examples -> token rows of bounded length, in this process or in several: what becomes of each is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.account import Account
from tunesmith.data.backend import BATCH
from tunesmith.data.flat import FlatRows, Unkept, files_of, flat_rows, joined
from tunesmith.data.shares import Made, Sharing, shared_out
from tunesmith.errors import ConfigError, RowError
from tunesmith.types import Example, TokenRow

OnLongRow = Literal["drop", "cut"]
MIN_LENGTH = 3  # a begin token, a token of the prompt, a token of the answer
COUNTS = "counts"
"""(E,) rows of each example, beside the arrays of the rows."""

Make = Callable[[Sequence[Example]], Sequence[list[TokenRow] | RowError]]
Fit = Callable[[Example, list[TokenRow], Counter[str]], list[TokenRow]]
Fault = tuple[str, str, bool]
"""Why an example has no row: reason, message, and whether it is itself at fault."""
Targets = Callable[[Sequence[Example]], NDArray[np.int64]]


@dataclass(frozen=True)
class Making:
    """How examples become rows of at most `max_length` tokens, counted by `size`.

    make: renders them. fit: of an example's rows those that fit; counts what it had to cut. counted: what `make`
    counts, which the account calls `note`. targets: (E,) the only number of each row's target, where it is known only
    after the splits.
    """

    make: Make
    fit: Fit
    size: Callable[[TokenRow], int]
    max_length: int
    counted: Callable[[], int] = int
    note: str = ""
    targets: Targets | None = None

    def __post_init__(self) -> None:
        if self.max_length < MIN_LENGTH:
            raise ConfigError(f"data.max_length = {self.max_length}", f"at least {MIN_LENGTH} tokens")

    def made(
        self, examples: Sequence[Example]
    ) -> Iterator[tuple[list[TokenRow], Fault | None, Counter[str]]]:
        """Of each example its rows or why it has none, and what was done to them."""
        for example, found in _in_batches(examples, self.make):
            notes: Counter[str] = Counter()
            if isinstance(found, RowError):
                yield [], (found.reason, found.got, True), notes
                continue
            fitting = self.fit(example, found, notes)
            if fitting:
                yield fitting, None, notes
            else:
                longest = max(map(self.size, found))
                got = f"{longest:,} tokens; at most {self.max_length:,}"
                yield [], ("too_long", got, False), notes


def counted_rows(
    examples: Sequence[Example], making: Making, account: Account, sharing: Sharing
) -> tuple[Sequence[TokenRow], NDArray[np.int64]]:
    """The rows, and (E,) how many there are of each example."""
    before = making.counted()
    shared = _shared(examples, making, account, sharing) if sharing.pays(len(examples)) else None
    if shared is not None:
        return shared
    rows: list[TokenRow] = []
    counts = []
    for example, (fitting, fault, notes) in zip(examples, making.made(examples), strict=True):
        _withdraw(account, example, fault)
        account.notes.update(notes)
        rows += fitting
        counts.append(len(fitting))
    if making.note:
        account.notes[making.note] += making.counted() - before
    return rows, np.array(counts, np.int64)


def _withdraw(account: Account, example: Example, fault: Fault | None) -> None:
    if fault is not None:
        reason, message, bad = fault
        account.withdraw(example.ref, reason, message, bad=bad)


def _shared(
    examples: Sequence[Example], making: Making, account: Account, sharing: Sharing
) -> tuple[Sequence[TokenRow], NDArray[np.int64]] | None:
    """As `counted_rows`, by several processes; None where flat arrays cannot hold the rows."""
    files = {file: number for number, file in enumerate(files_of(examples))}

    def work(part: range) -> Made:
        notes: Counter[str] = Counter()
        before = making.counted()
        rows: list[TokenRow] = []
        counts, faults = [], []
        made = making.made(examples[part.start : part.stop])
        for index, (fitting, fault, said) in zip(part, made, strict=True):
            rows += fitting
            counts.append(len(fitting))
            notes.update(said)
            if fault is not None:
                faults.append((index, fault))
        arrays = flat_rows(rows, files) | {COUNTS: np.array(counts, np.int64)}
        return arrays, [faults, notes, making.counted() - before]

    try:
        parts = shared_out(len(examples), work, sharing)
    except Unkept:
        return None
    for _, (faults, notes, _) in parts:
        for index, fault in faults:
            _withdraw(account, examples[index], fault)
        account.notes.update(notes)
    if making.note:
        account.notes[making.note] += sum(grown for _, (_, _, grown) in parts)
    arrays = joined([arrays for arrays, _ in parts])
    counts = arrays.pop(COUNTS)
    return FlatRows(arrays, list(files)), counts


def alone(rows: Sequence[TokenRow | RowError]) -> list[list[TokenRow] | RowError]:
    """What `accounted` takes, of examples that become one row each."""
    return [row if isinstance(row, RowError) else [row] for row in rows]


def _in_batches(
    examples: Sequence[Example], make: Make
) -> Iterator[tuple[Example, list[TokenRow] | RowError]]:
    for start in range(0, len(examples), BATCH):
        batch = examples[start : start + BATCH]
        yield from zip(batch, make(batch), strict=True)
