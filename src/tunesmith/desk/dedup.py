"""Rows that repeat others, and rows that evaluations ask for.

Which row stays does not depend on chance: of test before validation before training rows, the first that was read. A
row is dropped only for one that stays and that it is itself alike to, never by way of a third.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.split import normalised
from tunesmith.desk.alike import Sketches, key_of, key_of_normalised
from tunesmith.desk.rows import CONTENT, SPLITS, Row
from tunesmith.desk.steps import Dropping, Outcome, Seen
from tunesmith.errors import DataError, near_miss

FIRST = ("test", "validation", "train")
"""Rows of these stay rather than rows of the next."""


def said(row: Row, by: str) -> list[str]:
    """The texts by which a row is compared: prompt and answer, or the prompt alone."""
    parts = ("prompt",) if by == "prompt" else CONTENT
    chosen = [text.text for text in row.texts if text.part in parts]
    return chosen or [text.text for text in row.texts if text.part == "fixed"]


def labelled(row: Row, by: str) -> list[str]:
    """What else must be the same: labels, and what people said of answers, such as a verdict or a score."""
    if by == "prompt":
        return []
    judged = [str(row.values.get(column)) for column in row.shape.meaning.columns.values()]
    labels = [text.text for text in row.texts if text.part == "label"]
    return labels or [value for value in judged if len(value) < 20]


@dataclass(frozen=True)
class SameId:
    """Rows that have the same value in a column; those that have none there are told apart."""

    column: str
    name: str = "dedup: id"

    def look(self, rows: Sequence[Row]) -> NDArray[Any]:
        found = [(row.values.get(self.column), row.number) for row in rows]
        if rows and all(self.column not in row.values for row in rows):
            raise DataError(
                f"{rows[0].ref}: no column '{self.column}' (dedup.id)",
                near_miss(self.column, rows[0].values),
                "correct dedup.id, or leave it out",
            )
        keys = [key_of(["id", str(value)] if value is not None else ["row", str(at)]) for value, at in found]
        return np.frombuffer(b"".join(keys), np.uint8).reshape(len(rows), 16)

    def decide(self, seen: Seen) -> Dropping:
        gone = equal(seen, np.ascontiguousarray(seen.looks).view("<u8").reshape(len(seen.looks), 2))
        said = {a: ("same_id", f"has the {self.column} of {seen.place(b)}") for a, b in gone.items()}
        return Dropping(self.name, {int(seen.numbers[place]): one for place, one in said.items()})


@dataclass(frozen=True)
class Repeats:
    """Looks at each row's key and sketch; drops those that repeat one that stays. sketches: None: only exact ones."""

    exact: bool
    sketches: Sketches | None
    by: str = "row"
    name: str = "dedup"

    def look(self, rows: Sequence[Row]) -> NDArray[Any]:
        """16 bytes of what must be equal, 8 of labels, and the sketch."""
        texts = [[row.normalised(text) for text in said(row, self.by)] for row in rows]
        labels = [[normalised(label) for label in labelled(row, self.by)] for row in rows]
        keys = b"".join(
            key_of_normalised([*text, "", *label]) + key_of_normalised(label)[:8]
            for text, label in zip(texts, labels, strict=True)
        )
        parts = [np.frombuffer(keys, np.uint8).reshape(len(rows), 24)]
        if self.sketches is not None:
            # As of the texts joined by line feeds: those are blanks, and nothing is composed across them.
            parts.append(self.sketches.of_normalised([" ".join(filter(None, text)) for text in texts]))
        return np.concatenate(parts, 1)

    def decide(self, seen: Seen) -> Dropping:
        keys = np.ascontiguousarray(seen.looks[:, :24]).view("<u8")
        gone = equal(seen, keys[:, :2]) if self.exact else {}
        found = {int(seen.numbers[a]): repeat_of(seen, "exact", a, b) for a, b in gone.items()}
        if self.sketches is not None:
            for place, (other, share) in self._alike(seen, keys[:, 2], gone).items():
                found[int(seen.numbers[place])] = repeat_of(seen, "near", place, other, share)
        return Dropping(self.name, found)

    def _alike(
        self, seen: Seen, labels: NDArray[np.uint64], gone: Collection[int]
    ) -> dict[int, tuple[int, float]]:
        """place -> place of the row that it is like, and how much; of rows that are not `gone`."""
        assert self.sketches is not None
        stands = np.ones(len(labels), bool)
        stands[list(gone)] = False
        neighbours: dict[int, dict[int, float]] = defaultdict(dict)
        for pairs, alike in self.sketches.pairs(seen.looks[:, 24:]):
            one, two = pairs.T
            chosen = stands[one] & stands[two] & (labels[one] == labels[two])
            for (a, b), share in zip(pairs[chosen].tolist(), alike[chosen].tolist(), strict=True):
                neighbours[a][b] = neighbours[b][a] = share
        rank = rank_of(seen)
        found: dict[int, tuple[int, float]] = {}
        stays: set[int] = set()
        for place in sorted(neighbours, key=lambda i: (rank[i], seen.numbers[i])):
            near = [(share, -other) for other, share in neighbours[place].items() if other in stays]
            if near:
                share, other = max(near)
                found[place] = (-other, share)
            else:
                stays.add(place)
        return found


def rank_of(seen: Seen) -> NDArray[np.int8]:
    """(N,) of rows of which one is to stay, the lowest stays."""
    rank: NDArray[np.int8] = np.array([FIRST.index(split) for split in SPLITS], np.int8)[seen.splits]
    return rank


def equal(seen: Seen, keys: NDArray[np.uint64]) -> dict[int, int]:
    """place -> place of the row that stays, of rows with equal keys (N, 2)."""
    order = np.lexsort((seen.numbers, rank_of(seen), keys[:, 1], keys[:, 0]))
    same = np.ones(max(len(order) - 1, 0), bool)
    for part in keys.T:
        ordered = part[order]
        same &= ordered[1:] == ordered[:-1]
    stays = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), np.arange(len(order)), 0))
    again = np.flatnonzero(np.concatenate([[False], same]))
    return dict(zip(order[again].tolist(), order[stays[again]].tolist(), strict=True))


def repeat_of(seen: Seen, rule: str, place: int, other: int, share: float = 1.0) -> tuple[str, str]:
    """The rule by which the row at a place is dropped for the other one, and what is said of it."""
    how = "is" if rule == "exact" else f"is {share:.0%} like"
    one, two = (SPLITS[int(seen.splits[at])] for at in (place, other))
    return rule + ("" if one == two else f"_in_{two}"), f"{how} {seen.place(other)}"


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
                    file = self.known.get(_number(words[at : at + length]))
                    if file is not None:
                        what = " ".join(words[at : at + length])
                        return Outcome(None, ("contaminated",), f"'{what}' stands in {file}")
        return None


LEAST_WORDS = 5
"""An evaluation text with fewer words is no sign of anything."""


def contamination(files: Iterable[tuple[str, Iterable[Sequence[str]]]], ngram: int) -> Contamination:
    """files: name, and of each of its rows the texts."""
    known: dict[int, str] = {}
    lengths = {ngram}
    for file, rows in files:
        for text in (text for texts in rows for text in texts):
            words = words_of(text)
            length = min(ngram, len(words))
            if length < LEAST_WORDS:
                continue
            lengths.add(length)
            for at in range(len(words) - length + 1):
                known.setdefault(_number(words[at : at + length]), file)
    return Contamination(known, tuple(sorted(lengths)))


def _number(words: Sequence[str]) -> int:
    """64 bits, the same in every process (Python's own hash of a text is not)."""
    return int.from_bytes(hashlib.blake2b(" ".join(words).encode("utf-8", "replace"), digest_size=8).digest())


def words_of(text: str) -> list[str]:
    """Words without case and punctuation."""
    return "".join(c if c.isalnum() else " " for c in normalised(text)).split()
