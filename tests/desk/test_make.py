"""A run of the desk: every row that goes in comes out or is counted, what was done can be undone, and a version is
whole or not there."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.config.desk import Desk
from tunesmith.config.run import DataConfig
from tunesmith.data.load import load_splits
from tunesmith.data.shares import Sharing
from tunesmith.desk.make import Made, file_facts, make
from tunesmith.desk.originals import restored
from tunesmith.desk.rows import SPLITS
from tunesmith.desk.versions import DataSet
from tunesmith.errors import ConfigError, DataError, ResourceError

ALL: dict[str, Any] = {"clean": {}, "dedup": {}, "split": {"validation": 0.2, "test": 0.2}}


def quiet(kind: str, /, **fields: Any) -> None:
    pass


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def desk_of(folder: Path, rows: list[dict[str, Any]], **steps: Any) -> Desk:
    document = {"output": str(folder / "out"), "data": {"train": [written(folder, rows)]}, **steps}
    return Desk.model_validate(document)


def left(made: Made) -> list[dict[str, Any]]:
    assert made.version is not None
    texts = [path.read_text(encoding="utf-8") for path in sorted(made.version.folder.glob("t*.jsonl"))]
    return [json.loads(line) for text in texts for line in text.splitlines()]


TICKETS = [
    {"text": f"{what} since {day} {when}, and {then}", "label": label, "customer": f"c{number % 7}"}
    for number, (what, day, when, then, label) in enumerate(
        (what, day, when, then, label)
        for what, label in (("the card reader is dead", "hardware"), ("I was charged twice", "billing"))
        for day in ("Monday", "Tuesday", "Friday")
        for when in ("at noon", "in the evening", "all night")
        for then in ("nobody answers my mails", "my shop stands still", "I need it for tomorrow's market day")
    )
]


def test_every_row_is_accounted_for_and_can_be_had_back(tmp_path: Path) -> None:
    rows = [
        *TICKETS,
        TICKETS[0],
        {"text": " ", "label": "billing"},
        {"text": "<p>Help</p> me&nbsp;now", "label": "billing"},
    ]
    made = make(desk_of(tmp_path, rows, **ALL), quiet)
    counts = {step.name: step for step in made.steps}
    assert counts["clean"].dropped == {"empty_text": 1}
    assert counts["clean"].changed == {"html": 1}
    assert counts["dedup"].dropped["exact"] == 1
    for before, after in zip(made.steps, made.steps[1:], strict=False):
        assert before.rows_out == after.rows_in
    assert sum(made.rows.values()) == made.steps[-1].rows_out
    assert made.version is not None
    assert [values for _, values in restored(made.version)] == rows
    made.version.check()


TEXTS = st.text(st.sampled_from("ab <b>&amp;\u200b\u00e9\n\tTODO|_im"), max_size=30)
ROWS = st.lists(
    st.fixed_dictionaries({"text": TEXTS, "label": st.sampled_from(["a", "b", "A"])}),
    min_size=12,
    max_size=40,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_in_is_out_and_dropped_whatever_the_rows(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    rows = [{"text": "one good row", "label": "a"}, *rows]
    made = make(desk_of(tmp_path, rows, clean={}, dedup={}), quiet, sharing=Sharing(1))
    assert made.version is not None
    dropped = sum(step.dropped.total() for step in made.steps)
    assert len(rows) == len(left(made)) + dropped
    assert [values for _, values in restored(made.version)] == rows


def test_rows_are_had_back_one_by_one(tmp_path: Path) -> None:
    rows = [{"text": f"row <b>{at}</b> " + chr(97 + at % 26) * 5_000, "label": "a"} for at in range(2_000)]
    rows[3]["text"] = " "
    made = make(desk_of(tmp_path, rows, clean={}), quiet, sharing=Sharing(1))
    assert made.version is not None
    tracemalloc.start()
    assert all(values == row for (_, values), row in zip(restored(made.version), rows, strict=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # of 10 MB


def test_processes_make_the_same_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.desk.reading.CHUNK_ROWS", 7)
    monkeypatch.setattr("tunesmith.desk.reading.STRETCH", 500)
    monkeypatch.setattr("tunesmith.data.stretches.CHUNK", 300)
    desk = desk_of(tmp_path, TICKETS * 2, **ALL)
    file = Path(desk.data.train[0])
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(
        b"".join((*lines[:9], b"no row\n", b"\n", *lines[9:30], b'{"text": NaN}\n', *lines[30:]))
    )
    one, two = (make(desk, quiet, sharing=Sharing(count)) for count in (1, 2))
    assert one.version is not None
    assert two.version is not None
    assert [file_facts(source) for source in one.files] == [file_facts(source) for source in two.files]
    names = (*(f"{split}.jsonl" for split in SPLITS), "origins.jsonl", "changes.jsonl", "refused.jsonl")
    for name in names:
        assert (one.version.folder / name).read_bytes() == (two.version.folder / name).read_bytes()


def test_a_data_set_is_read_with_all_its_splits(tmp_path: Path) -> None:
    split = {"validation": 0.2, "test": 0.2, "near": None}
    first = make(desk_of(tmp_path, TICKETS, split=split), quiet)
    more = written(tmp_path, [{"text": "another   matter", "label": "billing"}], "more.jsonl")

    def rows_after(train: list[str], **steps: Any) -> dict[str, int]:
        document = {"output": str(tmp_path / "out"), "data": {"train": train}, **steps}
        return make(Desk.model_validate(document), quiet, dry_run=True).rows

    out = str(tmp_path / "out")
    assert rows_after([out], clean={}) == first.rows
    assert rows_after([out, more], clean={}) == {**first.rows, "train": first.rows["train"] + 1}
    assert rows_after([f"{out}#train"], clean={}) == {"train": first.rows["train"]}
    anew = rows_after([out], split={"validation": 0.1, "test": 0.1, "near": None})
    assert (sum(anew.values()), anew["test"]) == (len(TICKETS), 6)


@pytest.mark.parametrize("wrong", ["english", "EN", "xx"])
def test_a_language_that_is_never_told_is_no_reason_to_drop_all_rows(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"clean.languages names '{wrong}'"):
        make(desk_of(tmp_path, TICKETS, clean={"languages": ["de", wrong]}), quiet, dry_run=True)
    made = make(desk_of(tmp_path, TICKETS, clean={"languages": ["en", "de"]}), quiet, dry_run=True)
    assert made.rows == {"train": len(TICKETS)}


def test_a_trial_writes_nothing(tmp_path: Path) -> None:
    made = make(desk_of(tmp_path, TICKETS, **ALL), quiet, dry_run=True)
    assert made.version is None
    assert made.rows["train"] > 0
    assert not (tmp_path / "out").exists()


def test_training_reads_the_current_version(tmp_path: Path) -> None:
    make(desk_of(tmp_path, TICKETS, split={"validation": 0.2, "test": 0.2, "near": None}), quiet)
    folder = str(tmp_path / "out")
    splits = load_splits(DataConfig(train=[folder], validation=[folder], test=[folder]), 0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (32, 11, 11)
    alone = load_splits(DataConfig(train=[folder]), 0)
    assert (alone.train, alone.validation, alone.test) == (splits.train, splits.validation, splits.test)


def test_a_fault_leaves_no_version(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, TICKETS, split={"time": "when"})
    with pytest.raises(DataError, match="field 'when': 'None' is no time"):
        make(desk, quiet)
    assert list((tmp_path / "out" / "versions").iterdir()) == []


def test_a_place_for_no_data_set_and_a_full_disk_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desk_of(tmp_path, TICKETS, clean={})
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="no folder can be made there"):
        make(desk.model_copy(update={"output": str(tmp_path / "file")}), quiet)

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tunesmith.desk.make._joined", full)
    with pytest.raises(ResourceError, match=r"the disk under .* is full"):
        make(desk, quiet)
    assert list((tmp_path / "out" / "versions").iterdir()) == []


def child(desk: Desk, before: Callable[[], None]) -> int:
    """A process that makes a version; its number."""
    process = os.fork()
    if process == 0:
        try:
            os.setsid()
            before()
            make(desk, quiet, sharing=Sharing(2))
        finally:
            os._exit(0)
    return process


def whole_versions(folder: Path) -> int:
    """Checks that the current version and all others are whole; the current one's number."""
    data_set = DataSet(folder)
    for version in data_set.versions():
        version.check()
    return data_set.version().number


def test_a_death_at_any_storage_operation_leaves_whole_versions_alone(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, TICKETS, clean={}, dedup={})
    make(desk, quiet)
    before = tmp_path / "before"
    (tmp_path / "out").rename(before)
    ended, at, found = False, 0, Counter[tuple[int, int]]()
    while not ended:
        at += 1
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(before, tmp_path / "out")

        def die(last: int = at) -> None:
            left, parent = itertools.count(1), os.getpid()

            def hook(event: str, arguments: tuple[Any, ...]) -> None:
                storage = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (
                    event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wax"
                )
                if storage and os.getpid() == parent and next(left) == last:
                    os._exit(1)

            sys.addaudithook(hook)

        _, status = os.waitpid(child(desk, die), 0)
        ended = os.waitstatus_to_exitcode(status) == 0
        current = whole_versions(tmp_path / "out")
        found[current, len(DataSet(tmp_path / "out").versions())] += 1
    # Two deaths are after the rename that makes a version and before it is the current one.
    assert found == {(1, 1): at - 3, (1, 2): 2, (2, 2): 1}
    assert at > 15


def test_a_kill_at_any_time_leaves_whole_versions_alone(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, TICKETS * 40, **ALL)
    first = make(desk, quiet)
    generator = random.Random(0)
    for _ in range(5):
        process = child(desk, lambda: None)
        time.sleep(generator.uniform(0, first.seconds * 1.2))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        assert whole_versions(tmp_path / "out") >= 1
    make(desk, quiet)
    left_over = [one.name for one in (tmp_path / "out" / "versions").iterdir() if not one.name.isdigit()]
    assert left_over == [], "what the dead left is taken away by the next"
