"""Walking through doubtful rows: what is shown, and what a key does. Reading keys is the terminal's part.

Every key that decides is on the disk before the next row is shown, so that a walk can end anywhere, and goes on where
it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tunesmith.config.desk import DeskData
from tunesmith.data.folders import CURRENT
from tunesmith.desk.conflicts import answer_of
from tunesmith.desk.decisions import DECISIONS, Decision, Verdict, read_decisions, write_decisions
from tunesmith.desk.dedup import said
from tunesmith.desk.held import held
from tunesmith.desk.quality import QUALITY, Record, table_of
from tunesmith.desk.rows import Row
from tunesmith.desk.steps import excerpt
from tunesmith.desk.versions import DataSet
from tunesmith.errors import DataError
from tunesmith.types import EventSink

KEYS: dict[str, str] = {
    "k": "keep",
    "d": "drop",
    "r": "relabel",
    "s": "skip",
    "b": "back",
    "q": "quit",
}
OFFERED = 6
TAB, ENTER, ESCAPE, ERASE = "\t", ("\r", "\n"), "\x1b", ("\x7f", "\b")


@dataclass
class Choice:
    """A label being typed. Tab goes through the labels that what was typed stands in; Enter takes one; Escape none."""

    labels: Sequence[str]
    suggested: str | None
    typed: str = ""
    tabbed: int = 0

    @property
    def offered(self) -> list[str]:
        """Labels that begin with what was typed, then those in which it stands elsewhere; untyped: the suggested one
        first."""
        typed = self.typed.casefold()
        if not typed:
            first = [self.suggested] if self.suggested else []
            return first + [label for label in self.labels if label != self.suggested]
        begin = [label for label in self.labels if label.casefold().startswith(typed)]
        return begin + [label for label in self.labels if typed in label.casefold() and label not in begin]

    def press(self, key: str) -> str | None:
        """The label that was taken, if any."""
        if key == TAB and self.offered:
            self.tabbed = (self.tabbed + 1) % len(self.offered)
        elif key in ENTER and self.offered:
            return self.offered[self.tabbed]
        elif key in ERASE:
            self.typed, self.tabbed = self.typed[:-1], 0
        elif key.isprintable():
            self.typed, self.tabbed = self.typed + key, 0
        return None


@dataclass
class Walk:
    """records: the rows to look at, in this order. rows: by number. at: the one that is shown; past the last: done."""

    records: Sequence[Record]
    rows: dict[int, Row]
    labels: Sequence[str]
    path: Path
    decided: dict[int, Decision] = field(default_factory=dict)
    at: int = 0
    choice: Choice | None = None
    ended: bool = False

    @cached_property
    def places(self) -> dict[str, Row]:
        return {str(row.ref): row for row in self.rows.values()}

    def press(self, key: str) -> None:
        """Does what the key says; keys that mean nothing do nothing."""
        if self.choice is not None:
            self._choose(self.choice, key)
            return
        what = KEYS.get(key)
        if what == "quit":
            self.ended = True
        elif what == "back":
            self.at = max(self.at - 1, 0)
        elif what == "relabel" and self.labels and not self.done:
            self.choice = Choice(self.labels, self.record.get("suggested"))
        elif what in ("keep", "drop", "skip") and not self.done:
            self._decide(what)  # type: ignore[arg-type]

    @property
    def done(self) -> bool:
        return self.at >= len(self.records)

    @property
    def record(self) -> Record:
        return self.records[self.at]

    def _choose(self, choice: Choice, key: str) -> None:
        if key == ESCAPE:
            self.choice = None
            return
        label = choice.press(key)
        if label is not None:
            self.choice = None
            same = label == self.record["label"]
            self._decide("keep" if same else "relabel", None if same else label)

    def _decide(self, verdict: Verdict, label: str | None = None) -> None:
        record = self.record
        self.decided[record["row"]] = Decision(
            record["key"], record["place"], verdict, record.get("label"), label
        )
        write_decisions(self.path, list(self.decided.values()))
        self.at += 1

    def screen(self) -> list[str]:
        """What a person sees."""
        if self.done:
            return [f"all {len(self.records):,} rows are decided", "b back   q quit"]
        record, row = self.record, self.rows[self.record["row"]]
        before = self.decided.get(record["row"])
        lines = [f"{self.at + 1:,} of {len(self.records):,}   {record['place']} ({record['split']})"]
        lines += [f"why: {', '.join(record['reasons'])}", ""]
        lines += ["\n".join(said(row, "prompt")), ""]
        if "label" in record:
            sure = f" (at {record['confidence']:.3f})" if "confidence" in record else ""
            lines.append(f"label: {record['label']}{sure}")
            lines += [f"probe: {record['suggested']}"] if record["suggested"] else []
        else:
            lines += ["answer:", "\n".join(answer_of(row))]
        for other in record["conflicts"][:OFFERED]:
            lines.append(f"contradicts: {other['place']}")
            if (there := self.places.get(other["place"])) is not None:
                lines.append(f"    {excerpt([*said(there, 'prompt'), *answer_of(there)])}")
        if before is not None:
            lines.append(f"decided: {before.verdict}{'' if before.label is None else f' to {before.label}'}")
        return [*lines, "", *self._asked()]

    def _asked(self) -> list[str]:
        if self.choice is None:
            names = [what for what in KEYS.values() if what != "relabel" or self.labels]
            return ["   ".join(f"{what[0]} {what}" for what in names)]
        marked = self.choice.tabbed
        first = max(0, marked - OFFERED + 1)
        offered = self.choice.offered[first : first + OFFERED]
        lines = [f"label: {self.choice.typed}", "Tab next   Enter take   Escape none"]
        return (
            lines
            + [f"{'>' if at == marked else ' '} {label}" for at, label in enumerate(offered, first)]
            + ([] if offered else ["  no label has this in it"])
        )


def walk_of(folder: Path, sink: EventSink) -> Walk:
    """The walk through the rows of a data set (or a folder of `data quality`) that have a reason, the worst first, from
    where the last one ended. Raises DataError where there is no table, or files have changed since it was made."""
    table = quality_folder(folder)
    records, summary = table_of(table)
    found = held(DeskData.model_validate(summary["data"]), sink)
    then = [one["sha256"] for one in summary["files"]]
    if [one.sha256 for one in found.files] != then:
        raise DataError(
            f"{', '.join(one.file for one in found.files)}: not as when the rows were scored",
            "the same rows",
            "run tunesmith data quality again",
        )
    doubtful = [record for record in records if record["reasons"]]
    if not doubtful:
        raise DataError(f"{table}: no row has a reason to be looked at")
    path = table / DECISIONS
    walk = Walk(
        doubtful,
        {row.number: row for row in found.rows},
        sorted({record["label"] for record in records if "label" in record}),
        path,
    )
    if path.is_file():
        _go_on(walk, read_decisions(path))
    return walk


def _go_on(walk: Walk, decisions: Sequence[Decision]) -> None:
    numbers = {(record["key"], record["place"]): record["row"] for record in walk.records}
    for decision in decisions:
        number = numbers.get((decision.key, decision.place))
        if number is None:
            raise DataError(
                f"{walk.path}: a decision on {decision.place}, which is not among the rows to review",
                "decisions that were made with this table",
                "move the file away, and begin again",
            )
        walk.decided[number] = decision
    left = (at for at, record in enumerate(walk.records) if record["row"] not in walk.decided)
    walk.at = next(left, len(walk.records))


def quality_folder(folder: Path) -> Path:
    """Of a data set the table of its current version; any other folder itself."""
    if (folder / CURRENT).is_file():
        return folder / QUALITY / DataSet(folder).version().folder.name
    return folder
