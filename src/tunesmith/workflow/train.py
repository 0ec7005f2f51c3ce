"""The main job: prepare -> estimate -> train -> prove -> report -> a model that other tools load."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tunesmith import storage
from tunesmith.config.explain import explain
from tunesmith.config.judged import Judged
from tunesmith.config.load import load_run
from tunesmith.config.machine import describe_machine
from tunesmith.config.policy import PolicyConfig
from tunesmith.config.run import Run
from tunesmith.core.device import CPU, pass_tokens
from tunesmith.data.flat import sizes
from tunesmith.data.readers import sha256
from tunesmith.errors import Interrupted, RunError
from tunesmith.evaluate.report import write_report
from tunesmith.evaluate.report_model import SeedRun
from tunesmith.train.build import Built, build
from tunesmith.train.checkpoint import Checkpoints, Snapshot
from tunesmith.train.engine import Engine, Source
from tunesmith.train.folder import RunFolder
from tunesmith.train.frozen import frozen_states
from tunesmith.train.probe import Estimate, probe
from tunesmith.train.profile import Profile
from tunesmith.train.reference import FILE as REFERENCE_FILE
from tunesmith.train.reference import with_reference
from tunesmith.train.rollout import Memory, RolloutSource
from tunesmith.train.source import Ahead, StaticSource, rows_taken
from tunesmith.train.stop import Stop
from tunesmith.train.trial import Child
from tunesmith.types import EventSink, TokenRow, silent
from tunesmith.workflow.finish import Result, finish, versions
from tunesmith.workflow.own import trial_rows
from tunesmith.workflow.prepare import Prepared, absolute, prepare
from tunesmith.workflow.rollouts import source_of
from tunesmith.workflow.watch import check_watch, watch_of
from tunesmith.workflow.written import check_rewards


def train(
    run: Run,
    *,
    sink: EventSink | None = None,
    max_minutes: float | None = None,
    seeds: int = 1,
    resume: bool | None = None,
    dry_run: bool = False,
    profile: bool = False,
    trial: Child | None = None,
) -> Result:
    """Carry out a recipe.

    resume: True continues the run's folder, False replaces it, None refuses one that exists. seeds: train with
    seed, seed + 1, ... and report the spread. dry_run: stop before training, with the plan. profile: measure where the
    time of some steps goes. trial: a process that waits to try a step (`trial.standing_by`), for the first run.
    """
    show = sink or silent
    runs = [run.model_copy(deep=True) for _ in range(seeds)]
    for offset, one in enumerate(runs[1:], 1):
        one.seed, one.name = run.seed + offset, f"{run.name}-seed{run.seed + offset}"
    if not dry_run:
        for one in runs[1:]:  # before the first starts: the last may be hours away
            _refuse(RunFolder(Path(one.output) / one.name), resume)
    results = [
        _train_one(one, show, max_minutes, resume, dry_run, profile, trial if one is runs[0] else None)
        for one in runs
    ]
    if seeds > 1 and not dry_run:
        _report_spread(results, run.seed)
    return results[0]


def resume(folder: Path, *, sink: EventSink | None = None) -> Result:
    """Continue a run from its last whole checkpoint, with the settings it was started with."""
    home = RunFolder(folder.resolve())
    if not home.is_started():
        raise RunError(f"{folder} holds no run", "a folder with config.yaml", "start it with tunesmith train")
    return _train_one(_as_started(home), sink or silent, None, True, False)


def _as_started(folder: RunFolder) -> Run:
    """The run's own settings, under the place and the name that its folder has now."""
    place = {"output": str(folder.path.parent), "name": folder.path.name}
    return load_run(folder.config, [], {key: (value, "the run's folder") for key, value in place.items()})


def _train_one(
    run: Run,
    show: EventSink,
    max_minutes: float | None,
    resume: bool | None,
    dry: bool,
    profile: bool = False,
    trial: Child | None = None,
) -> Result:
    run = absolute(run)
    folder = RunFolder(Path(run.output) / run.name)
    if dry:
        return _plan_only(run, folder, show, trial)
    _refuse_foreign(folder)
    with folder.locked():
        _refuse(folder, resume)
        if folder.is_started() and resume:
            run = _as_started(folder)
            _refuse_changed_data(folder)
        if resume is False:
            _clear(folder)

        def sink(kind: str, /, **fields: Any) -> None:
            if kind != "progress":  # one for each answered row: for those who watch
                folder.emit(kind, **fields)
            if kind != "estimate":
                show(kind, **fields)

        return _carry_out(run, folder, sink, max_minutes, profile, trial)


def _refuse(folder: RunFolder, resume: bool | None) -> None:
    """Raises RunError where the folder's state and what was asked for do not go together."""
    if folder.is_started() and resume is None:
        what = "a finished run" if folder.is_finished() else "a run that has begun"
        raise RunError(
            f"{folder.path} holds {what}",
            "a folder of its own for each run",
            "continue it with --resume, replace it with --force, or choose another --name",
        )
    if folder.is_finished() and resume:
        raise RunError(
            f"{folder.path} is finished",
            "a run that was interrupted",
            f"train on from it with model.base={folder.path} and another --name",
        )


def _refuse_foreign(folder: RunFolder) -> None:
    """Raises RunError where the folder holds what no run wrote: a run would replace its model/ and report/."""
    if folder.is_foreign():
        raise RunError(
            f"{folder.path} holds files, but no run",
            "an empty folder, a run's folder, or one that does not exist yet",
            "choose another --name or --output",
        )


def _refuse_changed_data(folder: RunFolder) -> None:
    for event in folder.read_events("data")[-1:]:
        for file, digest in event["hashes"].items():
            if sha256(file) != digest:
                raise RunError(
                    f"{file} has changed since the run began",
                    f"SHA-256 {digest[:16]}…",
                    "put the file back as it was, or start a new run",
                )


def _clear(folder: RunFolder) -> None:
    for path in (folder.checkpoints, folder.model, folder.report, folder.vllm):
        shutil.rmtree(path, ignore_errors=True)
    for path in (folder.config, folder.events, folder.dropped, folder.path / REFERENCE_FILE):
        path.unlink(missing_ok=True)


def _plan_only(run: Run, folder: RunFolder, show: EventSink, trial: Child | None) -> Result:
    with storage.passing_folder() as scratch:
        prepared = prepare(run, scratch, show)
        check_watch(prepared)
        estimate = _estimate(prepared, show, trial)
    plan = _plan(prepared, estimate)
    text = explain(prepared.run, prepared.reasons) + "\n" + _plan_text(plan)
    return Result(folder.path, plan=plan, text=text)


def _carry_out(
    run: Run,
    folder: RunFolder,
    sink: EventSink,
    max_minutes: float | None,
    profile: bool,
    trial: Child | None,
) -> Result:
    started = time.monotonic()
    sink("start", versions=versions(), machine=describe_machine(), pid=os.getpid())
    began = datetime.fromtimestamp(folder.read_events("start")[0]["time"])
    prepared = prepare(run, folder.path, sink, began)
    if folder.is_started():  # its config.yaml says every value, but not who chose it
        prepared.reasons = next((e["reasons"] for e in folder.read_events("reasons")[::-1]), prepared.reasons)
    else:
        sink("reasons", reasons=prepared.reasons)
    check_watch(prepared)
    check_rewards(prepared)
    sink("data", hashes=prepared.splits.hashes)
    checkpoints = Checkpoints(folder.checkpoints, prepared.run.train.keep_checkpoints)
    latest = checkpoints.load_latest()
    estimate: Estimate | None = None
    if latest is None:
        estimate = _estimate(prepared, sink, trial)
        prepared.run.train.micro_batch_tokens = estimate.micro_batch_tokens
        prepared.run.train.activation_checkpointing = estimate.activation_checkpointing
        storage.write_whole(folder.config, explain(prepared.run, prepared.reasons).encode())
    prepare_seconds = time.monotonic() - started
    built = build(prepared.run, prepared.rows["train"], prepared.splits.hashes)
    if isinstance(prepared.run.method, Judged) and prepared.run.method.reference == "start":
        budget = prepared.run.train.micro_batch_tokens or pass_tokens(built.loaded.model.device)
        prepared.rows = with_reference(prepared.rows, built.loaded.model, folder.path, budget, sink)
        built.source.rows = prepared.rows["train"]
    for note in built.notes:
        sink("note", text=note)
    source: Source = built.source
    if isinstance(prepared.run.method, PolicyConfig):
        source = source_of(prepared, built, sink)
    if latest is not None:
        _restore(built, latest, sink)
    limit = max_minutes if max_minutes is not None else prepared.run.train.max_minutes
    rows = [*prepared.rows["train"], *prepared.rows["validation"]]
    passes = 0.0 if isinstance(source, RolloutSource) else source.epoch(source.total_steps)
    with frozen_states(built.loaded.model, prepared.run.train, rows, passes, folder.path, sink):
        _run_engine(prepared, built, source, checkpoints, sink, limit, profile)
    return finish(prepared, built, checkpoints, folder, sink, prepare_seconds)


def _restore(built: Built, latest: tuple[int, Snapshot, list[str]], sink: EventSink) -> None:
    step, snapshot, problems = latest
    for problem in problems:
        sink("warning", text=f"{problem}; the checkpoint before it is used")
    built.state.restore(snapshot)
    sink("note", text=f"resumed after step {step}")


def _estimate(prepared: Prepared, sink: EventSink, trial: Child | None) -> Estimate:
    sink("phase", name="estimate", text="running the largest micro-batch in a child process")
    estimate = probe(prepared.run, _trained(prepared), trial)
    saves = estimate.activation_checkpointing and not prepared.run.train.activation_checkpointing
    if saves:
        sink(
            "warning",
            text="one row does not fit the memory as it is: activation checkpointing is used, for about a third more "
            "work in each step (results do not depend on it)",
        )
    if estimate.micro_batch_tokens < estimate.tried[0]:
        sink(
            "warning",
            text=f"a micro-batch of {estimate.tried[0]:,} tokens does not fit; "
            f"{estimate.micro_batch_tokens:,} does and is used (results do not depend on it)",
        )
    plan = _plan(prepared, estimate)
    sink("estimate", **plan)
    sink("note", text=_plan_text(plan))
    return estimate


def _plan(prepared: Prepared, estimate: Estimate) -> dict[str, Any]:
    """The estimated cost of the training steps; evaluations come on top."""
    train, rows, method = prepared.run.train, _trained(prepared), prepared.run.method
    assert train.batch_size is not None
    count = rows_taken(train, len(rows)) * ((method.passes or 1) if isinstance(method, PolicyConfig) else 1)
    tokens = count * int(sizes(rows)[0].sum()) / len(rows)
    return {
        "steps": -(-count // train.batch_size),
        "tokens": int(tokens),
        "train_seconds": tokens * estimate.seconds_per_token,
        "tokens_per_second": 1 / estimate.seconds_per_token,
        "peak_memory_bytes": estimate.peak_bytes,
        "available_memory_bytes": estimate.available_bytes,
        "micro_batch_tokens": estimate.micro_batch_tokens,
    }


def _trained(prepared: Prepared) -> Sequence[TokenRow]:
    """The rows that steps are made of; of answers that are yet to be written the longest that there can be."""
    rows, method = prepared.rows["train"], prepared.run.method
    return trial_rows(rows, method) if isinstance(method, PolicyConfig) else rows


def _plan_text(plan: dict[str, Any]) -> str:
    return (
        f"estimated: {plan['steps']:,} steps, {plan['tokens']:,} tokens, "
        f"{plan['train_seconds'] / 60:.1f} minutes of training ({plan['tokens_per_second']:,.0f} tokens/s), "
        f"{plan['peak_memory_bytes'] / 1e9:.1f} GB of memory ({plan['available_memory_bytes'] / 1e9:.1f} GB free)"
    )


def _run_engine(
    prepared: Prepared,
    built: Built,
    source: Source,
    checkpoints: Checkpoints,
    sink: EventSink,
    max_minutes: float | None,
    profile: bool,
) -> None:
    run = prepared.run
    sink(
        "plan",
        total_steps=source.total_steps,
        epochs=built.source.num_rows / len(built.source.rows),
        rows=len(built.source.rows),
    )
    sink("phase", name="train", text="")
    memory = source.memory if isinstance(source, RolloutSource) else Memory()
    if built.loaded.model.device != CPU and isinstance(source, StaticSource):
        source = Ahead(source)
    if memory.stopping:
        built.state.progress.stopped = memory.stopping  # it had ended for this before it died
    with Stop(max_minutes) as stop:
        engine = Engine(
            model=built.loaded.model,
            objective=built.objective,
            source=source,
            state=built.state,
            config=run.train,
            seed=run.seed,
            checkpoints=checkpoints,
            sink=sink,
            watch=watch_of(prepared, built.loaded.model),
            stop=lambda: stop() or memory.stopping,
            profile=Profile(built.loaded.model, source.total_steps - built.state.progress.step)
            if profile
            else None,
        )
        engine.run()
        if stop.signal is not None:
            raise Interrupted(
                f"stopped by {stop.reason} after step {built.state.progress.step}; a checkpoint is saved",
                f"continue with: tunesmith resume {Path(run.output) / run.name}",
                130 if stop.signal == signal.SIGINT else 143,
            )


def _report_spread(results: list[Result], seed: int) -> None:
    """The first run's report shows the tuned model's metrics for every seed."""
    first = results[0].report
    assert first is not None
    runs = []
    for offset, result in enumerate(results):
        assert result.report is not None
        tuned = next((s for s in result.report.systems if s.name == "tuned"), None)
        if tuned is not None:
            values = {n: m.value for n, m in tuned.metrics.items()}
            runs.append(SeedRun(seed=seed + offset, run=result.folder.name, metrics=values))
    first.seeds = runs
    write_report(first, results[0].folder / "report")
