"""Rows shared out among processes are those of one process, bit for bit, and so is what is said of them."""

from __future__ import annotations

import gc
import json
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.chats import STYLES, renderer
from tests.data.test_backend import WORDPIECE, same
from tests.data.test_flat import FILES, tree
from tunesmith.config.run import DataConfig
from tunesmith.data.account import Account
from tunesmith.data.ahead import accounted, ahead_of_reading
from tunesmith.data.encode import HeadEncoder, encode, heads
from tunesmith.data.flat import FlatRows, flat_examples, flat_rows, joined
from tunesmith.data.load import load_splits, read_examples, tokenise
from tunesmith.data.making import Making
from tunesmith.data.shares import Beforehand, Made, Sharing, beforehand, shared_out
from tunesmith.data.tokens import chats as make_chats
from tunesmith.errors import DataError, RowError
from tunesmith.types import Example, TokenRow

ALONE, SHARED = Sharing(1), Sharing(2, least=50, part=40)
STRIPS = next(name for name, style in STYLES.items() if style.splits)
WORDS = "red green blue old new box cup tree \u00e9 \ud83d\ude00".split()

Tokenise = Callable[[Sequence[Example], Account, Sharing], Sequence[TokenRow]]


def chats(path: Path, count: int, share_bad: float) -> str:
    """Conversations of one or two turns; a noncharacter in a text is found only when it is rendered."""
    rng = random.Random(count)

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))

    rows = []
    for _ in range(count):
        turns = [{"role": role, "content": text()} for role in ("user", "assistant") * rng.randint(1, 2)]
        if rng.random() < share_bad:
            turns[0]["content"] = rng.choice(["a\ufdd0", ""])
        rows.append({"messages": turns})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def outcome(files: list[str], on_bad_row: Any, tokenise: Tokenise, sharing: Sharing, folder: Path) -> Any:
    """Rows, counts, notes in their order, the list of dropped rows, and what was refused."""
    account = Account(on_bad_row, folder)
    rows: Sequence[TokenRow] = []
    refused = ""
    try:
        examples, _ = read_examples(files, DataConfig(train=files), account)
        account.repeat(examples[3].ref, 1)
        rows = tokenise([*examples, examples[3]], account, sharing)
    except DataError as error:
        refused = str(error)
    account.flush()
    dropped = (folder / "dropped.jsonl").read_bytes() if (folder / "dropped.jsonl").exists() else b""
    counts = {
        name: vars(count) | {"first": {reason: str(error) for reason, error in count.first.items()}}
        for name, count in account.files.items()
    }
    notes = (
        [] if refused else list(account.notes.items())
    )  # a run that is refused tells nobody what it repaired
    return rows, counts, notes, dropped, refused.replace(str(folder), "")


def by_template(name: str, max_length: int, on_long_row: Any) -> Tokenise:
    return lambda examples, account, sharing: tokenise(
        examples, renderer(name), "assistant", max_length, on_long_row, account, sharing
    )


def by_head(examples: Sequence[Example], account: Account, sharing: Sharing) -> Sequence[TokenRow]:
    last = [Example(e.ref, e.messages[-2:]) for e in examples]
    encoder = HeadEncoder(WORDPIECE, "classify", ["red", "blue"])
    return encode(last, encoder, 8, "cut", account, sharing)


@pytest.mark.parametrize(
    ("tokenise", "bad", "on_bad_row"),
    [
        (by_template("chatml, pad == eos", 40, "cut"), 0.03, "skip"),
        (by_template("chatml, pad == eos", 30, "drop"), 0.03, "skip"),
        (by_template(STRIPS, 60, "drop"), 0.03, "skip"),
        (by_template("chatml, pad == eos", 40, "cut"), 0.5, "skip"),
        (by_template("chatml, pad == eos", 40, "cut"), 0.01, "stop"),
        (by_head, 0.0, "skip"),
    ],
    ids=["cut", "dropped", "a row for each turn", "refused", "stopped", "a head"],
)
def test_several_processes_make_what_one_makes(
    tmp_path: Path, tokenise: Tokenise, bad: float, on_bad_row: Any
) -> None:
    files = [chats(tmp_path / "a.jsonl", 900, bad), chats(tmp_path / "b.jsonl", 1100, bad)]
    one, *said = outcome(files, on_bad_row, tokenise, ALONE, tmp_path / "one")
    several, *said_too = outcome(files, on_bad_row, tokenise, SHARED, tmp_path / "several")
    assert said == said_too
    assert len(one) == len(several)
    assert isinstance(several, FlatRows) == bool(several)
    same(list(several), list(one))
    assert bool(said[-1]) == (bad == 0.5 or on_bad_row == "stop")


def test_few_rows_stay_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a process for few rows"))
    rows, *_ = outcome(
        [chats(tmp_path / "a.jsonl", 48, 0)],
        "skip",
        by_template("chatml, pad == eos", 99, "cut"),
        SHARED,
        tmp_path / "run",
    )
    assert len(rows) >= 49


def test_examples_flattened_by_several_processes(tmp_path: Path) -> None:
    file = chats(tmp_path / "a.jsonl", 300, 0)
    examples, _ = read_examples([file], DataConfig(train=[file]), Account())
    one, several = (flat_examples(examples, {file: 0}, sharing) for sharing in (ALONE, SHARED))
    assert one.keys() == several.keys()
    for name in one:
        assert one[name].dtype == several[name].dtype
        assert one[name].tolist() == several[name].tolist()


@pytest.mark.parametrize("cuts", [(0, 13), (1, 39), (40, 40)])
def test_flat_rows_joined_are_the_rows_flattened_together(cuts: tuple[int, int]) -> None:
    rows = [tree(line) for line in range(40)]
    first, second = cuts
    parts = [flat_rows(part, FILES) for part in (rows[:first], rows[first:second], rows[second:])]
    whole = flat_rows(rows, FILES)
    for name, array in joined(parts).items():
        assert (array.dtype, array.tolist()) == (whole[name].dtype, whole[name].tolist()), name


def test_parts_come_in_order_and_those_of_a_process_that_died_are_made_here() -> None:
    here = os.getpid()

    def work(part: range) -> Made:
        if part.start == 30 and os.getpid() != here:
            os._exit(9)
        return {"square": np.array(part) ** 2}, [part.start, os.getpid() == here]

    made = shared_out(100, work, Sharing(2, part=10))
    assert np.concatenate([arrays["square"] for arrays, _ in made]).tolist() == [i * i for i in range(100)]
    assert [start for _, (start, _) in made] == list(range(0, 100, 10))
    assert [in_parent for _, (_, in_parent) in made] == [i == 3 for i in range(10)]


def test_no_part_waits_for_a_process_that_is_busy(tmp_path: Path) -> None:
    def work(part: range) -> Made:
        end = time.monotonic() + 20
        while part.start == 0 and not (tmp_path / "90").exists() and time.monotonic() < end:
            time.sleep(0.01)
        (tmp_path / str(part.start)).touch()
        return {}, os.getpid()

    first, *others = [process for _, process in shared_out(100, work, Sharing(2, part=10))]
    assert set(others) == {others[0]}
    assert first != others[0]


def test_an_error_is_met_as_if_alone() -> None:
    def work(part: range) -> Made:
        raise DataError(f"rows from {part.start}", "none")

    with pytest.raises(DataError, match="rows from 0"):
        shared_out(100, work, Sharing(2, part=10))


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = lambda part: ({}, os.environ["TOKENIZERS_PARALLELISM"])  # noqa: E731
    for before in (None, "true"):
        if before is not None:
            monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
        assert {said for _, said in shared_out(20, seen, Sharing(2, part=10))} == {"false"}
        assert os.environ.get("TOKENIZERS_PARALLELISM") == before


def test_this_process_does_something_else_while_the_others_work(tmp_path: Path) -> None:
    """The others wait for what it does; and an error in it ends them."""
    sign, ended = tmp_path / "sign", tmp_path / "ended"

    def work(part: range) -> Made:
        limit = time.monotonic() + 20
        while not sign.exists() and time.monotonic() < limit:
            time.sleep(0.01)
        ended.touch()
        return {}, sign.exists()

    made = shared_out(2, work, Sharing(2, least=1, part=1), sign.touch)
    assert [said for _, said in made] == [True, True]
    sign.unlink()
    ended.unlink()
    with pytest.raises(DataError, match="no such model"):
        shared_out(2, work, Sharing(2, least=1, part=1), _fails)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert not ended.exists()


def _fails() -> None:
    raise DataError("no such model", "a folder", "name one")


# While the file is still being read ------------------------------------------------------------------


def test_a_process_works_while_there_is_more_to_come(tmp_path: Path) -> None:
    """Whole parts while more may follow, the rest when nothing does; what it has not begun is left out."""
    with beforehand(
        lambda part: ({"at": np.array(part)}, len(part)), Sharing(2, least=20, part=10)
    ) as started:
        for count, last in ((10, False), (25, False), (34, True)):
            started.offer(count, last)
        while len(done(started)) < 4:
            time.sleep(0.01)
        made = started.made()
    assert [(start, said) for start, (_, said) in made] == [(0, 10), (10, 10), (20, 10), (30, 4)]
    assert [arrays["at"].tolist() for _, (arrays, _) in made][3] == [30, 31, 32, 33]


def test_few_rows_are_not_made_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a process for few rows"))
    with beforehand(lambda part: ({}, 0), Sharing(2, least=50, part=10)) as started:
        started.offer(49, last=True)
        assert started.made() == []


def test_parts_that_are_not_wanted_any_more_are_not_begun(tmp_path: Path) -> None:
    def work(part: range) -> Made:
        (tmp_path / f"begun-{part.start}").touch()
        end = time.monotonic() + 20
        while not (tmp_path / "go").exists() and time.monotonic() < end:
            time.sleep(0.01)
        return {}, part.start

    with beforehand(work, Sharing(2, least=20, part=10)) as started:
        started.offer(100, last=False)
        while not (tmp_path / "begun-0").exists():
            time.sleep(0.01)
        threading.Timer(0.3, (tmp_path / "go").touch).start()
        assert [said for _, (_, said) in started.made()] == [0]
    assert [path.name for path in tmp_path.glob("begun-*")] == ["begun-0"]


def test_an_error_meanwhile_ends_the_process(tmp_path: Path) -> None:
    def work(part: range) -> Made:
        time.sleep(60)
        return {}, 0

    def fails() -> None:
        with beforehand(work, Sharing(2, least=1, part=1)) as started:
            started.offer(5, last=True)
            _fails()

    with pytest.raises(DataError, match="no such model"):
        fails()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def done(started: Beforehand) -> list[Path]:
    return [path for path in started._folder.glob("*/said.json") if path.read_text()]


def ahead_outcome(
    files: list[str], making: Callable[[int], Making], sharing: Sharing, folder: Path, begun: bool
) -> Any:
    """As `outcome`, of splits; begun: rows are made while the files are read, and all of those that can be are."""
    config = DataConfig(train=files, validation_fraction=0.2, test_fraction=0.1, limit=350)
    with ahead_of_reading(making(0) if begun else None, sharing) as ahead:
        splits = load_splits(config, 3, folder, ahead)
        if ahead is not None:
            while len(done(ahead.started)) < -(-sum(1 for _ in read(files)) // sharing.part):
                time.sleep(0.01)
        rows = {
            name: accounted(vars(splits)[name], making(1), splits.account, ALONE, ahead)
            for name in ("train", "validation", "test")
        }
    account = splits.account
    account.flush()
    dropped = (folder / "dropped.jsonl").read_bytes() if (folder / "dropped.jsonl").exists() else b""
    counts = {name: vars(count) | {"first": {}} for name, count in account.files.items()}
    return rows, +account.notes, counts, dropped


def read(files: list[str]) -> list[Example]:
    return read_examples([file.removesuffix("*1.5") for file in files], DataConfig(), Account())[0]


def talks(name: str, max_length: int, on_long_row: Any) -> Callable[[int], Making]:
    return lambda _: make_chats(renderer(name), "assistant", max_length, on_long_row)


def classes(known: int) -> Making:
    labels = ("yes", "no", "perhaps") if known else ()
    return heads(HeadEncoder(WORDPIECE, "classify", labels), 8, "cut")


@pytest.mark.parametrize(
    ("making", "labelled"),
    [
        (talks("chatml, pad == eos", 40, "cut"), False),
        (talks("chatml, pad == eos", 30, "drop"), False),
        (talks(STRIPS, 60, "drop"), False),
        (classes, True),
    ],
    ids=["cut", "dropped", "a row for each turn", "a head"],
)
def test_rows_made_while_reading_are_the_rows_made_afterwards(
    tmp_path: Path, making: Callable[[int], Making], labelled: bool
) -> None:
    write = labels if labelled else chats
    files = [write(tmp_path / "a.jsonl", 300, 0.03), f"{write(tmp_path / 'b.jsonl', 400, 0.03)}*1.5"]
    sharing = Sharing(2, least=50, part=40)
    after, *said = ahead_outcome(files, making, sharing, tmp_path / "after", False)
    before, *said_too = ahead_outcome(files, making, sharing, tmp_path / "before", True)
    assert said == said_too
    for name in after:
        assert not isinstance(after[name], FlatRows)
        assert isinstance(before[name], FlatRows)
        same(list(before[name]), list(after[name]))


def labels(path: Path, count: int, share_bad: float) -> str:
    rng = random.Random(count)
    rows = [
        {
            "text": " ".join(rng.choices(WORDS, k=rng.randint(1, 12))),
            "label": rng.choice(["yes", "no", "perhaps"]),
        }
        for _ in range(count)
    ]
    for row in rows:
        if rng.random() < share_bad:
            row["text"] = ""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_what_is_made_beforehand_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows of which nothing is to be said none is made a second time."""
    file = chats(tmp_path / "a.jsonl", 400, 0)
    making = talks("chatml, pad == eos", 999, "cut")(0)
    with ahead_of_reading(making, Sharing(2, least=50, part=40)) as ahead:
        assert ahead is not None
        splits = load_splits(DataConfig(train=[file]), 3, tmp_path / "run", ahead)
        while len(done(ahead.started)) < 10:
            time.sleep(0.01)
        rows = accounted(splits.train, replace(making, make=_again), splits.account, ALONE, ahead)
    same(list(rows), list(accounted(splits.train, making, splits.account, ALONE)))


def test_the_examples_are_let_go_of_when_their_rows_are_made(tmp_path: Path) -> None:
    """At once: a million of them take a gigabyte, and the next search for garbage seconds."""
    file = chats(tmp_path / "a.jsonl", 200, 0)
    gc.disable()
    try:
        making = talks("chatml, pad == eos", 999, "cut")(0)
        with ahead_of_reading(making, Sharing(2, least=50, part=40)) as ahead:
            assert ahead is not None
            splits = load_splits(DataConfig(train=[file]), 3, tmp_path / "run", ahead)
            accounted(splits.train, making, splits.account, ALONE, ahead)
        known = weakref.ref(ahead)
        del ahead
        assert known() is None
    finally:
        gc.enable()


def _again(examples: Sequence[Example]) -> list[list[TokenRow] | RowError]:
    raise AssertionError(f"{len(examples)} are made again")
