"""Many values on disk, of which memory holds where each begins."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tunesmith.types import RowRef

T = TypeVar("T")
BLOCK = 200
"""Things that are held in memory at a time, where nothing is gained by more."""


class Spool:
    """A list of values of JSON, one a line of a file, that is only added to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = array("q", [0])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def extend(self, values: Iterable[Any]) -> None:
        with self._path.open("ab") as file:
            for value in values:
                file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
                self._starts.append(file.tell())

    def __getitem__(self, at: int) -> Any:
        start, end = self._starts[at], self._starts[at + 1]
        with self._path.open("rb") as file:
            file.seek(start)
            return json.loads(file.read(end - start))


class Places:
    """Where many rows stand: file and line of each."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._codes: dict[str, int] = {}
        self._files, self._lines = array("i"), array("q")

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, ref: RowRef) -> None:
        code = self._codes.setdefault(ref.file, len(self._names))
        if code == len(self._names):
            self._names.append(ref.file)
        self._files.append(code)
        self._lines.append(ref.line)

    def __getitem__(self, at: int) -> RowRef:
        return RowRef(self._names[self._files[at]], self._lines[at])


def blocks(things: Iterable[T], most: int = BLOCK) -> Iterator[list[T]]:
    """One after another, so many at a time; the last may have fewer."""
    left = iter(things)
    while block := list(islice(left, most)):
        yield block
