"""Steps over rows, in passes: each row goes through a chain of row steps, and is looked at by the survey after them.

A pass takes each chunk by itself, so chunks are shared out among processes, and what it leaves are chunks again. Every
row that goes in comes out, or is dropped by a step that is counted and kept whole in the ledger.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.shares import Made, Sharing
from tunesmith.desk.cluster import Cluster
from tunesmith.desk.left import Left
from tunesmith.desk.plans import Plan, Walk, by_processes, side_by_side
from tunesmith.desk.reading import Chunk, Read, packed
from tunesmith.desk.rows import SPLITS, Row, Values
from tunesmith.desk.scrub import Veil
from tunesmith.desk.steps import Outcome, RowStep, RunsModel, Seen, Step, Survey, is_survey
from tunesmith.types import EventSink

LOOKS = ("numbers", "splits", "files", "lines", "looks")
EXAMPLES = 3
"""Of each rule, shown to a person."""
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


@dataclass
class Example:
    """A row that a rule acted on: where, what was there, and what is there now (null: dropped)."""

    place: str
    before: dict[str, Any]
    after: dict[str, Any] | None
    message: str


@dataclass
class Counted:
    """Of one step: rows in + added = rows out + dropped. changed (by rule) and moved (to a split) are among those that
    come out; rows_changed: in how many rows a text is another now."""

    name: str
    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    rows_changed: int = 0
    examples: dict[str, list[Example]] = field(default_factory=dict)

    def check(self) -> None:
        if self.rows_in + self.added.total() != self.rows_out + self.dropped.total():
            raise AssertionError(
                f"{self.name}: {self.rows_in} rows in, {self.rows_out} out, {self.dropped} dropped, {self.added} added"
            )

    def as_dict(self) -> dict[str, Any]:
        return {
            "step": self.name,
            "in": self.rows_in,
            "out": self.rows_out,
            "dropped": dict(self.dropped.most_common()),
            "changed": dict(self.changed.most_common()),
            "moved": dict(self.moved.most_common()),
            "added": dict(self.added.most_common()),
            "rows_changed": self.rows_changed,
        }

    def with_example(self) -> dict[str, Any]:
        """As a dictionary, with an example of each rule."""
        examples = {rule: [vars(one) for one in found[:1]] for rule, found in self.examples.items()}
        return self.as_dict() | {"examples": examples}

    def add(self, said: dict[str, Any]) -> None:
        self.rows_in += said["in"]
        self.rows_out += said["out"]
        self.rows_changed += said["rows_changed"]
        self.dropped.update(said["dropped"])
        self.changed.update(said["changed"])
        self.moved.update(said["moved"])
        self.added.update(said["added"])
        for rule, found in said["examples"].items():
            held = self.examples.setdefault(rule, [])
            held += [Example(**one) for one in found[: EXAMPLES - len(held)]]


@dataclass
class Passes:
    """Runs steps over what was read. folder: where chunks and the ledger's parts lie while it works. veil: over what
    is shown, and over what the ledger keeps; None where rows may be seen as they are. cluster: whose machines work on
    chunks; None: processes of this one. kept: whether what is left is written after the last step, and described;
    otherwise it is only counted."""

    read: Read
    folder: Path
    sharing: Sharing
    sink: EventSink
    veil: Veil | None = None
    cluster: Cluster | None = None
    kept: bool = True
    counts: list[Counted] = field(default_factory=list)
    ledgers: list[Path] = field(default_factory=list)
    left: dict[str, Left] = field(default_factory=dict)
    """Of each split, what is in it after the last pass."""
    _folder: Path = Path()
    """Of the last pass."""

    def run(self, steps: Sequence[Step], beside: Sequence[Plan[Any]] = ()) -> list[Any]:
        """What the plans beside it return, and the folder with what is left after all steps, in pieces: NNNNNN.train
        and its kin hold rows as they are to be written, NNNNNN.origins where each is from."""
        return side_by_side([*beside, self.plan(steps)], self._carrying)

    def plan(self, steps: Sequence[Step]) -> Plan[Path]:
        """As `run`, to be carried out beside others."""
        chunks = self.read.chunks
        waiting: list[RowStep] = []
        for step in steps:
            if not is_survey(step):
                waiting.append(step)  # type: ignore[arg-type]
                continue
            chunks, seen = yield from self._passed(chunks, waiting, step)  # type: ignore[arg-type]
            assert seen is not None
            waiting = [step.decide(seen)]  # type: ignore[union-attr]
        yield from self._passed(chunks, waiting, None)
        for counted in self.counts:
            counted.check()
        return self._folder

    def _passed(
        self, chunks: list[Chunk], steps: Sequence[RowStep], survey: Survey | None
    ) -> Plan[tuple[list[Chunk], Seen | None]]:
        self._folder = self.folder / f"pass-{len(list(self.folder.glob('pass-*')))}"
        self._folder.mkdir()
        work = Pass(self.read, chunks, steps, survey, self._folder, self.veil, self.kept)
        name = " + ".join([step.name for step in steps] + ([f"{survey.name}: looking"] if survey else []))
        self.sink("phase", name=name or "rows", text=f"{len(chunks):,} chunks")
        made = yield work
        counts = [Counted(step.name) for step in steps]
        for arrays, said in made:
            for counted, one in zip(counts, said["steps"], strict=True):
                counted.add(one)
            for split, found in said["left"].items():
                self.left.setdefault(split, Left()).join(arrays[split].tolist(), *found)
        self.counts += counts
        if self.kept or chunks is not self.read.chunks:
            for chunk in chunks:
                chunk.path.unlink()
        self.ledgers += sorted(self._folder.glob("*.ledger"))
        out = [
            Chunk(self._folder / f"{at:06d}.jsonl", 0 if steps else chunk.first)
            for at, chunk in enumerate(chunks)
            if survey
        ]
        return out, self._seen([arrays for arrays, _ in made]) if survey else None

    def _carrying(self, walk: Walk) -> list[Made]:
        count = len(self.read.chunks)
        if self.cluster is None or walk.alone or count == 1:
            return by_processes(count, self.sharing)(walk)
        assert isinstance(walk, Pass)
        return self.cluster.passed(walk, [walk.chunks[at] for at in range(count)])

    def _seen(self, made: Sequence[Any]) -> Seen:
        # Taken out one after another: the arrays of ten million rows are not held twice.
        fields = {name: np.concatenate([arrays.pop(name) for arrays in made]) for name in LOOKS}
        return Seen(**fields, names=[one.file for one in self.read.files])


@dataclass(frozen=True)
class Pass:
    """The work on a range of chunks, which are known by their numbers."""

    read: Read
    chunks: Sequence[Chunk] | Mapping[int, Chunk]
    steps: Sequence[RowStep]
    survey: Survey | None
    target: Path
    veil: Veil | None
    kept: bool

    @property
    def alone(self) -> bool:
        return isinstance(self.survey, RunsModel)

    def __call__(self, part: range) -> Made:
        steps = [_nothing() for _ in self.steps]
        seen: dict[str, list[Any]] = {name: [] for name in LOOKS}
        left: dict[str, Left] = {}
        for index in part:
            self._chunk(index, steps, seen, left)
        said = {"steps": steps, "left": {split: (one.labels, one.unnamed) for split, one in left.items()}}
        if self.survey is None:
            return {split: _narrow(one.lengths) for split, one in left.items()}, said
        arrays = {name: _narrow(seen[name]) for name in LOOKS if name != "looks"}
        return arrays | {"looks": np.concatenate(seen["looks"])}, said

    def _chunk(
        self, index: int, said: list[dict[str, Any]], seen: dict[str, list[Any]], left: dict[str, Left]
    ) -> None:
        files = {one.file: place for place, one in enumerate(self.read.files)}
        source = self.chunks[index]
        with self._piece(index, "ledger") as kept:
            found = (self._row(row, said, kept) for row in self.read.rows(source))
            rows = [row for these in found for row in these]
        if self.survey is None:
            if self.kept:
                self._write(index, rows)
                for row in rows:
                    left.setdefault(row.split, Left()).add(row)
            return
        if self.steps:
            with self._piece(index, "jsonl") as out:
                out.writelines(packed(row, files[row.ref.file]) for row in rows)
        else:
            os.link(source.path, self.target / f"{index:06d}.jsonl")  # no step could have changed a row
        seen["numbers"] += [row.number for row in rows]
        seen["splits"] += [SPLITS.index(row.split) for row in rows]
        seen["files"] += [files[row.ref.file] for row in rows]
        seen["lines"] += [row.ref.line for row in rows]
        seen["looks"].append(self.survey.look(rows))

    def _write(self, index: int, rows: Sequence[Row]) -> None:
        for split in SPLITS:
            lines = [row.json + "\n" for row in rows if row.split == split]
            if lines:
                with self._piece(index, split) as out:
                    out.writelines(lines)
        names = {one.file: _ENCODE(one.file) for one in self.read.files}
        with self._piece(index, "origins") as out:
            out.writelines(
                f'[{row.number}, "{row.split}", {names[row.ref.file]}, {row.ref.line}]\n' for row in rows
            )

    def _piece(self, index: int, ending: str) -> TextIO:
        return (self.target / f"{index:06d}.{ending}").open("w", encoding="utf-8", newline="\n")

    def _row(self, row: Row, said: list[dict[str, Any]], kept: Any) -> list[Row]:
        """What is left of a row: it, those added to it by the last step, or nothing."""
        added: list[Row] = []
        for step, counts in zip(self.steps, said, strict=True):
            assert not added, "only the last step adds rows"
            counts["in"] += 1
            outcome = step.apply(row)
            if outcome is None:
                counts["out"] += 1
                continue
            if outcome.more:
                _count_added(counts, row, outcome)
                added = [Row(row.number, row.split, row.ref, values, row.shape) for values in outcome.more]
            elif outcome.values is row.values:
                counts["moved"] = {
                    **counts["moved"],
                    outcome.split: counts["moved"].get(outcome.split, 0) + 1,
                }
            else:
                entry = _entry(step.name, row, outcome)
                shown, told = (entry, entry) if self.veil is None else self.veil.over_entry(entry)
                kept.write(_ENCODE(told) + "\n")
                _count(counts, row, outcome, shown, self.veil)
            if outcome.values is None:
                return []
            counts["out"] += 1 + len(added)
            row = row.but(outcome.values, outcome.split)
        return [row, *added]


def _narrow(numbers: Sequence[int]) -> NDArray[Any]:
    """None of them is negative: in as few bytes as the largest takes, a hundred million less for ten million rows."""
    return np.array(numbers, np.min_scalar_type(max(numbers, default=0)))


def _nothing() -> dict[str, Any]:
    counts = {"in": 0, "out": 0, "rows_changed": 0}
    return {**counts, "dropped": {}, "changed": {}, "moved": {}, "added": {}, "examples": {}}


def _count_added(counts: dict[str, Any], row: Row, outcome: Outcome) -> None:
    """A row that others are added to stays as it is."""
    assert outcome.values is row.values
    rule = outcome.rules[-1]
    counts["added"][rule] = counts["added"].get(rule, 0) + len(outcome.more)
    shown = counts["examples"].setdefault(rule, [])
    if len(shown) < EXAMPLES:
        columns = [c for c in row.values if row.values[c] != outcome.more[0].get(c)] or list(row.values)
        before, after = ({c: values.get(c) for c in columns} for values in (row.values, outcome.more[0]))
        shown.append({"place": str(row.ref), "before": before, "after": after, "message": outcome.message})


def _count(
    counts: dict[str, Any], row: Row, outcome: Outcome, entry: dict[str, Any], veil: Veil | None
) -> None:
    dropped = outcome.values is None
    rules = outcome.rules[-1:] if dropped else outcome.rules
    counts["rows_changed"] += not dropped
    for rule in rules:
        tally = counts["dropped" if dropped else "changed"]
        tally[rule] = tally.get(rule, 0) + 1
        shown = counts["examples"].setdefault(rule, [])
        if len(shown) < EXAMPLES:
            after = None if outcome.values is None else {c: outcome.values.get(c) for c in entry["before"]}
            shown.append(
                {
                    "place": str(row.ref),
                    "before": entry["before"],
                    "after": after if veil is None else veil.over(after),
                    "message": entry["message"],
                }
            )


def _entry(step: str, row: Row, outcome: Outcome) -> dict[str, Any]:
    """What the ledger keeps: of a dropped row all of it, of a changed one the columns that changed."""
    where: dict[str, Any] = {"row": row.number, "file": row.ref.file, "line": row.ref.line, "step": step}
    what: dict[str, Any] = {"rules": list(outcome.rules), "message": outcome.message}
    if outcome.values is None:
        return where | what | {"dropped": True, "split": row.split, "before": row.values}
    columns = {*row.values, *outcome.values}
    before = {c: row.values.get(c) for c in sorted(columns) if _differs(c, row.values, outcome.values)}
    added = sorted(set(outcome.values) - set(row.values))
    return where | what | {"before": before} | ({"added": added} if added else {})


def _differs(column: str, before: Values, after: Values) -> bool:
    return column not in before or column not in after or before[column] != after[column]
