"""What a person sees while work goes on, on standard error: a live bar, or plain lines when it is piped.

Both show these events and leave the others to the run's events.jsonl:
phase (name, text), note (text), warning (text), table (title, columns, rows), plan (total_steps, epochs,
rows), step (step, total, loss, tokens_per_second, memory_bytes), evaluation (step, metrics, best),
checkpoint (step, path, seconds), progress (name, done, total), done (text).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tunesmith.cli.output import plain_table, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from tunesmith.types import EventSink

PLAIN_EVERY = 10.0
"""Seconds between plain progress lines."""


@contextmanager
def progress(quiet: bool) -> Iterator[EventSink]:
    """A sink for the time of the block: silent, live on a terminal, plain lines otherwise."""
    if quiet:
        yield lambda kind, /, **fields: None
    elif sys.stderr.isatty():
        from rich.console import Console

        with Live(Console(stderr=True)) as live:
            yield live
    else:
        yield Plain(sys.stderr)


# -- words for events ---------------------------------------------------------------------------------


def step_text(fields: Mapping[str, Any], validation: str = "") -> str:
    """'loss 1.2345 | validation loss 1.3 | 1,234 tokens/s | 1.2 GiB', of what the event carries."""
    parts = [f"loss {fields['loss']:.4f}"]
    if validation:
        parts.append(f"validation {validation}")
    if fields.get("tokens_per_second") is not None:
        parts.append(f"{fields['tokens_per_second']:,.0f} tokens/s")
    if fields.get("memory_bytes") is not None:
        parts.append(f"{fields['memory_bytes'] / 2**30:.1f} GiB")
    return " | ".join(parts)


def metrics_text(metrics: Mapping[str, Any], most: int = 4) -> str:
    """The first few by name; the rest is in events.jsonl and in the report."""
    shown = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in list(metrics.items())[:most]
    ]
    more = [f"{len(metrics) - most} more"] if len(metrics) > most else []
    return ", ".join(shown + more)


def line_text(kind: str, fields: Mapping[str, Any]) -> str | None:
    """The line an event is shown as, where it is shown as one."""
    match kind:
        case "phase":
            name, text = fields["name"], fields.get("text", "")
            return f"{name}: {text}" if text else str(name)
        case "note" | "done":
            return str(fields["text"])
        case "warning":
            return f"warning: {fields['text']}"
        case "plan":
            steps, epochs, rows = fields["total_steps"], fields["epochs"], fields["rows"]
            return f"{steps:,} steps, {epochs:g} epochs of {rows:,} rows"
        case "evaluation":
            best = " (best so far)" if fields.get("best") else ""
            return f"step {fields['step']:,}: validation {metrics_text(fields['metrics'])}{best}"
        case "rollout":
            numbers = ", ".join(f"{name} {value:.3g}" for name, value in fields["numbers"].items())
            return f"rollout {fields['rollout'] + 1:,}: {fields['answers']:,} answers, {numbers}"
        case "checkpoint":
            return f"step {fields['step']:,}: saved {fields['path']} in {fields['seconds']:.1f} s"
    return None


def duration(seconds: float) -> str:
    minutes, second = divmod(round(max(seconds, 0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def headline(metrics: Mapping[str, Any]) -> str:
    """The one validation number beside the bar: the first."""
    return metrics_text(dict(list(metrics.items())[:1]))


# -- plain lines --------------------------------------------------------------------------------------


class Plain:
    """One line for each event; `step`, `rollout` and `progress` at most every ten seconds, and a run's last step."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._start: tuple[int, float] | None = None  # first step seen (a resumed run starts late), and when
        self._last: dict[str, float] = {}
        self._validation = ""

    def __call__(self, kind: str, /, **fields: Any) -> None:
        if kind == "step":
            self._step(fields)
        elif kind == "progress":
            if self._due(fields["name"]):
                self._print(f"{fields['name']}: {fields['done']:,} of {_total(fields['total'])}")
        elif kind == "table":
            self._print(fields["title"])
            self._print(plain_table(fields["columns"], fields["rows"]))
        elif (line := line_text(kind, fields)) is not None:
            if kind == "evaluation":
                self._validation = headline(fields["metrics"])
            if kind != "rollout" or fields["rollout"] == 0 or self._due("rollout"):
                self._print(line)

    def _due(self, name: str) -> bool:
        """Whether ten seconds have passed since the last line of that name, or since it was first heard of."""
        now = self._clock()
        if now - self._last.setdefault(name, now) < PLAIN_EVERY:
            return False
        self._last[name] = now
        return True

    def _step(self, fields: Mapping[str, Any]) -> None:
        step, total, now = fields["step"], fields["total"], self._clock()
        if self._start is None or step <= self._start[0]:
            self._start = (step, now)
        due = self._due("step")
        if not due and step < total and step != self._start[0]:
            return
        first, began = self._start
        elapsed = now - began
        eta = f", {duration(elapsed / (step - first) * (total - step))} left" if first < step < total else ""
        self._print(
            f"step {step:,}/{total:,} | {step_text(fields, self._validation)} | {duration(elapsed)}{eta}"
        )

    def _print(self, text: str) -> None:
        print(printable(str(text)), file=self._stream, flush=True)


def _total(total: int | None) -> str:
    return f"{total:,}" if total is not None else "an unknown number"


# -- a live terminal ----------------------------------------------------------------------------------


class Live:
    """A bar for training and one for each other thing under way, below lines that scroll."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed
        from rich.progress import TimeRemainingColumn as Remaining

        self._progress: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            Elapsed(),
            TextColumn("eta"),
            Remaining(),
            TextColumn("{task.fields[status]}", markup=False),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._validation = ""

    def __enter__(self) -> Live:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, kind: str, /, **fields: Any) -> None:
        if kind == "step":
            self._update("training", fields["step"], fields["total"], step_text(fields, self._validation))
        elif kind == "progress":
            self._update(fields["name"], fields["done"], fields["total"], "")
        elif kind == "table":
            self._table(fields)
        elif (line := line_text(kind, fields)) is not None:
            if kind == "evaluation":
                self._validation = headline(fields["metrics"])
            style = {"phase": "bold", "warning": "yellow", "done": "bold green", "checkpoint": "dim"}.get(
                kind
            )
            self._progress.console.print(printable(line), style=style, markup=False, highlight=False)

    def _update(self, name: str, done: int, total: int | None, status: str) -> None:
        """A bar starts where it is first heard of, so that a resumed run's speed is not overstated."""
        task = self._tasks.get(name)
        if task is None:
            self._tasks[name] = self._progress.add_task(
                printable(name), total=total, completed=done, status=status
            )
        else:
            self._progress.update(task, total=total, completed=done, status=status)
        if name != "training" and total is not None and done >= total:
            self._progress.remove_task(self._tasks.pop(name))
            self._progress.refresh()

    def _table(self, fields: Mapping[str, Any]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(printable(fields["title"])), title_justify="left")
        for column in fields["columns"]:
            table.add_column(Text(printable(str(column))))
        for row in fields["rows"]:
            table.add_row(*(Text(printable(str(cell))) for cell in row))
        self._progress.console.print(table)
