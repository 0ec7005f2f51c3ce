"""A file of lines cut into stretches, each of which can be read by itself: by another process, and in any order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from tunesmith.data.addresses import file_named
from tunesmith.data.endings import ending_of, is_packed
from tunesmith.data.sources import CHUNK, open_regular


@dataclass(frozen=True)
class Stretch:
    """Bytes from the beginning of a line to the end of one. line: the number of the first."""

    start: int
    end: int
    line: int

    def chunks(self, stream: IO[bytes]) -> Iterator[bytes]:
        """As `sources.byte_chunks` of the whole file."""
        stream.seek(self.start)
        left = self.end - self.start
        while left and (chunk := stream.read(min(left, CHUNK))):
            left -= len(chunk)
            yield chunk


def stretches(address: str, size: int) -> list[Stretch]:
    """A .jsonl file in stretches of `size` bytes or somewhat more; none where it cannot be cut (packed, of another
    format, with lines that may end in a carriage return) or would be one."""
    path = file_named(address)
    if ending_of(path) != ".jsonl" or is_packed(path):
        return []
    found: list[Stretch] = []
    start = at = 0
    line = number = 1
    with open_regular(path, address) as stream:
        while chunk := stream.read(CHUNK):
            if b"\r" in chunk:
                return []
            number += chunk.count(b"\n")
            end = at + chunk.rfind(b"\n") + 1
            if end > at and end - start >= size:
                found.append(Stretch(start, end, line))
                start, line = end, number
            at += len(chunk)
    if start < at:
        found.append(Stretch(start, at, line))
    return found if len(found) > 1 else []
