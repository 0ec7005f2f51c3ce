"""`evaluate`: one model on rows. `compare`: two models on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tunesmith.config.run import Run
from tunesmith.data.account import Account
from tunesmith.data.load import read_examples, tokenise
from tunesmith.data.render import Supervise
from tunesmith.errors import DataError
from tunesmith.evaluate.report import write_report
from tunesmith.evaluate.report_model import DataAccount, Lineage, Report
from tunesmith.models.files import Manifest, locate
from tunesmith.scoring import PRIMARY, detect_task
from tunesmith.types import EventSink, Example, TokenRow, silent
from tunesmith.workflow import prove
from tunesmith.workflow.finish import table_of, versions
from tunesmith.workflow.open import Opened, load

MAX_NEW_TOKENS = 256


@dataclass
class Evaluated:
    """The report of an evaluation, its table, and where it was written (None: nowhere)."""

    report: Report
    folder: Path | None
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return self.report.model_dump(mode="json")

    def as_text(self) -> str:
        widths = [max(len(r[i]) for r in [self.columns, *self.rows]) for i in range(len(self.columns))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [self.columns, *self.rows]
        ]
        lines += [f"{c.metric}: {c.words}" for c in self.report.comparisons]
        if self.folder is not None:
            lines.append(f"report: {self.folder / 'report.html'}")
        return "\n".join(lines)


def evaluate(
    model: str,
    data: Sequence[Path | str],
    *,
    settings: Run | None = None,
    output: Path | None = None,
    sink: EventSink | None = None,
) -> Evaluated:
    """Score one model on the rows of `data` by free generation (and, for labels, by likelihood)."""
    return _evaluate([("model", model)], data, settings or Run(), output, sink)


def compare(
    a: str,
    b: str,
    data: Sequence[Path | str],
    *,
    settings: Run | None = None,
    output: Path | None = None,
    sink: EventSink | None = None,
) -> Evaluated:
    """Score two models on the same rows; b minus a, with intervals and p-values."""
    return _evaluate([("a", a), ("b", b)], data, settings or Run(), output, sink)


def _evaluate(
    models: list[tuple[str, str]],
    data: Sequence[Path | str],
    settings: Run,
    output: Path | None,
    sink: EventSink | None,
) -> Evaluated:
    show = sink or silent
    account = Account(settings.data.on_bad_row)
    examples, mappings = read_examples([str(p) for p in data], settings.data, account)
    examples = prove.chosen_rows(examples, settings.evaluate.limit, settings.seed)
    if not examples:
        raise DataError(f"no usable row in {', '.join(map(str, data))}", "at least one row")
    proof: prove.Proof | None = None
    report: Report | None = None
    for name, model in models:
        show("phase", name=name, text=model)
        opened = load(model, threads=settings.train.threads)
        rows = _rows(opened, examples, settings, account)
        if proof is None or report is None:
            proof = _new_proof(settings, examples, rows, [model for _, model in models], show)
            report = _new_report(settings, proof, opened, account, models)
            report.data.mapping = "; ".join(m.describe() for m in mappings.values())
        _measure(proof, opened, name, rows)
        prove.free(opened.loaded.model)
    assert proof is not None
    assert report is not None
    _fill(report, proof, [name for name, _ in models])
    if output is not None:
        write_report(report, output)
    columns, table = table_of(report)
    return Evaluated(report, output, columns, table)


def _rows(opened: Opened, examples: Sequence[Example], settings: Run, account: Account) -> list[TokenRow]:
    supervise: Supervise = "all" if examples[0].text is not None else settings.method.supervise
    return tokenise(examples, opened.renderer, supervise, opened.context, settings.data.on_long_row, account)


def _new_proof(
    settings: Run, examples: list[Example], rows: list[TokenRow], models: list[str], show: EventSink
) -> prove.Proof:
    kept = {row.ref for row in rows}
    examples = [e for e in examples if e.ref in kept]
    labels = [e.label for e in examples]
    task = detect_task([e.answer for e in examples], labels)
    known = {label for label in labels if label is not None}
    if known:
        known |= {label for model in models for label in _trained_labels(model)}
    return prove.Proof(settings, task, tuple(sorted(known)), examples, rows, show)


def _trained_labels(model: str) -> list[str]:
    manifest = Manifest.read(locate(model), verify=False)
    return manifest.labels if manifest else []


def _new_report(
    settings: Run, proof: prove.Proof, opened: Opened, account: Account, models: list[tuple[str, str]]
) -> Report:
    summary = account.summary()
    module = opened.loaded.model.module
    return Report(
        name=" and ".join(Path(model).name for _, model in models),
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        software=versions(),
        task=proof.task,
        primary="perplexity" if proof.examples[0].text is not None else PRIMARY[proof.task],
        confidence=settings.evaluate.confidence,
        model=Lineage(
            base=opened.loaded.base,
            base_hash=opened.loaded.base_hash,
            kind="lora" if opened.loaded.adapter else "full",
            architecture=type(module).__name__,
            parameters=sum(p.numel() for p in module.parameters()),
            template=opened.renderer.choice.kind,
            template_hash=opened.renderer.template_hash,
            path="; ".join(opened.loaded.notes),
        ),
        data=DataAccount(read=summary["read"], used=summary["used"], dropped=summary["dropped"]),
        absent={"curves": "nothing was trained", "fit": "nothing was trained"},
    )


def _measure(proof: prove.Proof, opened: Opened, name: str, rows: list[TokenRow]) -> None:
    evaluate = proof.run.evaluate
    answerer = opened.answerer(evaluate.max_new_tokens or MAX_NEW_TOKENS, evaluate.batch_size)
    proof.rows = rows
    if proof.examples[0].text is not None:
        proof.texts_only(name, answerer)
        return
    proof.measure(name, "free generation, greedy", answerer)
    if proof.task == "label" and evaluate.label_scoring:
        proof.choose(f"{name} (choosing a label)", answerer)


def _fill(report: Report, proof: prove.Proof, names: list[str]) -> None:
    first, last = proof.get(names[0]), proof.get(names[-1])
    if first is None or last is None:
        losses = [proof.perplexities[name] for name in names]
        prove.fill_perplexity(report, losses[0], losses[-1], proof.settings, names)
    elif len(names) == 1:
        report.systems = proof.report_systems()
    else:
        proof.fill(report, first, last)
