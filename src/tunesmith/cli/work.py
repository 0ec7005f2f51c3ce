"""Where the command line hands over: each function calls one of `tunesmith.workflow` and nothing else.

A run searches for garbage before it loads another model. Half a million objects of imported libraries are none, and
are no more looked at (`gc.freeze`): the process is the command's own. The process that tries a step before a run is
started first: it loads its libraries beside this one.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.cli.output import Result
    from tunesmith.config.desk import Desk
    from tunesmith.config.run import Run
    from tunesmith.desk.facts import Inspecting, Inspection
    from tunesmith.types import EventSink


def quickstart(output: Path, seed: int, sink: EventSink) -> Result:
    from tunesmith.train.trial import standing_by

    with standing_by() as trial:
        from tunesmith.workflow.quickstart import quickstart as work

        gc.freeze()
        return work(output, seed=seed, sink=sink, trial=trial)


def resolved(run: Run) -> tuple[Run, dict[str, str]]:
    from tunesmith.workflow.prepare import resolved as work

    return work(run)


def train(
    run: Run,
    *,
    sink: EventSink,
    max_minutes: float | None,
    seeds: int,
    resume: bool | None,
    dry_run: bool,
    profile: bool,
) -> Result:
    """resume: True continues the run's folder, False replaces it, None refuses a folder that exists."""
    from tunesmith.train.trial import standing_by

    with standing_by() if not resume else nullcontext() as trial:
        from tunesmith.workflow.train import train as work

        gc.freeze()
        return work(
            run,
            sink=sink,
            max_minutes=max_minutes,
            seeds=seeds,
            resume=resume,
            dry_run=dry_run,
            profile=profile,
            trial=trial,
        )


def resume(folder: Path, sink: EventSink) -> Result:
    from tunesmith.workflow.train import resume as work

    gc.freeze()
    return work(folder, sink=sink)


def evaluate(model: str, data: Sequence[Path], settings: Run, output: Path | None, sink: EventSink) -> Result:
    from tunesmith.workflow.evaluate import evaluate as work

    return work(model, data, settings=settings, output=output, sink=sink)


def compare(
    a: str, b: str, data: Sequence[Path], settings: Run, output: Path | None, sink: EventSink
) -> Result:
    from tunesmith.workflow.evaluate import compare as work

    return work(a, b, data, settings=settings, output=output, sink=sink)


def predict(
    model: str,
    source: Path,
    target: Path | None,
    *,
    batch_size: int | None,
    max_new_tokens: int | None,
    column: str | None,
    device: str,
    log: Path | None,
    sink: EventSink,
) -> None:
    """target: None writes to standard output."""
    from tunesmith.workflow.predict import predict as work

    work(
        model,
        source,
        target,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        column=column,
        device=device,
        log=log,
        sink=sink,
    )


def export(source: Path, target: Path, merged: bool) -> Result:
    from tunesmith.workflow.export import export as work

    return work(source, target, merged)


def inspect(desk: Desk, model: str, *, cost: bool, counted: int, sink: EventSink) -> Inspection:
    from tunesmith.workflow.inspect import inspect as work

    return work(desk, model, sink, cost=cost, counted=counted)


def inspecting(model: str, sink: EventSink) -> Inspecting:
    from tunesmith.workflow.inspect import inspecting as work

    return work(model, sink)
