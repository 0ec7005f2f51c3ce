"""How alike rows are: exact keys, and MinHash sketches by which near-duplicates are found among millions.

A text is the set of its sequences of five characters. The share of minimal hashes that two sets have in common
estimates their Jaccard similarity (Broder 1997); sets that agree in a whole band of hashes are compared (locality
sensitive hashing). Of each minimal hash 8 bits are kept (arXiv:0910.3349): they agree by chance in one of 256.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import rensa
from numpy.typing import NDArray

from tunesmith.data.split import normalised

SHINGLE = 5
SEED = 20261121
RECALL = 0.999
"""Of pairs at the threshold, the share that a band must bring together."""
CROWD = 40
"""Rows of one band up to which all are compared with all; of more, each with the first and those next to it."""


BLOCK = 2**14
"""Characters that are hashed at a time, about: with larger arrays most of the time goes into fetching memory."""
BANDED = 2**8
"""Texts whose bands are worked out at a time, as many for the same reason."""


def key_of(texts: Sequence[str]) -> bytes:
    """16 bytes, equal for texts that are equal but for case, white space and Unicode form."""
    return key_of_normalised(list(map(normalised, texts)))


def key_of_normalised(texts: Sequence[str]) -> bytes:
    return hashlib.blake2b("\x1f".join(texts).encode("utf-8", "replace"), digest_size=16).digest()


def shape_of_bands(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows of each): the widest bands that still find `RECALL` of the pairs at the threshold."""
    found = (permutations, 1)
    for width in range(1, permutations + 1):
        bands = permutations // width
        if 1 - (1 - threshold**width) ** bands < RECALL:
            break
        found = (bands, width)
    return found


@dataclass(frozen=True)
class Sketches:
    """Sketches of `permutations` hashes, to find pairs of at least `threshold`."""

    threshold: float
    permutations: int

    def of(self, texts: Sequence[str]) -> NDArray[np.uint8]:
        """(n, bytes): 8 bits of each minimal hash, then 32 bits of each band."""
        return self.of_normalised([normalised(text) for text in texts])

    def of_normalised(self, texts: Sequence[str]) -> NDArray[np.uint8]:
        minima = array("I")
        for block in _blocks(texts):
            of_block = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
                *shingles(block), self.permutations, SEED
            )
            for of_text in of_block.to_rows():
                minima.fromlist(of_text)
        whole = np.frombuffer(minima, np.uint32).reshape(len(texts), self.permutations)
        parts = [self._banded(whole[at : at + BANDED]) for at in range(0, len(texts), BANDED)]
        return np.concatenate(parts) if parts else self._banded(whole)

    def _banded(self, minima: NDArray[np.uint32]) -> NDArray[np.uint8]:
        bands, width = shape_of_bands(self.threshold, self.permutations)
        keys = np.zeros((len(minima), bands), np.uint64)
        for at in range(width):
            keys = mixed(keys ^ minima[:, at : bands * width : width].astype(np.uint64))
        low = (minima & 0xFF).astype(np.uint8)
        high = (keys >> np.uint64(32)).astype("<u4").view(np.uint8)
        return np.concatenate([low, high.reshape(len(minima), 4 * bands)], 1)

    def pairs(self, sketches: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """(m, 2) places of rows that are at least that alike, and (m,) how much; a pair may come more than once."""
        keys = np.ascontiguousarray(sketches[:, self.permutations :]).view("<u4")
        for band in range(keys.shape[1]):
            for pairs in _meeting(keys[:, band]):
                yield self._alike(sketches, sketches, pairs)

    def between(
        self, one: NDArray[np.uint8], other: NDArray[np.uint8]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """As `pairs`, of a row of the one and a row of the other; all that meet in a band are compared."""
        mine, theirs = (
            np.ascontiguousarray(sketches[:, self.permutations :]).view("<u4") for sketches in (one, other)
        )
        for band in range(mine.shape[1]):
            order = np.argsort(theirs[:, band], kind="stable")
            keys = theirs[order, band]
            first, end = (np.searchsorted(keys, mine[:, band], side) for side in ("left", "right"))
            for row in np.flatnonzero(end > first).tolist():
                met = order[first[row] : end[row]]
                yield self._alike(one, other, np.stack([np.full(len(met), row), met], 1))

    def _alike(
        self, one: NDArray[np.uint8], other: NDArray[np.uint8], pairs: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        a, b = one[pairs[:, 0], : self.permutations], other[pairs[:, 1], : self.permutations]
        alike = ((a == b).mean(1) - 1 / 256) / (1 - 1 / 256)
        yes = alike >= self.threshold
        return pairs[yes], alike[yes]


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    start = size = 0
    for at, text in enumerate(texts):
        size += len(text)
        if size >= BLOCK:
            yield texts[start : at + 1]
            start, size = at + 1, 0
    if start < len(texts):
        yield texts[start:]


def shingles(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hashes of every sequence of five characters of each text, one text after another, and where each begins (n + 1).
    A shorter text has one, of the whole."""
    lengths = np.array([max(len(text), SHINGLE) for text in texts], np.int64)
    flat = "".join(text if len(text) >= SHINGLE else text.ljust(SHINGLE, "\0") for text in texts)
    codes = np.frombuffer(flat.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    if len(codes) < SHINGLE:
        return np.zeros(0, np.uint64), np.zeros(len(texts) + 1, np.uint64)
    count = len(codes) - SHINGLE + 1
    hashes = codes[:count].copy()
    for at in range(1, SHINGLE):
        hashes *= np.uint64(0x100000001B3)
        hashes += codes[at : at + count]
    ends = np.cumsum(lengths)
    inside = np.ones(count, bool)
    for back in range(1, SHINGLE):
        crossing = ends[:-1] - back
        inside[crossing[crossing < count]] = False
    starts = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)])
    return mixed(hashes[inside]), starts.astype(np.uint64)


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of x moves every bit of the result."""
    x = x + np.uint64(0x9E3779B97F4A7C15)  # a new array; all that follows is done in its place
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _meeting(keys: NDArray[np.uint32]) -> Iterator[NDArray[np.int64]]:
    """(m, 2) places of rows with equal keys, the earlier one first; in parts."""
    # Key and place in one number: such are sorted several times as fast as places by their keys.
    ordered = np.sort(keys.astype(np.uint64) << np.uint64(32) | np.arange(len(keys), dtype=np.uint64))
    keys, order = (
        (ordered >> np.uint64(32)).astype(np.uint32),
        (ordered & np.uint64(2**32 - 1)).astype(np.int64),
    )
    again = np.flatnonzero(keys[1:] == keys[:-1])  # the few that have the key of the next
    runs = np.flatnonzero(np.diff(again, prepend=-2) > 1)
    starts, sizes = again[runs], np.diff(runs, append=len(again)) + 1
    for gap in range(1, CROWD):
        begin = starts[(sizes > gap) & (sizes <= CROWD)]
        count = sizes[(sizes > gap) & (sizes <= CROWD)] - gap
        if len(begin):
            first = np.arange(count.sum()) + np.repeat(begin - np.cumsum(count) + count, count)
            yield np.stack([order[first], order[first + gap]], 1)
    for begin, size in zip(starts[sizes > CROWD], sizes[sizes > CROWD], strict=True):
        members = order[begin : begin + size]
        yield np.stack([np.full(size - 1, members[0]), members[1:]], 1)
        yield np.stack([members[:-1], members[1:]], 1)
