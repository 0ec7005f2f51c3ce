"""The main job: prepare -> estimate -> train -> prove -> report -> a model that other tools load."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tunesmith.config.explain import explain
from tunesmith.config.load import load_run
from tunesmith.config.machine import describe_machine
from tunesmith.config.run import Run
from tunesmith.core.model import Model
from tunesmith.errors import ConfigError, Interrupted, RunError
from tunesmith.evaluate.report import write_report
from tunesmith.evaluate.report_model import SeedRun
from tunesmith.scoring import metric
from tunesmith.train.build import Built, build
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.engine import Engine, Watch
from tunesmith.train.folder import RunFolder
from tunesmith.train.probe import Estimate, probe
from tunesmith.train.stop import Stop
from tunesmith.types import EventSink
from tunesmith.workflow import prove
from tunesmith.workflow.finish import Result, finish, versions
from tunesmith.workflow.prepare import Prepared, absolute, prepare


def train(
    run: Run,
    *,
    sink: EventSink | None = None,
    max_minutes: float | None = None,
    seeds: int = 1,
    resume: bool | None = None,
    dry_run: bool = False,
) -> Result:
    """Carry out a recipe.

    resume: True continues the run's folder, False replaces it, None refuses one that exists. seeds: train with
    seed, seed + 1, ... and report the spread. dry_run: stop before training, with the plan.
    """
    show = sink or _silent
    results = []
    for offset in range(seeds):
        one = run.model_copy(deep=True)
        if offset:
            one.seed, one.name = run.seed + offset, f"{run.name}-seed{run.seed + offset}"
        results.append(_train_one(one, show, max_minutes, resume, dry_run))
    if seeds > 1 and not dry_run:
        _report_spread(results)
    return results[0]


def resume(folder: Path, *, sink: EventSink | None = None) -> Result:
    """Continue a run from its last whole checkpoint, with the settings it was started with."""
    home = RunFolder(folder)
    if not home.is_started():
        raise RunError(f"{folder} holds no run", "a folder with config.yaml", "start it with tunesmith train")
    run = load_run(home.config, [])
    run.output, run.name = str(folder.parent), folder.name
    return _train_one(run, sink or _silent, None, True, False)


def _train_one(
    run: Run, show: EventSink, max_minutes: float | None, resume: bool | None, dry: bool
) -> Result:
    run = absolute(run)
    folder = RunFolder(Path(run.output) / run.name)
    if dry:
        return _plan_only(run, folder, show)
    with folder.locked():
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
                "train on with model.base=" + run.name,
            )
        if folder.is_started() and resume:
            run = load_run(folder.config, [])
            run.output, run.name = str(folder.path.parent), folder.path.name
        if resume is False:
            _clear(folder)

        def sink(kind: str, /, **fields: Any) -> None:
            folder.emit(kind, **fields)
            if kind != "estimate":
                show(kind, **fields)

        return _carry_out(run, folder, sink, max_minutes)


def _clear(folder: RunFolder) -> None:
    for path in (folder.checkpoints, folder.model, folder.report):
        shutil.rmtree(path, ignore_errors=True)
    for path in (folder.config, folder.events, folder.dropped):
        path.unlink(missing_ok=True)


def _plan_only(run: Run, folder: RunFolder, show: EventSink) -> Result:
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as scratch:
        prepared = prepare(run, Path(scratch), show)
        estimate = _estimate(prepared, show)
    plan = _plan(prepared, estimate)
    text = explain(prepared.run, prepared.reasons) + "\n" + _plan_text(plan)
    return Result(folder.path, plan=plan, text=text)


def _carry_out(run: Run, folder: RunFolder, sink: EventSink, max_minutes: float | None) -> Result:
    clock = {"start": time.monotonic()}
    sink("start", versions=versions(), machine=describe_machine(), pid=os.getpid())
    began = datetime.fromtimestamp(folder.read_events("start")[0]["time"])
    prepared = prepare(run, folder.path, sink, began)
    checkpoints = Checkpoints(folder.checkpoints, prepared.run.train.keep_checkpoints)
    latest = checkpoints.load_latest()
    estimate: Estimate | None = None
    if latest is None:
        estimate = _estimate(prepared, sink)
        prepared.run.train.micro_batch_tokens = estimate.micro_batch_tokens
        folder.config.write_text(explain(prepared.run, prepared.reasons))
    clock["trained from"] = time.monotonic()
    built = build(prepared.run, prepared.rows["train"], prepared.splits.hashes)
    for note in built.notes:
        sink("note", text=note)
    if latest is not None:
        step, snapshot, problems = latest
        for problem in problems:
            sink("warning", text=f"{problem}; the checkpoint before it is used")
        built.state.restore(snapshot)
        sink("note", text=f"resumed after step {step}")
    limit = max_minutes if max_minutes is not None else prepared.run.train.max_minutes
    _run_engine(prepared, built, checkpoints, sink, limit)
    clock["trained to"] = time.monotonic()
    return finish(prepared, built, checkpoints, folder, sink, clock)


def _estimate(prepared: Prepared, sink: EventSink) -> Estimate:
    sink("phase", name="estimate", text="running the largest micro-batch in a child process")
    estimate = probe(prepared.run, prepared.rows["train"])
    if len(estimate.tried) > 1:
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
    """Estimated cost. Evaluations cost about a third of a training token for each token (no backward)."""
    train, rows = prepared.run.train, prepared.rows["train"]
    assert train.batch_size is not None
    assert train.epochs is not None
    count = train.max_steps * train.batch_size if train.max_steps else train.epochs * len(rows)
    tokens = count * sum(r.num_tokens for r in rows) / len(rows)
    return {
        "steps": -(-int(count) // train.batch_size),
        "tokens": int(tokens),
        "train_seconds": tokens * estimate.seconds_per_token,
        "tokens_per_second": 1 / estimate.seconds_per_token,
        "peak_memory_bytes": estimate.peak_bytes,
        "available_memory_bytes": estimate.available_bytes,
        "micro_batch_tokens": estimate.micro_batch_tokens,
    }


def _plan_text(plan: dict[str, Any]) -> str:
    return (
        f"estimated: {plan['steps']:,} steps, {plan['tokens']:,} tokens, "
        f"{plan['train_seconds'] / 60:.1f} minutes of training ({plan['tokens_per_second']:,.0f} tokens/s), "
        f"{plan['peak_memory_bytes'] / 1e9:.1f} GB of memory ({plan['available_memory_bytes'] / 1e9:.1f} GB free)"
    )


def _run_engine(
    prepared: Prepared, built: Built, checkpoints: Checkpoints, sink: EventSink, max_minutes: float | None
) -> None:
    run = prepared.run
    sink(
        "plan",
        total_steps=built.source.total_steps,
        epochs=run.train.epochs,
        rows=len(prepared.rows["train"]),
    )
    sink("phase", name="train", text="")
    with Stop(max_minutes) as stop:
        engine = Engine(
            model=built.loaded.model,
            objective=built.objective,
            source=built.source,
            state=built.state,
            config=run.train,
            seed=run.seed,
            checkpoints=checkpoints,
            sink=sink,
            watch=_watch(prepared, built.loaded.model),
            stop=stop,
        )
        engine.run()
        if stop.signal is not None:
            raise Interrupted(
                f"stopped by {stop.reason} after step {built.state.progress.step}; a checkpoint is saved",
                f"continue with: tunesmith resume {Path(run.output) / run.name}",
                130 if stop.signal == signal.SIGINT else 143,
            )


def _watch(prepared: Prepared, model: Model) -> Watch | None:
    """Evaluation on validation rows: loss, and task metrics by generation."""
    run, rows = prepared.run, prepared.rows["validation"]
    if not rows:
        return None
    answerer = prove.make_answerer(run, model, prepared.tokenizer, prepared.renderer, prepared.context)
    examples = prepared.examples("validation")
    generates = run.train.eval_generate > 0 and run.method.supervise != "all"
    chosen = prove.chosen_rows(examples, run.train.eval_generate, run.seed) if generates else []
    proof = prove.Proof(
        run=run,
        task=prove.task_of(prepared.splits, examples) if generates else "text",
        labels=prepared.splits.labels,
        examples=chosen,
        rows=[],
        sink=_silent,
    )

    def evaluate(step: int) -> dict[str, float]:
        metrics = {"loss": answerer.mean_loss(rows)}
        if chosen:
            metrics |= proof.score(*answerer.answer(chosen)).metrics
        return metrics

    known = {"loss"}
    if chosen:
        known |= proof.score([e.answer for e in chosen], [False] * len(chosen)).metrics.keys()
    if run.train.watch not in known:
        raise ConfigError(
            f"train.watch={run.train.watch} is not measured on these rows",
            "one of " + ", ".join(sorted(known)),
        )
    higher = run.train.watch != "loss" and metric(run.train.watch).higher_is_better
    return Watch(evaluate, run.train.watch, higher)


def _report_spread(results: list[Result]) -> None:
    """The first run's report shows the tuned model's metrics for every seed."""
    first = results[0].report
    assert first is not None
    runs = []
    for offset, result in enumerate(results):
        assert result.report is not None
        tuned = next((s for s in result.report.systems if s.name == "tuned"), None)
        if tuned is not None:
            values = {n: m.value for n, m in tuned.metrics.items()}
            runs.append(SeedRun(seed=offset, run=result.folder.name, metrics=values))
    first.seeds = runs
    write_report(first, results[0].folder / "report")


def _silent(kind: str, /, **fields: Any) -> None:
    """No one watches; the run's events.jsonl still has everything."""
