"""Rows that mean what another one means: exact search by the cosine of embeddings, in blocks.

Rows are gone through in the order in which they stay (test before validation before training rows, then as they were
read), a block at a time. Each is held against every row that stays so far, by products of matrices, and against those
of its own block one after another: a row is dropped only for one that stays and that it is itself alike to. N rows of
which K stay cost about N x K / 2 cosines. Embeddings lie on the disk, 2 bytes a number: half precision moves a cosine
by less than 0.001 (1,500 questions of Banking77, all-MiniLM-L6-v2: 0.00008 at most).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.desk.alike import key_of
from tunesmith.desk.dedup import labelled, rank_of, repeat_of, said
from tunesmith.desk.rows import Row
from tunesmith.desk.steps import Dropping, RunsModel, Seen

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""n texts -> (n, H), each of length 1."""
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
BLOCK, KEPT = 2048, 16384
"""Rows that are held against others at a time, and of those: their cosines take 128 MiB."""


@dataclass(frozen=True)
class Meanings(RunsModel):
    """file: where embeddings lie while it works, in the order of the rows."""

    embed: Embed
    similarity: float
    by: str
    file: Path
    name: str = "dedup: meaning"

    def look(self, rows: Sequence[Row]) -> NDArray[Any]:
        """(n,) keys of labels; the embeddings go to the file."""
        if not rows:
            return np.zeros(0, np.uint64)
        found = self.embed(["\n".join(said(row, self.by)) for row in rows])
        with self.file.open("ab") as out:
            out.write(found.astype(np.float16).tobytes())
        keys = b"".join(key_of(labelled(row, self.by))[:8] for row in rows)
        return np.frombuffer(keys, np.uint64)

    def decide(self, seen: Seen) -> Dropping:
        count = len(seen.numbers)
        if count == 0:
            return Dropping(self.name, {})
        vectors = np.memmap(self.file, np.float16, "r").reshape(count, -1)
        order = np.lexsort((seen.numbers, rank_of(seen)))
        found = {
            int(seen.numbers[a]): repeat_of(seen, "meaning", a, b, share)
            for a, (b, share) in repeats(vectors, seen.looks, order, self.similarity).items()
        }
        self.file.unlink()
        return Dropping(self.name, found)


def repeats(
    vectors: NDArray[np.float16], labels: NDArray[np.uint64], order: Ints, least: float
) -> dict[int, tuple[int, float]]:
    """place -> place of the row that stays and is most like it, and their cosine. vectors (N, H), labels (N,), order
    (N,) places, those that stay rather than others first. Rows with different labels are never alike."""
    found: dict[int, tuple[int, float]] = {}
    stay: list[Ints] = []
    for at in range(0, len(order), BLOCK):
        block = order[at : at + BLOCK]
        x = _unit(vectors, block)
        best = [(-1, 0.0)] * len(block)
        before = np.concatenate([np.zeros(0, np.int64), *stay])
        for start in range(0, len(before), KEPT):
            kept = before[start : start + KEPT]
            for row, other, share in _pairs(x, _unit(vectors, kept), labels[block], labels[kept], least):
                if share > best[row][1]:
                    best[row] = (int(kept[other]), share)
        stays = _within(x, labels[block], block, best, least)
        found |= {int(place): best[row] for row, place in enumerate(block) if not stays[row]}
        stay.append(block[stays])
    return found


def _within(
    x: Floats, labels: NDArray[np.uint64], block: Ints, best: list[tuple[int, float]], least: float
) -> NDArray[np.bool_]:
    """(B,) whether each row of a block stays; `best` as it becomes with those of the block that do."""
    stays = np.array([place < 0 for place, _ in best])
    for row, other, share in _pairs(
        x, x, labels, labels, least
    ):  # by row, so that the rows before it are decided
        if other < row and stays[other]:
            stays[row] = False
            if share > best[row][1]:
                best[row] = (int(block[other]), share)
    return stays


def _pairs(
    x: Floats, y: Floats, x_labels: NDArray[np.uint64], y_labels: NDArray[np.uint64], least: float
) -> list[tuple[int, int, float]]:
    """(row of x, row of y, cosine) of each pair with one label that is alike, by row."""
    cosines = x @ y.T
    rows, others = np.nonzero(cosines >= least)
    same = x_labels[rows] == y_labels[others]
    rows, others = rows[same], others[same]
    return list(zip(rows.tolist(), others.tolist(), cosines[rows, others].tolist(), strict=True))


def _unit(vectors: NDArray[np.float16], places: Ints) -> Floats:
    """These rows in single precision, of length 1 again."""
    x = vectors[places].astype(np.float32)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
