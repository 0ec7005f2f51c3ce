"""Rows that were made, on disk while they are checked; and texts of rows that they are held against."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.desk.alike import Sketches
from tunesmith.desk.rows import Row, Shape
from tunesmith.desk.synthetic.seeds import Candidate, shape_place
from tunesmith.desk.synthetic.spool import Places, Spool, blocks

Sketched = NDArray[np.uint8]


@dataclass(frozen=True)
class MadeRow:
    """said: prompt and answer; text: what is new, the prompt, or of a row that only answers anew the answer."""

    row: Row
    said: tuple[str, str]
    text: str


class MadeRows:
    """Of every row that makers made: where it stands, its label, and whether only its answer is new; the rest is on
    disk. first: the number of the first."""

    def __init__(self, path: Path, first: int) -> None:
        self.places = Places()
        self.labels: list[str | None] = []
        self.anew = array("b")
        self._first = first
        self._spool = Spool(path)
        self._shapes: list[Shape] = []
        self._names: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def number(self, at: int) -> int:
        return self._first + at

    def extend(self, rows: Sequence[tuple[Candidate, Row]]) -> None:
        """Candidates, and the rows that they are."""
        for one, row in rows:
            self.places.add(row.ref)
            self.labels.append(None if one.label is None else self._names.setdefault(one.label, one.label))
            self.anew.append(one.prompt is None)
        self._spool.extend([shape_place(row.shape, self._shapes), row.values, *one.said] for one, row in rows)

    def __getitem__(self, at: int) -> MadeRow:
        shape, values, *said = self._spool[at]
        row = Row(self.number(at), "train", self.places[at], values, self._shapes[shape])
        prompt, answer = said
        return MadeRow(row, (prompt, answer), answer if self.anew[at] else prompt)

    def texts(self, places: Iterable[int]) -> Iterable[str]:
        return (self[at].text for at in places)


@dataclass(frozen=True)
class Known:
    """Of many texts (N): keys (N,) of 16 bytes, equal for texts that are; sketches (N, ...) where they were wanted;
    and where each stands."""

    keys: NDArray[Any]
    sketches: Sketched
    places: Places


def known(rows: Iterable[Row], text_of: Callable[[Row], str], sketches: Sketches | None) -> Known:
    keys, parts, places = bytearray(), [], Places()
    for block in blocks(rows):
        texts = [text_of(row) for row in block]
        keys += b"".join(map(_key, texts))
        if sketches is not None:
            parts.append(sketches.of(texts))
        for row in block:
            places.add(row.ref)
    return Known(np.frombuffer(bytes(keys), "V16"), _together(parts), places)


def keys_of(texts: Iterable[str]) -> NDArray[Any]:
    """(N,) of 16 bytes."""
    return np.frombuffer(b"".join(map(_key, texts)), "V16")


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def sketched(sketches: Sketches, texts: Iterable[str]) -> Sketched:
    return _together([sketches.of(block) for block in blocks(texts)])


def _together(parts: Sequence[Sketched]) -> Sketched:
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.uint8)


def nearest(sketches: Sketches, own: Sketched, others: Sketched) -> dict[int, tuple[int, float]]:
    """place of one's own -> (place of the most alike of the others, how much), where one is at least that alike."""
    if not len(own) or not len(others):
        return {}
    best: dict[int, tuple[float, int]] = {}
    for pairs, shares in sketches.between(own, others):
        for (mine, other), share in zip(pairs.tolist(), shares.tolist(), strict=True):
            best[mine] = max(best.get(mine, (0.0, 0)), (share, -other))
    return {at: (-other, share) for at, (share, other) in best.items()}
