"""Reviewing: keys decide, each is on the disk at once, a walk goes on where it ended; and decisions are carried out on
the very rows that were looked at."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.desk.test_make import desk_of, left, quiet, written

from tunesmith.config.desk import Desk
from tunesmith.desk.decisions import Decision, read_decisions, write_decisions
from tunesmith.desk.held import content_key
from tunesmith.desk.make import make
from tunesmith.desk.originals import restored
from tunesmith.desk.quality import SUMMARY, TABLE
from tunesmith.desk.review import Choice, walk_of
from tunesmith.errors import DataError
from tunesmith.storage import digest

ROWS: list[dict[str, Any]] = [
    {"text": "the reader is dead", "label": "billing"},
    {"text": "charged twice", "label": "hardware"},
    {"text": "where is my invoice", "label": "billing"},
    {"text": "asdf qwer", "label": "billing"},
    {"text": "a broken cable", "label": "hardware"},
]


def scored(folder: Path) -> Path:
    """A table of quality, as `data quality` writes it; all rows but the last are doubtful."""
    file = written(folder, ROWS)
    records = [
        {
            "row": at,
            "place": f"{file}:{at + 1}",
            "split": "train",
            "key": content_key(row),
            "label": row["label"],
            "suggested": "hardware",
            "confidence": 0.1,
            "reasons": ["label_error"] if at < 4 else [],
            "conflicts": [{"place": f"{file}:5", "alike": 1.0}] if at == 0 else [],
        }
        for at, row in enumerate(ROWS)
    ]
    summary = {"data": {"train": [file]}, "files": [{"file": file, "sha256": digest(Path(file))}]}
    (folder / TABLE).write_text("".join(json.dumps(one) + "\n" for one in records))
    (folder / SUMMARY).write_text(json.dumps(summary))
    return folder


def verdicts(folder: Path) -> list[tuple[str, str | None]]:
    return [(one.verdict, one.label) for one in read_decisions(folder / "decisions.jsonl")]


def test_each_key_is_saved_and_a_walk_goes_on_where_it_ended(tmp_path: Path) -> None:
    walk = walk_of(scored(tmp_path), quiet)
    assert "    a broken cable | hardware" in walk.screen()  # what it contradicts
    walk.press("d")
    assert verdicts(tmp_path) == [("drop", None)]
    walk.press("x")  # means nothing
    walk.press("k")
    again = walk_of(tmp_path, quiet)
    assert (again.at, len(again.records)) == (2, 4)
    again.press("b")
    assert "decided: keep" in again.screen()
    again.press("s")
    assert verdicts(tmp_path) == [("drop", None), ("skip", None)]
    again.press("q")
    assert again.ended


def test_relabelling_takes_the_suggestion_or_what_is_typed(tmp_path: Path) -> None:
    walk = walk_of(scored(tmp_path), quiet)
    for key in "r\n" + "rBIL\t\n" + "r\x1bs":
        walk.press(key)
    assert verdicts(tmp_path) == [("relabel", "hardware"), ("relabel", "billing"), ("skip", None)]
    for key in "rbill\n":  # the label that it has
        walk.press(key)
    assert walk.done
    assert verdicts(tmp_path)[3] == ("keep", None)


def test_a_typed_label_is_completed_from_those_that_are_known() -> None:
    choice = Choice(["card_lost", "card_stolen", "lost_pin"], suggested="lost_pin")
    assert choice.offered[0] == "lost_pin"
    for key in "lost":
        choice.press(key)
    assert choice.offered == ["lost_pin", "card_lost"]
    choice.press("\t")
    assert choice.press("\n") == "card_lost"
    choice.press("z")
    assert choice.press("\n") is None
    choice.press("\x7f")
    assert choice.press("\n") == "lost_pin"


def test_rows_that_changed_are_not_reviewed(tmp_path: Path) -> None:
    scored(tmp_path)
    written(tmp_path, ROWS[1:])
    with pytest.raises(DataError, match="not as when the rows were scored"):
        walk_of(tmp_path, quiet)


# Carried out ---------------------------------------------------------------------------------------------


def decided(folder: Path, **verdict_of: Any) -> Desk:
    """A recipe with decisions on ROWS: r<place> = verdict, or a new label."""
    rows = desk_of(folder, ROWS).data.train[0]
    decisions = [
        Decision(
            content_key(ROWS[at]),
            f"{rows}:{at + 1}",
            *((what, None, None) if what in ("keep", "drop", "skip") else ("relabel", None, what)),
        )
        for at, what in ((int(name[1:]), what) for name, what in verdict_of.items())
    ]
    path = folder / "decisions.jsonl"
    write_decisions(path, decisions)
    return desk_of(folder, ROWS, review={"decisions": str(path)})


def test_decisions_drop_and_relabel_and_can_be_undone(tmp_path: Path) -> None:
    made = make(decided(tmp_path, r0="hardware", r1="keep", r2="skip", r3="drop"), quiet)
    assert left(made) == [{**ROWS[0], "label": "hardware"}, *ROWS[1:3], ROWS[4]]
    (step,) = made.steps
    assert (step.dropped, step.changed) == ({"reviewed_dropped": 1}, {"reviewed_relabelled": 1})
    assert made.version is not None
    assert [values for _, values in restored(made.version)] == ROWS


def test_a_stale_decision_is_refused_or_counted(tmp_path: Path) -> None:
    desk = decided(tmp_path, r3="drop", r4="drop")
    written(tmp_path, [*ROWS[:4], {**ROWS[4], "text": "another cable"}])
    with pytest.raises(DataError, match=r"1 of 2 decisions are of rows that are not there, such as .*:5"):
        make(desk, quiet)
    assert desk.review is not None
    desk.review.stale = "skip"
    (step,) = make(desk, quiet).steps
    assert (step.name, step.rows_out) == ("review (1 stale decisions left out)", 4)


def test_of_equal_rows_the_one_at_the_place_is_meant(tmp_path: Path) -> None:
    desk = decided(tmp_path, r1="drop")
    written(tmp_path, [ROWS[0], ROWS[1], ROWS[1]])
    made = make(desk, quiet)
    assert made.version is not None
    lines = (made.version.folder / "origins.jsonl").read_text().splitlines()
    assert [json.loads(line)[3] for line in lines] == [1, 3]


def test_a_line_that_is_no_decision_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    path.write_text('{"key": "00", "place": "a:1", "verdict": "maybe"}\n')
    with pytest.raises(DataError, match="'maybe'") as error:
        read_decisions(path)
    assert "keep, drop, relabel, skip" in str(error.value)


# At a terminal -------------------------------------------------------------------------------------------


class Person:
    """Sits at a pseudo-terminal, waits until words are on the screen, and then presses keys."""

    def __init__(self, *arguments: str) -> None:
        self.hand, screen = pty.openpty()
        command = [sys.executable, "-m", "tunesmith.cli.main", "data", "review", *arguments]
        self.process = subprocess.Popen(command, stdin=screen, stdout=screen, stderr=subprocess.PIPE)
        os.close(screen)
        self.seen = ""

    def sees(self, words: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.hand], [], [], 0.2)[0]:
                self.seen += os.read(self.hand, 65536).decode()

    def presses(self, keys: str) -> None:
        self.seen = ""
        os.write(self.hand, keys.encode())

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.hand)


def test_a_person_at_a_terminal(tmp_path: Path) -> None:
    with Person(str(scored(tmp_path))) as person:
        person.sees("the reader is dead")
        person.presses("r")
        person.sees("Tab next")
        person.presses("\n")
        person.sees("charged twice")
        person.presses("\x1b[A")  # an arrow decides nothing
        person.presses("d")
        person.sees("where is my invoice")
        person.presses("q")
        person.sees("2 of 4 rows decided")
        assert person.process.wait(60) == 0
    assert verdicts(tmp_path) == [("relabel", "hardware"), ("drop", None)]


def test_without_a_terminal_nothing_is_asked(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tunesmith.cli.main", "data", "review", str(scored(tmp_path))]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no terminal" in done.stderr
