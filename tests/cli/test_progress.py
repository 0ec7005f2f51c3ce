"""Progress goes to standard error: live on a terminal, lines when piped, nothing when quiet."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from tunesmith.cli.progress import Live, Plain, duration, metrics_text, progress

STEP = {"total": 100, "loss": 1.25, "learning_rate": 1e-3, "grad_norm": 1.0, "tokens": 10}
METRICS = {"loss": 1.5, "accuracy": 0.75}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def plain() -> tuple[Plain, Clock, io.StringIO]:
    stream, clock = io.StringIO(), Clock()
    return Plain(stream, clock), clock, stream


def test_plain_lines_come_every_ten_seconds_with_first_and_last() -> None:
    sink, clock, stream = plain()
    for step in range(1, 101):
        clock.now = step - 1.0  # a step a second
        sink("step", step=step, **STEP, tokens_per_second=1234.0, memory_bytes=3 << 30)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "step 1/100 | loss 1.2500 | 1,234 tokens/s | 3.0 GiB | 0:00"
    assert lines[1] == "step 11/100 | loss 1.2500 | 1,234 tokens/s | 3.0 GiB | 0:10, 1:29 left"
    assert [line.split("/")[0] for line in lines] == [
        f"step {n}" for n in (1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100)
    ]


def test_a_resumed_run_is_not_timed_from_step_zero() -> None:
    sink, clock, stream = plain()
    for step, now in ((91, 0.0), (93, 20.0)):
        clock.now = now
        sink("step", step=step, **STEP)
    assert stream.getvalue().splitlines()[-1] == "step 93/100 | loss 1.2500 | 0:20, 1:10 left"


def test_every_kind_of_event_has_its_words() -> None:
    sink, clock, stream = plain()
    sink("phase", name="Data", text="reading")
    sink("note", text="20 rows\x1b[2J")
    sink("warning", text="few rows")
    sink("plan", total_steps=1000, epochs=2.0, rows=5000)
    sink("table", title="Rows", columns=["kind", "n"], rows=[["kept", 19], ["dropped", 1]])
    sink("evaluation", step=10, metrics=METRICS, best=True)
    sink("checkpoint", step=10, path="runs/r/checkpoints/step-10", seconds=0.25)
    sink("progress", name="answers", done=1, total=4)
    clock.now = 10.0
    sink("progress", name="answers", done=2, total=4)
    sink("progress", name="answers", done=3, total=None)
    sink("step", step=11, **STEP)
    sink("done", text="report: r.html")
    sink("something_for_the_file", x=1)
    assert stream.getvalue().splitlines() == [
        "Data: reading",
        "20 rows\\x1b[2J",
        "warning: few rows",
        "1,000 steps, 2 epochs of 5,000 rows",
        "Rows",
        "kind     n",
        "kept     19",
        "dropped  1",
        "step 10: validation loss 1.5, accuracy 0.75 (best so far)",
        "step 10: saved runs/r/checkpoints/step-10 in 0.2 s",
        "answers: 2 of 4",
        "step 11/100 | loss 1.2500 | validation loss 1.5 | 0:00",
        "report: r.html",
    ]


def test_live_shows_a_bar_and_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    stream = io.StringIO()
    with Live(Console(file=stream, force_terminal=True, width=160)) as sink:
        sink("phase", name="Training")
        sink("evaluation", step=10, metrics=METRICS, best=False)
        sink("warning", text="[red]data[/red] \x1b[2J")
        sink("table", title="Rows [x]", columns=["kind"], rows=[["[b]kept[/b]"]])
        sink("step", step=11, **STEP, tokens_per_second=10.0, memory_bytes=1 << 30)
        sink("step", step=12, **STEP)
        sink("progress", name="answers", done=1, total=2)
        sink("progress", name="answers", done=2, total=2)
        sink("done", text="report: r.html")
    shown = stream.getvalue()
    for part in (
        "Training",
        "warning: [red]data[/red] \\x1b[2J",
        "[b]kept[/b]",
        "12/100",
        "loss 1.2500 | validation loss 1.5",
        "report: r.html",
    ):
        assert part in shown
    assert "answers" not in shown.rpartition("report: r.html")[2], "a finished bar goes away"


def test_quiet_and_piped(capsys: pytest.CaptureFixture[str]) -> None:
    def note(quiet: bool) -> Any:
        with progress(quiet) as sink:
            sink("note", text="hello")
        return capsys.readouterr()

    assert note(quiet=True) == ("", "")
    assert note(quiet=False) == ("", "hello\n")


def test_a_terminal_gets_the_live_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(quiet=False) as sink:
        assert isinstance(sink, Live)


def test_many_metrics_stay_on_a_line() -> None:
    assert metrics_text({f"m{n}": n for n in range(6)}) == "m0 0, m1 1, m2 2, m3 3, 2 more"


def test_durations() -> None:
    assert [duration(s) for s in (0, 59.6, 61, 3600, -1)] == ["0:00", "1:00", "1:01", "1:00:00", "0:00"]


def test_rollouts_are_told_at_most_every_ten_seconds() -> None:
    now = [0.0]
    out = io.StringIO()
    plain = Plain(out, lambda: now[0])
    for number in range(30):
        plain("rollout", rollout=number, answers=32, numbers={"reward": 0.25 + number, "kl": 0.0123})
        now[0] += 1.0
    lines = out.getvalue().splitlines()
    assert lines[0] == "rollout 1: 32 answers, reward 0.25, kl 0.0123"
    assert len(lines) == 3
