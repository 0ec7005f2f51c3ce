"""`tunesmith data inspect`, `diff` and `show` as a person or a script meets them, and what a shell completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_main import Answer
from tests.desk.test_inspect import Words
from tests.desk.test_make import TICKETS, written
from tunesmith.cli import work
from tunesmith.desk.facts import COUNTED, Inspecting, Inspection
from tunesmith.errors import ResourceError


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    return lambda *arguments: Answer(capsys, *arguments)


def test_a_folder_for_what_is_written_is_made_and_a_file_in_its_place_is_an_error(
    run: Callable[..., Answer], data_set: str, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "folder" / "back.jsonl"
    assert run("data", "restore", data_set, "-o", str(target)).code == 0
    assert len(target.read_text().splitlines()) == len(TICKETS) + 1
    answer = run("data", "restore", data_set, "-o", str(target / "back.jsonl"))
    assert answer.code == ResourceError.exit_code
    assert "back.jsonl: no folder can be made there" in answer.err


@pytest.fixture
def data_set(tmp_path: Path, run: Callable[..., Answer]) -> str:
    """Two versions: as read, and cleaned."""
    rows = written(tmp_path, [*TICKETS, {"text": " ", "label": "billing"}])
    for step in ("dedup", "clean"):
        assert run("data", step, rows, "-o", str(tmp_path / "out"), "-q").code == 0
    return str(tmp_path / "out")


def test_inspect_takes_files_settings_and_data_sets(
    run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, data_set: str, tmp_path: Path
) -> None:
    kept: list[Any] = []

    def stand_in(desk: Any, model: str, *, cost: bool, counted: int, sink: Any) -> Inspection:
        kept.append((desk, model, cost, counted))
        return Inspection({"rows": {}})

    monkeypatch.setattr(work, "inspect", stand_in)
    rows = str(tmp_path / "rows.jsonl")
    settings = ("dedup.near=0.9", f"data.test={rows}", "-m", "m", "--no-cost", "--counted", "7", "--json")
    answer = run("data", "inspect", rows, *settings)
    assert (answer.code, json.loads(answer.out)) == (0, {"rows": {}})
    desk, model, cost, counted = kept[0]
    assert (desk.data.train, desk.data.test, desk.steps()) == ([rows], [rows], ["clean", "dedup"])
    assert (desk.dedup.near, model, cost, counted) == (0.9, "m", False, 7)
    assert run("data", "inspect", data_set, "--json").code == 0
    assert (kept[1][0].data.train, kept[1][0].data.validation) == ([data_set], [])
    assert kept[1][2:] == (True, COUNTED)  # the default of the command is that of the desk


def test_inspect_without_files_says_so(run: Callable[..., Answer]) -> None:
    answer = run("data", "inspect", "dedup.near=0.9")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: no file is named")


def test_diff_and_show_tell_of_versions(run: Callable[..., Answer], data_set: str) -> None:
    facts = json.loads(run("data", "diff", data_set, "--json").out)
    assert (facts["from"], facts["to"]) == (1, 2)
    assert sum(facts["went"].values()) > 0
    quiet = run("data", "diff", data_set, "-q")
    assert (quiet.code, quiet.err) == (0, "")
    assert quiet.out.startswith("version 1 -> 2")
    back = run("data", "diff", data_set, "--from", "2", "--to", "1").out
    assert back.startswith("version 2 -> 1")
    assert run("data", "show", data_set).out.startswith("# Data card")
    assert json.loads(run("data", "show", data_set, "--version", "1", "--json").out)["left"]
    assert "no version 9" in run("data", "show", data_set, "--version", "9").err


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("data ins", "inspect"),
        ("data di", "diff"),
        ("data sh", "show"),
        ("data cl", "clean"),
        ("tr", "train"),
    ],
)
def test_a_shell_completes_verbs(typed: str, offered: str) -> None:
    """As bash asks: the words so far, and which of them is being typed."""
    words = f"tunesmith {typed}"
    asked = {
        "_TUNESMITH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = "from tunesmith.cli.main import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [offered]


def test_make_inspects_where_it_is_asked_to(
    run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models: list[str] = []

    def stand_in(model: str, sink: Any) -> Inspecting:
        models.append(model)
        return Inspecting(Words())

    monkeypatch.setattr(work, "inspecting", stand_in)
    recipe = tmp_path / "desk.yaml"
    recipe.write_text(
        f"output: {tmp_path / 'out'}\ndata:\n  train: [{written(tmp_path, TICKETS)}]\nclean: {{}}\n"
    )
    found = json.loads(run("data", "make", str(recipe), "--inspect", "-m", "m", "--json", "-q").out)
    assert (found["inspection"]["rows"], found["rows"]) == ({"train": len(TICKETS)}, {"train": len(TICKETS)})
    assert "inspection" not in json.loads(run("data", "make", str(recipe), "--json", "-q").out)
    assert run("data", "make", str(recipe), "--inspect", "--dry-run").code == 0
    assert models == ["m", "tunesmith/base-8m"]
    for more, said in (
        (("-m", "m"), "--model without --inspect"),
        (("--inspect", "--ray", "h:1"), "ray=h:1"),
    ):
        answer = run("data", "make", str(recipe), *more)
        assert (answer.code, said in answer.err) == (2, True)
