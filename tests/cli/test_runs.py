"""`runs list` and `runs show` read run folders as they are, also those a crash left behind."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from tunesmith.cli.main import main
from tunesmith.cli.run_folders import list_runs, read_events, read_run
from tunesmith.errors import RunError

EVENTS = [
    {"kind": "step", "step": 10, "total": 30, "loss": 2.0},
    {"kind": "evaluation", "step": 10, "metrics": {"loss": 1.5, "accuracy": 0.75}, "best": True},
    {"kind": "step", "step": 20, "total": 30, "loss": 1.0},
    {"kind": "evaluation", "step": 20, "metrics": {"loss": 1.6}, "best": False},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "tickets"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: {base: tunesmith/base-8m}\nmethod: {tuning: full}\n")
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    return folder


def finish(folder: Path, text: str = '{"test": {"accuracy": 0.875, "curve": [1, 2]}}') -> None:
    (folder / "report").mkdir()
    (folder / "report" / "metrics.json").write_text(text)


def test_a_stopped_run(folder: Path) -> None:
    run = read_run(folder)
    assert (run.name, run.status, run.step, run.total, run.loss) == ("tickets", "stopped", 20, 30, 1.0)
    assert run.best["step"] == 10
    assert run.setting("model.base") == "tunesmith/base-8m"
    assert run.setting("model.base.deeper") is None


def test_a_finished_run_has_its_report(folder: Path) -> None:
    finish(folder)
    run = read_run(folder)
    assert run.status == "finished"
    assert run.metrics["test"]["accuracy"] == 0.875


def test_a_running_run_is_held(folder: Path) -> None:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_run(folder).status == "running"
    assert read_run(folder).status == "stopped"


def test_lines_that_a_crash_cut_off_are_counted(folder: Path) -> None:
    with (folder / "events.jsonl").open("a") as events:
        events.write('{"no": "kind"}\n[1]\n\n{"kind": "step", "st')
    events, damaged = read_events(folder / "events.jsonl")
    assert (len(events), damaged) == (4, 3)
    assert read_run(folder).damaged == 3


def test_what_is_no_run_is_refused(folder: Path) -> None:
    with pytest.raises(RunError, match=r"did you mean 'tickets'\?"):
        read_run(folder.parent / "ticket")
    with pytest.raises(RunError, match="no folder at"):
        list_runs(folder / "absent")
    finish(folder, "{")
    with pytest.raises(RunError, match=r"metrics\.json is no JSON"):
        read_run(folder)


def test_list_and_show(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code
        return capsys.readouterr().out

    (folder.parent / "no-run").mkdir()
    finish(folder)
    head, row = said("runs", "list", str(folder.parent)).splitlines()
    assert head.split() == "run status step base tuning best on validation".split()
    assert row.split() == "tickets finished 20/30 tunesmith/base-8m full loss 1.5, accuracy 0.75".split()
    (listed,) = json.loads(said("runs", "list", str(folder.parent), "--json"))
    assert listed == json.loads(said("runs", "show", str(folder), "--json"))
    page = said("runs", "show", str(folder))
    assert "tickets: finished, step 20/30" in page
    assert "best step 10: loss 1.5, accuracy 0.75" in page
    assert "test.accuracy: 0.875" in page
