"""One walk over rows as they were read: of each row some numbers, of each
part of them tables that are added up. A million rows take about 50 MB.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.columns import JUDGED, columns_of
from tunesmith.desk.alike import key_of_normalised, mixed
from tunesmith.desk.language import language_of
from tunesmith.desk.lengths import Measure, Size
from tunesmith.desk.plans import Plan
from tunesmith.desk.reading import Read
from tunesmith.desk.rows import CONTENT, SPLITS, Row, Values
from tunesmith.desk.steps import excerpt
from tunesmith.desk.suspects import BITS, mask_of, reasons_of
from tunesmith.errors import RowError
from tunesmith.types import Example

SIZES = ("prompt", "answer", "whole", "longest")
COLUMNS = 200
"""Of a file, that are described; more come from keys that are data themselves."""
LABELS = 20_000
"""Labels of a split that are counted by name; more are no classes."""
UNTOLD = "too short to tell"
REFUSED, NOT_COUNTED = -1, -2
"""In place of a size: training drops the row; its tokens were not counted."""
TEMPLATE = 256
"""Tokens that a template is thought to write around a row, at most."""

_KINDS = {str: "text", bool: "yes or no", int: "number", float: "number", list: "list", dict: "object"}


@dataclass
class Column:
    """rows: that have it, also as null. types: of the others. example: the first value that there is."""

    rows: int = 0
    nulls: int = 0
    types: Counter[str] = field(default_factory=Counter)
    example: str = ""

    def see(self, values: Sequence[Any]) -> None:
        there = [value for value in values if value is not None and value != ""]
        self.rows += len(values)
        self.nulls += len(values) - len(there)
        for kind, count in Counter(map(type, there)).items():
            self.types[_KINDS[kind]] += count
        for value in there:
            if self.example:
                break
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            self.example = excerpt([" ".join(text[:400].split())], 80)

    def add(self, other: Mapping[str, Any]) -> None:
        self.rows += other["rows"]
        self.nulls += other["nulls"]
        self.types.update(other["types"])
        self.example = self.example or other["example"]


@dataclass
class Tables:
    """columns: of each file, by its place. labels: split -> column -> label -> rows, and the number of the first of
    them. languages: split -> language -> rows. left_out: columns and labels that the tables had no room for."""

    columns: list[dict[str, Column]]
    labels: dict[str, dict[str, dict[str, list[int]]]] = field(
        default_factory=lambda: {s: {} for s in SPLITS}
    )
    languages: dict[str, Counter[str]] = field(default_factory=lambda: {s: Counter() for s in SPLITS})
    left_out: Counter[str] = field(default_factory=Counter)

    def see(self, file: int, rows: Sequence[Values]) -> None:
        """rows: of this file, in their order."""
        for name in columns_of(rows):
            values = [row[name] for row in rows if name in row]
            column = self.column(file, name, len(values))
            if column is not None:
                column.see(values)

    def column(self, file: int, name: str, values: int = 1) -> Column | None:
        table = self.columns[file]
        if name not in table:
            if len(table) >= COLUMNS:
                self.left_out[f"values of further columns, file {file + 1}"] += values
                return None
            table[name] = Column()
        return table[name]

    def label(self, split: str, column: str, label: str, count: int, first: int) -> None:
        table = self.labels[split].setdefault(column, {})
        if label not in table and len(table) >= LABELS:
            self.left_out[f"further labels in {column}, {split}"] += count
            return
        entry = table.setdefault(label, [0, first])
        entry[0] += count

    def add(self, said: dict[str, Any]) -> None:
        for file, columns in enumerate(said["columns"]):
            for name, one in columns.items():
                column = self.column(file, name)
                if column is not None:
                    column.add(one)
        for split in SPLITS:
            for column, labels in said["labels"][split].items():
                for label, (count, first) in labels.items():
                    self.label(split, column, label, count, first)
            self.languages[split].update(said["languages"][split])
        self.left_out.update(said["left_out"])

    def as_said(self) -> dict[str, Any]:
        columns = [{name: vars(one) for name, one in table.items()} for table in self.columns]
        return vars(self) | {"columns": columns}


@dataclass(frozen=True)
class Looks:
    """All rows by their numbers. splits (N,) as places in SPLITS, files (N,), sizes (N, 4) as SIZES, or REFUSED, or
    NOT_COUNTED; sampled (N,): rows of the sample whose tokens stand for those of all; masks (N,) of reasons, keys
    (N, 2) of what is asked and of what is answered (0: nothing), targets (N, T) the numbers that a row is to be
    answered with, in the order of its file's targets (NaN: it has none)."""

    splits: NDArray[np.int8]
    files: NDArray[np.int32]
    sizes: NDArray[np.int32]
    sampled: NDArray[np.bool_]
    masks: NDArray[np.int32]
    keys: NDArray[np.uint64]
    targets: NDArray[np.float64]
    tables: Tables


def looking(read: Read, measure: Measure, languages: int, counted: int) -> Plan[Looks]:
    """languages: rows at most whose language is looked at. counted: rows at most whose tokens are counted, and besides
    them every row that may have more than the model takes."""
    count = sum(one.used for one in read.files)
    made = yield _Looking(read, measure, _threshold(count, languages), _threshold(count, counted))
    tables = Tables([{} for _ in read.files])
    for _, said in made:
        tables.add(said)
    names = ("splits", "files", "sizes", "sampled", "masks", "keys", "targets")
    whole = {name: np.concatenate([arrays[name] for arrays, _ in made]) for name in names}
    return Looks(**whole, tables=tables)


def _threshold(count: int, sample: int) -> int:
    """Rows whose number is hashed to no more than this are the sample: the same ones every time."""
    if count <= sample:
        return 2**64 - 1
    return int(np.partition(mixed(np.arange(count, dtype=np.uint64)), sample - 1)[sample - 1])


def _chosen(rows: Sequence[Row], threshold: int) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = mixed(np.array([row.number for row in rows], np.uint64)) <= np.uint64(
        threshold
    )
    return chosen


@dataclass(frozen=True)
class _Looking:
    """The work on a range of chunks. languages, counted: see `_threshold`."""

    read: Read
    measure: Measure
    languages: int
    counted: int
    alone: bool = False

    def __call__(self, part: range) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        tables = Tables([{} for _ in self.read.files])
        places = {one.file: place for place, one in enumerate(self.read.files)}
        arrays: dict[str, list[NDArray[Any]]] = {}
        for index in part:
            rows = list(self.read.rows(self.read.chunks[index]))
            files = [places[row.ref.file] for row in rows]
            self._count(rows, files, tables)
            labels = [labels_of(row) for row in rows]
            for row, of_row in zip(rows, labels, strict=True):
                for column, label in of_row:
                    tables.label(row.split, column, label[:200], 1, row.number)
            sampled = _chosen(rows, self.counted)
            sizes = self._sizes(rows, sampled)
            found: dict[str, NDArray[Any]] = {
                "splits": np.array([SPLITS.index(row.split) for row in rows], np.int8),
                "files": np.array(files, np.int32),
                "sizes": sizes,
                "sampled": sampled,
                "masks": np.array([_mask(*both) for both in zip(rows, labels, strict=True)], np.int32),
                "keys": np.array([keys_of(row) for row in rows], np.uint64),
                "targets": targets_of(rows, max(len(s.meaning.targets) for s in self.read.shapes)),
            }
            found["masks"] |= np.where(sizes[:, 0] == REFUSED, BITS["unusable"], 0)
            found["masks"] |= np.where(sizes[:, 3] > self.measure.context, BITS["too_long"], 0)
            for name, array in found.items():
                arrays.setdefault(name, []).append(array)
        return {name: np.concatenate(parts) for name, parts in arrays.items()}, tables.as_said()

    def _sizes(self, rows: Sequence[Row], sampled: NDArray[np.bool_]) -> NDArray[np.int32]:
        """(n, 4). A token has a byte at least: with fewer bytes than the model takes tokens no row is too long."""
        room = max(self.measure.context // 2, self.measure.context - TEMPLATE)
        out = np.full((len(rows), 4), NOT_COUNTED, np.int32)
        chosen = [
            at
            for at, (row, is_sample) in enumerate(zip(rows, sampled.tolist(), strict=True))
            if is_sample or sum([_bytes(text.text) for text in row.texts]) > room
        ]
        out[[at for at, row in enumerate(rows) if row.error is not None]] = REFUSED
        if chosen:
            out[chosen] = [_four(size) for size in sizes_of([rows[at] for at in chosen], self.measure)]
        return out

    def _count(self, rows: Sequence[Row], files: Sequence[int], tables: Tables) -> None:
        of_file: dict[int, list[Values]] = {}
        for row, file in zip(rows, files, strict=True):
            of_file.setdefault(file, []).append(row.values)
        for file, values in of_file.items():
            tables.see(file, values)
        for at in np.flatnonzero(_chosen(rows, self.languages)).tolist():
            content = " ".join(t.text for t in rows[at].texts if t.part in ("prompt", "answer", "fixed"))
            tables.languages[rows[at].split][language_of(content[:2000]) or UNTOLD] += 1


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _mask(row: Row, labels: Sequence[tuple[str, str]]) -> int:
    return mask_of(reasons_of(row, classes_of(row, labels)))


def _four(size: Size | RowError) -> tuple[int, int, int, int]:
    if isinstance(size, RowError):
        return (REFUSED, REFUSED, REFUSED, REFUSED)
    return size.prompt, size.answer, size.whole, size.longest


def targets_of(rows: Sequence[Row], most: int) -> NDArray[np.float64]:
    """(n, most) the numbers that each row is to be answered with; NaN where it has none."""
    out = np.full((len(rows), most), np.nan)
    for place, row in enumerate(rows):
        if row.shape.meaning.targets and not isinstance(row.example, RowError):
            numbers = json.loads(row.example.answer)
            out[place, : len(row.shape.meaning.targets)] = numbers
    return out


def sizes_of(rows: Sequence[Row], measure: Measure) -> list[Size | RowError]:
    """Of each row its size, or why training drops it."""
    examples = [row.example for row in rows]
    out: list[Size | RowError] = [e if isinstance(e, RowError) else _WAITING for e in examples]
    kinds: dict[str, list[tuple[int, Example]]] = {}
    for place, (row, example) in enumerate(zip(rows, examples, strict=True)):
        if not isinstance(example, RowError):
            kinds.setdefault(row.shape.meaning.kind, []).append((place, example))
    for kind, found in kinds.items():
        sizes = measure.of(kind, [example for _, example in found])
        for (place, _), size in zip(found, sizes, strict=True):
            out[place] = size
    return out


_WAITING = Size(0, 0, 0, 0)


def labels_of(row: Row) -> list[tuple[str, str]]:
    """(column, label) of every class that a row names: its label or labels, a verdict, a field of a JSON answer."""
    meaning = row.shape.meaning
    if not meaning.json_fields and meaning.kind not in ("label", "labels", "unpaired"):
        return []
    example = row.example
    if isinstance(example, RowError):
        return []
    if meaning.kind == "label":
        return [(meaning.columns["label"], example.label or "")]
    if meaning.kind == "labels":
        return [(meaning.columns["labels"], name) for name in json.loads(example.answer)]
    if meaning.kind == "unpaired":
        verdict = "good" if example.completions[0].score else "bad"
        return [(meaning.columns["label"], verdict)]
    fields = ((name, row.values.get(name)) for name in meaning.json_fields)
    return [
        (name, str(value)) for name, value in fields if isinstance(value, str | bool | int) and value != ""
    ]


def classes_of(row: Row, labels: Sequence[tuple[str, str]]) -> list[str]:
    """The labels of a row that is to be put into classes."""
    return [label for _, label in labels] if row.shape.meaning.kind in ("label", "labels") else []


def keys_of(row: Row) -> tuple[int, int]:
    """Of what a row asks, and of what the answer is, whether text, label, number or judgement; 0 without an answer."""
    asked, answered = asked_and_answered(row)
    if not any(answered):
        return _number(row, asked), 0
    return _number(row, asked), _number(row, answered) or 1


def asked_and_answered(row: Row) -> tuple[list[str], list[str]]:
    """Of a conversation the last answer, and all before it; of judged rows the answers, and what was said of them."""
    meaning = row.shape.meaning
    if meaning.kind not in (*JUDGED, "messages"):
        asked, answers = row.shape.sides
        return [_shown(row, column) for column in asked], [_shown(row, column) for column in answers]
    content = [text for text in row.texts if text.part in CONTENT]
    if meaning.kind in JUDGED:
        # The same answers in another order are the same question to people.
        question = sorted(text.text for text in content)
        return question, [
            *(text.text for text in content),
            *(json.dumps(row.values.get(column)) for column in _judging(row)),
        ]
    last = max((at for at, text in enumerate(content) if text.part == "answer"), default=len(content))
    return [text.text for text in content[:last]], [text.text for text in content[last : last + 1]]


def _judging(row: Row) -> list[str]:
    parts = ("label", "rating", "ranks", "scores", "margin", "score_chosen", "score_rejected")
    return [row.shape.meaning.columns[part] for part in parts if part in row.shape.meaning.columns]


def _shown(row: Row, column: str) -> str:
    value = row.values.get(column)
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _number(row: Row, texts: Sequence[str]) -> int:
    return int.from_bytes(key_of_normalised([row.normalised(text) for text in texts])[:8], "little")
