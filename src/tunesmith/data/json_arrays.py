"""A JSON array of rows -> its elements' bytes, one at a time and in bounded memory, so that each is read strictly."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator

from tunesmith.data.sources import MAX_LINE, UnreadableRow, decode, refuse_foreign, too_long, without_mark
from tunesmith.data.strict_json import parse_object
from tunesmith.errors import DataError, RowError

_OUTSIDE = re.compile(rb'["\[\]{},]')
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def array_rows(path: str, chunks: Iterator[bytes]) -> Iterator[tuple[int, dict[str, object] | RowError]]:
    """(number of the element from 1, row); raises DataError where the array does not end, or more follows it."""
    for number, element in enumerate(_elements(path, chunks), 1):
        if element is None:
            yield number, UnreadableRow(too_long(), path, number, "")
            continue
        try:
            yield number, parse_object(decode(element))
        except RowError as error:
            yield (
                number,
                UnreadableRow(error, path, number, element[:2048].decode("utf-8", errors="replace")),
            )


class _Element:
    """Bytes of the element that is being read; over MAX_LINE they are counted but not held."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.size = 0

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size <= MAX_LINE:
            self.kept.append(piece)

    def take(self) -> bytes | None:
        whole = b"".join(self.kept) if self.size <= MAX_LINE else None
        self.kept, self.size = [], 0
        return None if whole is None else whole.strip()


class _Marks:
    """Finds the brackets and commas that stand outside of strings, which may reach from one chunk into the next."""

    def __init__(self) -> None:
        self.quoted = self.escaped = False

    def __call__(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """(where it ends, mark) for each."""
        at = 0
        if self.escaped and chunk:  # the character after a backslash
            at, self.escaped = 1, False
        while True:
            match = (_REST_OF_STRING.match if self.quoted else _OUTSIDE.search)(chunk, at)
            if match is None:
                break
            at = match.end()
            if self.quoted or match[0] == b'"':
                self.quoted = not self.quoted
            else:
                yield at, match[0]
        if self.quoted:  # the string goes on in the next chunk, perhaps in the middle of an escape
            rest = chunk[at:]
            self.escaped = (len(rest) - len(rest.rstrip(b"\\"))) % 2 == 1


def _elements(path: str, chunks: Iterator[bytes]) -> Iterator[bytes | None]:
    """The bytes of each element; None for one over MAX_LINE."""
    element, marks, depth, found = _Element(), _Marks(), 0, 0
    for chunk in chunks:
        start = 0
        for at, mark in marks(chunk):
            if mark in b"[{":
                depth += 1
                start = at if depth == 1 else start
            elif depth > 1:
                depth -= mark in b"]}"
            else:  # a comma between elements, or the end of the array
                element.add(chunk[start : at - 1])
                start, whole = at, element.take()
                if whole != b"" or mark == b"," or found:  # not the nothing between [ and ]
                    found += 1
                    yield whole
                if mark != b",":
                    _refuse_more(path, itertools.chain([chunk[at:]], chunks))
                    return
        element.add(chunk[start:])
    raise DataError(
        f"{path}: the JSON array ends in the middle, after {found:,} rows",
        "a ] at the end",
        "make the file again",
    )


def _refuse_more(path: str, chunks: Iterator[bytes]) -> None:
    for rest in chunks:
        if rest.strip():
            raise DataError(
                f"{path}: more follows after the JSON array ({rest.strip()[:40].decode(errors='replace')!r})",
                "one array, and nothing else",
                "put all rows into one array, or write one object on each line",
            )


def begins_array(
    path: str, chunks: Iterator[bytes], notes: Counter[str] | None = None
) -> tuple[bool, list[bytes]]:
    """Whether the content is an array, and the pieces that were read to see it (without a byte order mark)."""
    read: list[bytes] = []
    for chunk in chunks:
        if not read:
            chunk = without_mark(chunk, notes)
            refuse_foreign(path, chunk)
        read.append(chunk)
        if start := chunk.lstrip():
            return start.startswith(b"["), read
    return False, read
