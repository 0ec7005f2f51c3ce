"""Token rows of examples, all accounted for; some of them made while their file is still being read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.account import Account
from tunesmith.data.backend import BATCH
from tunesmith.data.flat import FlatRows, files_of, flat_rows, joined, taken
from tunesmith.data.making import COUNTS, Making, Targets, counted_rows
from tunesmith.data.shares import Beforehand, Made, Sharing, beforehand
from tunesmith.types import Example, TokenRow


def accounted(
    examples: Sequence[Example],
    making: Making,
    account: Account,
    sharing: Sharing | None = None,
    ahead: Ahead | None = None,
) -> Sequence[TokenRow]:
    """The rows of every example, all accounted for: what cannot be rendered, and what nothing is left of (it is too
    long), is withdrawn. Raises DataError when the account finds too many bad rows.

    sharing: how several processes share out many examples (None: by the machine's cores). ahead: rows that were made
    beforehand. Neither changes anything in what comes of them.
    """
    sharing = sharing or Sharing.by_cores()
    places = ahead.places(examples) if ahead is not None else None
    if ahead is None or places is None:
        rows, _ = counted_rows(examples, making, account, sharing)
    else:
        rest = list(itertools.compress(examples, places < 0))
        rows = ahead.joined(examples, places, *counted_rows(rest, making, account, sharing), making.targets)
    for file in sorted(set(files_of(examples))):
        account.check(file)
    return rows


class Ahead:
    """Rows made while their file is still being read, by cores that are idle then.

    Only those of which nobody needs to be told anything: an example that cannot be rendered, is cut or becomes a row
    for each turn is left to `accounted`, which comes when it is known which examples are used, and where.
    """

    def __init__(self, making: Making) -> None:
        self._making = making
        self._examples: Sequence[Example] = ()
        self._found: _Found | None = None
        self.started: Beforehand

    def offer(self, examples: Sequence[Example], last: bool) -> None:
        """What was read by now, of which only the end has changed; last: nothing will follow."""
        self._examples = examples
        self.started.offer(len(examples), last)

    def work(self, part: range) -> Made:
        some = self._examples[part.start : part.stop]
        rows: list[TokenRow] = []
        counts: list[int] = []
        for start in range(0, len(some), BATCH):
            before = self._making.counted()
            made = list(self._making.made(some[start : start + BATCH]))
            silent = self._making.counted() == before
            for fitting, fault, notes in made:
                clean = silent and fault is None and not notes
                counts.append(len(fitting) if clean else -1)
                rows += fitting if clean else ()
        files = list(files_of(some))
        arrays = flat_rows(rows, {file: number for number, file in enumerate(files)})
        return arrays | {COUNTS: np.array(counts, np.int64)}, files

    def places(self, examples: Sequence[Example]) -> NDArray[np.int64] | None:
        """(E,) the number of each example among those whose rows are there, -1 where they are not; None: none are."""
        if self._found is None:
            self._found = _Found.of(self.started.made(), self._examples)
        return self._found.places(examples) if len(self._found.counts) else None

    def joined(
        self,
        examples: Sequence[Example],
        places: NDArray[np.int64],
        rest: Sequence[TokenRow],
        rest_counts: NDArray[np.int64],
        targets: Targets | None,
    ) -> FlatRows:
        """The rows of all examples in their order. rest: those of the examples without a place, rest_counts of each."""
        assert self._found is not None
        files = {file: n for n, file in enumerate(dict.fromkeys([*self._found.rows.files, *files_of(rest)]))}
        arrays = joined([flat_rows(self._found.rows, files), flat_rows(rest, files)])
        here = places >= 0
        counts, starts = np.empty((2, len(examples)), np.int64)
        counts[here], starts[here] = self._found.counts[places[here]], self._found.starts[places[here]]
        counts[~here] = rest_counts
        starts[~here] = len(self._found.rows) + np.cumsum(rest_counts) - rest_counts
        begins = np.cumsum(counts) - counts
        arrays = taken(arrays, np.arange(counts.sum()) + np.repeat(starts - begins, counts))
        if targets is not None:
            known = itertools.compress(examples, here)
            arrays["value"][arrays["values"][begins[here]]] = targets(list(known))
        return FlatRows(arrays, list(files))


@dataclass(frozen=True)
class _Found:
    """identities: (N,) of all examples. counts, starts: (N,) the rows of each and the first of them; -1 rows where they
    are not there."""

    rows: FlatRows
    identities: NDArray[np.int64]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, parts: Sequence[tuple[int, Made]], examples: Sequence[Example]) -> _Found:
        if not parts:
            nothing = np.zeros(0, np.int64)
            return cls(FlatRows({"line": nothing}, []), nothing, nothing, nothing)
        counts = np.full(len(examples), -1, np.int64)
        files: dict[str, int] = {}
        arrays = []
        for start, (made, names) in parts:
            made = dict(made)
            of_part = made.pop(COUNTS)
            counts[start : start + len(of_part)] = of_part
            for name in names:
                files.setdefault(name, len(files))
            arrays.append(flat_rows(FlatRows(made, names), files))
        there = np.maximum(counts, 0)
        rows = FlatRows(joined(arrays), list(files))
        return cls(rows, _identities(examples), counts, np.cumsum(there) - there)

    def places(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        order = np.argsort(self.identities)
        asked = _identities(examples)
        found = order[np.searchsorted(self.identities, asked, sorter=order).clip(max=len(order) - 1)]
        return np.where((self.identities[found] == asked) & (self.counts[found] >= 0), found, -1)


def _identities(examples: Sequence[Example]) -> NDArray[np.int64]:
    return np.fromiter(map(id, examples), np.int64, len(examples))


@contextmanager
def ahead_of_reading(making: Making | None, sharing: Sharing | None = None) -> Iterator[Ahead | None]:
    """None where there is nothing to be made beforehand."""
    if making is None:
        yield None
        return
    ahead = Ahead(making)
    with beforehand(ahead.work, sharing or Sharing.by_cores()) as ahead.started:
        yield ahead
    # It knows `ahead`, so the two would keep all examples until the next search for garbage.
    del ahead.started
