"""After training: the best weights -> model/ -> the proof on test rows -> report/."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peft import PeftModel

from tunesmith.config.explain import explain
from tunesmith.config.machine import describe_machine
from tunesmith.config.policy import PolicyConfig
from tunesmith.core.heads import PooledHead
from tunesmith.data.load import lengths, preview
from tunesmith.evaluate.card import write_card
from tunesmith.evaluate.report import COMPARED, write_report
from tunesmith.evaluate.report_html import interval_text
from tunesmith.evaluate.report_model import (
    Cost,
    Curves,
    DataAccount,
    Estimate,
    Fit,
    Lineage,
    Measured,
    Report,
    Span,
    StepProfile,
)
from tunesmith.evaluate.words import describe_alarms, describe_chosen, describe_fit, describe_rewards
from tunesmith.models.adapters import kind_of
from tunesmith.models.critic import take_critic
from tunesmith.models.files import Manifest, licence_of
from tunesmith.models.load import Loaded
from tunesmith.models.save import save_model
from tunesmith.models.value import take_value
from tunesmith.scoring import PRIMARY, metric, show
from tunesmith.train.build import Built
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.folder import RunFolder
from tunesmith.train.rollout import RolloutSource
from tunesmith.train.spent import spent_on
from tunesmith.types import EventSink
from tunesmith.workflow import prove
from tunesmith.workflow.losses import loss_title
from tunesmith.workflow.prepare import Prepared
from tunesmith.workflow.systems import measure_all

PACKAGES = ("tunesmith", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


@dataclass
class Result:
    """What a run came to. report: None after a dry run. columns, rows: the systems, for a terminal."""

    folder: Path
    report: Report | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    text: str = ""

    def as_dict(self) -> dict[str, Any]:
        facts = {"folder": str(self.folder), "plan": self.plan}
        return facts if self.report is None else {**facts, "report": self.report.model_dump(mode="json")}

    def as_text(self) -> str:
        return self.text


def versions() -> dict[str, str]:
    return {package: version(package) for package in PACKAGES}


def finish(
    prepared: Prepared,
    built: Built,
    checkpoints: Checkpoints,
    folder: RunFolder,
    sink: EventSink,
    prepare_seconds: float,
) -> Result:
    """Best weights -> model/ -> proof -> report/."""
    run, progress = prepared.run, built.state.progress
    best = progress.best_step
    if best is not None and best != progress.step:
        built.state.optimizer.restore(checkpoints.load(best).groups["weights"], None)
        if best == 0:
            sink(
                "warning",
                text=f"no step was better than the base by {run.train.watch}: its own weights are kept",
            )
        else:
            sink("note", text=f"the weights of the best step, {best}, are kept")
    sink("phase", name="save", text=str(folder.model))
    manifest = _manifest(prepared, built.loaded)
    beside = take_value(built.loaded) | take_critic(built.loaded)
    loaded = built.loaded
    save_model(loaded.model.module, loaded.tokenizer, manifest, folder.model, loaded.model.head, beside)
    report = _new_report(prepared, built, folder)
    seconds = {
        "prepare": prepare_seconds,
        "train": progress.elapsed,  # of all sessions of a resumed run
    }
    measure_all(prepared, built, report, sink, seconds)
    _add_curves(report, folder, prepared, built)
    report.cost = _cost(folder, built, seconds)
    write_card(report, folder.model)
    page = write_report(report, folder.report)
    columns, rows = table_of(report)
    sink("table", title=f"{run.name}: test rows", columns=columns, rows=rows)
    headline = next((c.words for c in report.comparisons if c.base == "base"), "")
    lines = (headline, report.wins, f"report: {page}", f"model:  {folder.model}")
    text = "\n".join(line for line in lines if line)
    sink("done", text=f"finished in {sum(seconds.values()):.0f} s")
    return Result(folder.path, report, _plan_of(folder), columns, rows, text)


def _plan_of(folder: RunFolder) -> dict[str, Any]:
    events = folder.read_events("estimate")
    return {k: v for k, v in events[-1].items() if k not in ("kind", "time")} if events else {}


def _manifest(prepared: Prepared, loaded: Loaded) -> Manifest:
    run, source = prepared.run, prepared.source
    return Manifest(
        kind="full" if run.method.tuning == "full" else "adapter",
        base=source.base,
        base_hash=loaded.base_hash,
        dtype=run.model.dtype,
        template=prepared.choice.kind if prepared.choice else "",
        template_hash=prepared.renderer.template_hash,
        end_ids=[int(i) for i in prepared.renderer.end_ids],
        run=run.name,
        parent=source.manifest.run if source.manifest else None,
        versions=versions(),
        instruction=run.data.instruction,
        format=prepared.splits.mapping.kind,
        columns=run.data.columns,
        message_keys=run.data.message_keys,
        roles=run.data.roles,
        labels=list(prepared.labels),
        head=loaded.head.as_dict() if loaded.head else None,
    )


def _new_report(prepared: Prepared, built: Built, folder: RunFolder) -> Report:
    run, source = prepared.run, prepared.source
    module = built.loaded.model.module
    examples = prepared.examples("test") or prepared.examples("train")
    task = prepared.task(examples) if prove.have_answers(examples) else "text"
    return Report(
        name=run.name,
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        software=versions(),
        task=task,
        primary=PRIMARY[task] if prove.have_answers(examples) else "perplexity",
        confidence=run.evaluate.confidence,
        model=Lineage(
            base=source.base,
            base_hash=built.loaded.base_hash,
            kind=kind_of(module),
            architecture=architecture_of(built.loaded),
            parameters=sum(p.numel() for p in module.parameters()),
            trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
            template=prepared.choice.kind if prepared.choice else "",
            template_hash=prepared.renderer.template_hash,
            parent_run=source.manifest.run if source.manifest else "",
            path="; ".join(built.loaded.notes),
            base_licence=licence_of(source.base_folder),
        ),
        data=_account(prepared),
        config=explain(run, {}),
        reasons=prepared.reasons,
    )


def architecture_of(loaded: Loaded) -> str:
    head = loaded.model.head
    if head is not None and isinstance(head.carrier, PooledHead):
        what = "embeddings, " if head.kind == "embedding" else "a linear layer on "
        return f"{type(head.backbone).__name__} with {what}the {head.pooling} of its states"
    if head is not None:
        return type(head.carrier).__name__
    module = loaded.model.module
    return type(module.get_base_model() if isinstance(module, PeftModel) else module).__name__


def _account(prepared: Prepared) -> DataAccount:
    summary = prepared.splits.account.summary()
    spans = preview(prepared.renderer, prepared.rows["train"][0]).spans
    found = lengths(prepared.rows["train"])
    notes = summary["notes"]
    return DataAccount(
        read=summary["read"],
        used=summary["used"],
        dropped=summary["dropped"],
        cut=notes.get("prompt_cut", 0) + notes.get("answer_cut", 0),
        splits={name: len(rows) for name, rows in prepared.rows.items()},
        lengths={"mean": found["mean"], "p95": found["p95"], "longest": found["max"]},
        files=prepared.splits.hashes,
        mapping=prepared.splits.mapping.describe(),
        warnings=list(prepared.splits.warnings),
        preview=[Span(text=text, supervised=supervised) for text, supervised in spans],
    )


def _add_curves(report: Report, folder: RunFolder, prepared: Prepared, built: Built) -> None:
    steps, evaluations = folder.curve("step"), folder.curve("evaluation")
    names = [n for n in (evaluations[0]["metrics"] if evaluations else {}) if n != "loss"]
    own = isinstance(
        prepared.run.method, PolicyConfig
    )  # what stands for the loss of validation rows is the reward
    loss = [] if own else [(e["step"], e["metrics"]["loss"]) for e in evaluations]
    measured = dict.fromkeys(name for s in steps for name in s["metrics"])
    train_metrics = {n: [(s["step"], s["metrics"][n]) for s in steps if n in s["metrics"]] for n in measured}
    rolled = folder.curve("rollout")
    numbers = dict.fromkeys(name for r in rolled for name in r["numbers"])
    fell = describe_chosen(train_metrics.get("chosen_logp", []), train_metrics.get("rejected_logp", []))
    report.curves = Curves(
        loss=loss_title(prepared.run.method),
        train_loss=[(s["step"], s["loss"]) for s in steps],
        validation_loss=loss,
        validation={n: [(e["step"], e["metrics"][n]) for e in evaluations] for n in names},
        learning_rate=[(s["step"], s["learning_rate"]) for s in steps],
        grad_norm=[(s["step"], s["grad_norm"]) for s in steps],
        train_metrics=train_metrics,
        rollouts={n: [(r["step"], r["numbers"][n]) for r in rolled if n in r["numbers"]] for n in numbers},
        warnings=[text for text in (fell, describe_alarms([r.get("alarms", []) for r in rolled])) if text],
    )
    progress = built.state.progress
    best = progress.step if progress.best_step is None else progress.best_step
    source = built.state.source
    stopped = progress.stopped or (source.memory.stopping if isinstance(source, RolloutSource) else "")
    if stopped:
        report.curves.warnings.append(f"Training stopped early, at step {progress.step}: {stopped}.")
    if not evaluations:
        report.absent["fit"] = "there are no validation rows"
        return
    report.fit = Fit(
        best_step=best,
        last_step=progress.step,
        watch=prepared.run.train.watch,
        words=describe_rewards(report.curves.validation["reward"])
        if own
        else describe_fit(report.curves.train_loss, loss, best),
    )


def _cost(folder: RunFolder, built: Built, seconds: dict[str, float]) -> Cost:
    progress = built.state.progress
    steps = folder.curve("step")
    peak = max((s["memory_bytes"] for s in steps), default=0)
    plan = _plan_of(folder)
    profiled = folder.read_events("profile")[-1:]
    known = StepProfile.model_fields.keys()
    estimates = []
    stepping = sum(s["tokens"] / s["tokens_per_second"] for s in steps)
    if plan:
        estimates = [
            Estimate(
                what="training steps, without evaluations",
                unit="s",
                estimate=plan["train_seconds"],
                measured=stepping,
            ),
            Estimate(
                what="peak memory while training",
                unit="GB",
                estimate=plan["peak_memory_bytes"] / 1e9,
                measured=peak / 1e9,
            ),
        ]
    return Cost(
        seconds=seconds,
        tokens=progress.tokens,
        tokens_per_second=progress.tokens / max(progress.elapsed, 1e-9),
        peak_memory_bytes=peak,
        machine=describe_machine(),
        estimates=estimates,
        rollouts=spent_on([r["seconds"] for r in folder.curve("rollout")], stepping),
        profile=StepProfile(**{k: v for k, v in profiled[0].items() if k in known}) if profiled else None,
    )


def table_of(report: Report) -> tuple[list[str], list[list[str]]]:
    """Systems against the metrics that matter for the task, with intervals."""
    names = list(COMPARED[report.task])[:3]
    if report.task == "json":
        fields = [c.name for c in report.classes]
        names = ["json_valid", "json_exact", *(f"accuracy.{f}" for f in fields)]
    names = [n for n in [*names, "perplexity"] if any(n in s.metrics for s in report.systems)]
    columns = ["system", *(metric(n).title for n in names)]
    rows = [[s.name, *(_cell(n, s.metrics.get(n)) for n in names)] for s in report.systems]
    return columns, rows


def _cell(name: str, measured: Measured | None) -> str:
    if measured is None:
        return "-"
    value = show(name, measured.value)
    return value if measured.low is None else f"{value} ({interval_text(name, measured)})"
