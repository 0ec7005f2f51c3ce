"""Rows as they were before any step: what a version keeps of them put back, the rest read again from where it came.

A row keeps its number through all steps, and rows, their ledger and what they came from lie in the order of numbers. So
they are walked through side by side, and of each entry of the ledger 16 bytes are held.
"""

from __future__ import annotations

import heapq
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, BinaryIO

import numpy as np

from tunesmith.data.readers import read_rows, sha256
from tunesmith.desk.reading import plain
from tunesmith.desk.rows import SPLITS, Values
from tunesmith.desk.versions import CHANGES, ORIGINS, Version
from tunesmith.errors import DataError, RowError

Entry = dict[str, Any]


def restored(made: Version) -> Iterator[tuple[int, Values]]:
    """(number, columns) of every row that was read, in order, as it was before any step.

    Raises DataError where scrubbing left no originals, and what they are from is gone or another one.
    """
    sources = _Sources(made)
    with (made.folder / CHANGES).open("rb") as ledger:
        sides: list[Iterator[tuple[int, Any]]] = [*(_left(made, split) for split in SPLITS), _entries(ledger)]
        for number, found in groupby(heapq.merge(*sides, key=itemgetter(0)), key=itemgetter(0)):
            values: Values = {}
            entries: list[Entry] = []
            for _, what in found:
                if isinstance(what, list):
                    entries = what
                elif not values:  # a row that was added stands after the one that it is of
                    values = what
            if any(entry.get("hidden") for entry in entries):
                yield number, sources.row(entries[0]["file"], entries[0]["line"])
            else:
                yield number, _undone(values, entries)


def rows_of_split(made: Version, split: str) -> Iterator[Values]:
    for ending in ("jsonl", "parquet"):
        path = made.folder / f"{split}.{ending}"
        if path.is_file():
            yield from (row for _, row in read_rows(path) if isinstance(row, dict))


def _left(made: Version, split: str) -> Iterator[tuple[int, Values]]:
    with (made.folder / ORIGINS).open(encoding="utf-8") as origins:
        numbers = (number for number, of, *_ in map(json.loads, origins) if of == split)
        yield from zip(numbers, rows_of_split(made, split), strict=True)


def _entries(ledger: BinaryIO) -> Iterator[tuple[int, list[Entry]]]:
    """What was done to each row, in the order of the steps."""
    numbers, places = array("q"), array("q", [0])
    for line in ledger:
        numbers.append(json.loads(line)["row"])
        places.append(places[-1] + len(line))
    order = np.argsort(np.asarray(numbers), kind="stable").tolist()
    for number, found in groupby(order, key=numbers.__getitem__):
        yield number, [_entry(ledger, places[at]) for at in found]


def _entry(ledger: BinaryIO, place: int) -> Entry:
    ledger.seek(place)
    entry: Entry = json.loads(ledger.readline())
    return entry


def _undone(values: Values, entries: Sequence[Entry]) -> Values:
    for entry in reversed(entries):
        if entry.get("dropped"):
            values = entry["before"]
            continue
        values = {**values, **entry["before"]}
        for column in entry.get("added", ()):
            del values[column]
    return values


@dataclass
class _Sources:
    """What the rows of a version came from, asked for in the order in which it was read."""

    made: Version
    file: str | None = None
    line: int = 0
    rows: Iterator[tuple[int, Any]] = field(default_factory=lambda: iter(()))

    def row(self, file: str, line: int) -> Values:
        if file != self.file or line <= self.line:  # or the same file again, as another split
            self._open(file)
        self.line = line
        for at, values in self.rows:
            found = None if isinstance(values, RowError) else plain(values)
            if at == line and isinstance(found, dict):
                return found
        raise AssertionError(f"{file}:{line} was read before")

    def _open(self, file: str) -> None:
        known = next(one["sha256"] for one in self.made.manifest["sources"] if one["file"] == file)
        if fault := _fault(file, known):
            raise DataError(
                f"rows of {file} were scrubbed or show what was, and it {fault}",
                "that file as it was: the data set keeps no originals (scrub.keep_originals: false)",
                "put it back; or scrub with scrub.keep_originals=true, and guard changes.jsonl as you guard the rows",
            )
        self.file, self.rows = file, read_rows(file)


def _fault(file: str, known: str) -> str | None:
    try:
        return None if sha256(file) == known else "is not the file that they were read from"
    except DataError as error:
        return f"is gone ({error.got})"
