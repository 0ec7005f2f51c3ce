"""Rows that repeat others, and rows that evaluations ask for.

Which row stays does not depend on chance: of test before validation before training rows, the first that was read. A
row is dropped only for one that stays and that it is itself alike to, never by way of a third.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.split import normalised
from tunesmith.desk.alike import Sketches, key_of
from tunesmith.desk.rows import CONTENT, SPLITS, Row
from tunesmith.desk.steps import Dropping, Outcome, Seen
from tunesmith.errors import DataError, near_miss

FIRST = ("test", "validation", "train")
"""Rows of these stay rather than rows of the next."""


def said(row: Row, by: str) -> list[str]:
    """The texts by which a row is compared: prompt and answer, or the prompt alone."""
    parts = ("prompt",) if by == "prompt" else CONTENT
    texts = row.texts()
    chosen = [text.text for text in texts if text.part in parts]
    return chosen or [text.text for text in texts if text.part == "fixed"]


def labelled(row: Row, by: str) -> list[str]:
    """What else must be the same: labels, and what people said of answers, such as a verdict or a score."""
    if by == "prompt":
        return []
    judged = [str(row.values.get(column)) for column in row.shape.meaning.columns.values()]
    labels = [text.text for text in row.texts() if text.part == "label"]
    return labels or [value for value in judged if len(value) < 20]


@dataclass(frozen=True)
class Exact:
    by: str = "row"
    name: str = "dedup: exact"

    def look(self, rows: Sequence[Row]) -> NDArray[Any]:
        keys = [key_of([*said(row, self.by), "\x1e", *labelled(row, self.by)]) for row in rows]
        return np.frombuffer(b"".join(keys), np.uint8).reshape(len(rows), 16)

    def decide(self, seen: Seen) -> Dropping:
        return Dropping(self.name, {a: _repeats(seen, "exact", a, b) for a, b in _again(seen)})


@dataclass(frozen=True)
class SameId:
    """Rows that have the same value in a column; those that have none there are told apart."""

    column: str
    name: str = "dedup: id"

    def look(self, rows: Sequence[Row]) -> NDArray[Any]:
        found = [(row.values.get(self.column), row.number) for row in rows]
        if all(self.column not in row.values for row in rows):
            raise DataError(
                f"{rows[0].ref}: no column '{self.column}' (dedup.id)",
                near_miss(self.column, rows[0].values),
                "correct dedup.id, or leave it out",
            )
        keys = [key_of(["id", str(value)] if value is not None else ["row", str(at)]) for value, at in found]
        return np.frombuffer(b"".join(keys), np.uint8).reshape(len(rows), 16)

    def decide(self, seen: Seen) -> Dropping:
        rows = {a: ("same_id", f"has the {self.column} of {seen.place(b)}") for a, b in _again(seen)}
        return Dropping(self.name, rows)


@dataclass(frozen=True)
class Near:
    threshold: float
    permutations: int
    by: str = "row"
    name: str = "dedup: near"

    @property
    def sketches(self) -> Sketches:
        return Sketches(self.threshold, self.permutations)

    def look(self, rows: Sequence[Row]) -> NDArray[Any]:
        sketches = self.sketches.of(["\n".join(said(row, self.by)) for row in rows])
        labels = b"".join(key_of(labelled(row, self.by))[:8] for row in rows)
        return np.concatenate([sketches, np.frombuffer(labels, np.uint8).reshape(len(rows), 8)], 1)

    def decide(self, seen: Seen) -> Dropping:
        labels = np.ascontiguousarray(seen.looks[:, -8:]).view("<u8")[:, 0]
        neighbours: dict[int, dict[int, float]] = defaultdict(dict)
        for pairs, alike in self.sketches.pairs(seen.looks[:, :-8]):
            agree = labels[pairs[:, 0]] == labels[pairs[:, 1]]
            for (a, b), share in zip(pairs[agree].tolist(), alike[agree].tolist(), strict=True):
                neighbours[a][b] = neighbours[b][a] = share
        rank = _rank(seen)
        gone: dict[int, int] = {}
        for place in sorted(neighbours, key=lambda i: (rank[i], seen.numbers[i])):
            staying = [n for n in neighbours[place] if n not in gone and _before(n, place, rank, seen)]
            if staying:
                gone[place] = max(staying, key=lambda n: (neighbours[place][n], -seen.numbers[n]))
        rows = {
            number: _repeats(seen, "near", number, other, neighbours[place][gone[place]])
            for (number, other), place in zip(_numbered(seen, gone.items()), gone, strict=True)
        }
        return Dropping(self.name, rows)


def _again(seen: Seen) -> list[tuple[int, int]]:
    """(number of a row, number of the one that stays) for rows of equal keys; looks (N, 16): the keys."""
    keys = np.ascontiguousarray(seen.looks).view("<u8").reshape(len(seen.looks), 2)
    order = np.lexsort((seen.numbers, _rank(seen), keys[:, 1], keys[:, 0]))
    same = (keys[order][1:] == keys[order][:-1]).all(1)
    stays = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), np.arange(len(order)), 0))
    gone = np.flatnonzero(np.concatenate([[False], same]))
    return _numbered(seen, ((order[at], order[stays[at]]) for at in gone))


def _rank(seen: Seen) -> NDArray[np.int64]:
    return np.array([FIRST.index(split) for split in SPLITS])[seen.splits]


def _before(one: int, other: int, rank: NDArray[np.int64], seen: Seen) -> bool:
    return bool((rank[one], seen.numbers[one]) < (rank[other], seen.numbers[other]))


def _numbered(seen: Seen, pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(int(seen.numbers[a]), int(seen.numbers[b])) for a, b in pairs]


def _repeats(seen: Seen, rule: str, number: int, other: int, share: float = 1.0) -> tuple[str, str]:
    how = "is" if rule == "exact" else f"is {share:.0%} like"
    splits = seen.split_of(number), seen.split_of(other)
    across = "" if splits[0] == splits[1] else f"_in_{splits[1]}"
    return rule + across, f"{how} {seen.place(other)}"


# Contamination -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contamination:
    """Drops rows that share `ngram` words in a row with evaluation rows; of an evaluation text with fewer words, all.

    known: hash of such a sequence -> the file it is from. lengths: of the sequences: `ngram`, and those of shorter
    texts.
    """

    known: Mapping[int, str]
    lengths: tuple[int, ...]
    name: str = "dedup: against"

    def apply(self, row: Row) -> Outcome | None:
        for text in said(row, "row"):
            words = words_of(text)
            for length in self.lengths:
                for at in range(len(words) - length + 1):
                    file = self.known.get(hash(tuple(words[at : at + length])))
                    if file is not None:
                        what = " ".join(words[at : at + length])
                        return Outcome(None, ("contaminated",), f"'{what}' stands in {file}")
        return None


LEAST_WORDS = 5
"""An evaluation text with fewer words is no sign of anything."""


def contamination(files: Mapping[str, Iterable[Sequence[str]]], ngram: int) -> Contamination:
    """files: name -> of each of its rows the texts."""
    known: dict[int, str] = {}
    lengths = {ngram}
    for file, rows in files.items():
        for text in (text for texts in rows for text in texts):
            words = words_of(text)
            length = min(ngram, len(words))
            if length < LEAST_WORDS:
                continue
            lengths.add(length)
            for at in range(len(words) - length + 1):
                known.setdefault(hash(tuple(words[at : at + length])), file)
    return Contamination(known, tuple(sorted(lengths)))


def words_of(text: str) -> list[str]:
    """Words without case and punctuation."""
    return "".join(c if c.isalnum() else " " for c in normalised(text)).split()
