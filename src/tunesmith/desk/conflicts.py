"""Rows that contradict one another: one prompt, or nearly, and another label or answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.desk.alike import Sketches, key_of
from tunesmith.desk.dedup import said
from tunesmith.desk.rows import Row
from tunesmith.desk.splitting import Joined

PERMUTATIONS = 128
MOST = 20
"""Rows that a row is said to contradict; of more, the most alike."""


@dataclass(frozen=True)
class Alike:
    """groups (N,) the first row that each belongs with, by its prompt. conflicts: row -> {other row: how alike}, where
    the answers differ."""

    groups: NDArray[np.int64]
    conflicts: dict[int, dict[int, float]]


def alike(rows: Sequence[Row], near: float | None) -> Alike:
    """near: how alike prompts must be; None: equal but for case and white space."""
    answers = [key_of(answer_of(row)) for row in rows]
    joined = Joined(len(rows))
    found: dict[int, dict[int, float]] = defaultdict(dict)

    def meet(a: int, b: int, share: float) -> None:
        joined.join(a, b)
        if answers[a] != answers[b]:
            found[a][b] = found[b][a] = share

    if near is not None and near < 1:
        sketches = Sketches(near, PERMUTATIONS)
        for pairs, shares in sketches.pairs(sketches.of(["\n".join(said(row, "prompt")) for row in rows])):
            for (a, b), share in zip(pairs.tolist(), shares.tolist(), strict=True):
                meet(a, b, min(share, 0.999))
    equal: dict[bytes, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        equal[key_of(said(row, "prompt"))].append(at)
    for members in equal.values():
        first_of = {answers[at]: at for at in reversed(members)}
        for at in members:
            joined.join(members[0], at)
            for answer, other in first_of.items():
                if answer != answers[at]:
                    meet(at, other, 1.0)
    groups = np.array([joined.first(at) for at in range(len(rows))], np.int64)
    return Alike(groups, {at: _most(others) for at, others in found.items()})


def answer_of(row: Row) -> list[str]:
    """What the row says to its prompt: its labels, or its answer."""
    texts = row.texts
    labels = [text.text for text in texts if text.part == "label"]
    return labels or [text.text for text in texts if text.part == "answer"]


def _most(others: dict[int, float]) -> dict[int, float]:
    order = sorted(others, key=lambda at: (-others[at], at))[:MOST]
    return {at: others[at] for at in order}
