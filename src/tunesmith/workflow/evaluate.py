"""`evaluate`: one model on rows. `compare`: two models on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tunesmith.config.methods import SftConfig
from tunesmith.config.run import DataConfig, Run
from tunesmith.data.account import Account
from tunesmith.data.class_pairs import class_pairs
from tunesmith.data.columns import JUDGED
from tunesmith.data.encode import HeadEncoder, encode, span_labels
from tunesmith.data.load import read_examples, tokenise
from tunesmith.data.pairs import PairEncoder, encode_pairs
from tunesmith.data.render import Renderer, Supervise
from tunesmith.data.trees import tokenise_trees
from tunesmith.errors import DataError, ModelError
from tunesmith.evaluate.heads import HeadAnswerer
from tunesmith.evaluate.judge import Judge, PolicyJudge, RewardJudge
from tunesmith.evaluate.report import write_report
from tunesmith.evaluate.report_model import DataAccount, Lineage, Report
from tunesmith.models.adapters import kind_of
from tunesmith.models.files import Manifest, locate
from tunesmith.scoring import PRIMARY, Task, detect_task
from tunesmith.types import EventSink, Example, TokenRow, silent
from tunesmith.workflow import judging, prove
from tunesmith.workflow.finish import architecture_of, table_of, versions
from tunesmith.workflow.heads import TASKS, AnyEncoder
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
    examples, mappings = read_examples([str(p) for p in data], _columns(settings, models[0][1]), account)
    examples = prove.chosen_rows(examples, settings.evaluate.limit, settings.seed)
    if not examples:
        raise DataError(f"no usable row in {', '.join(map(str, data))}", "at least one row")
    proof: prove.Proof | None = None
    report: Report | None = None
    for name, model in models:
        show("phase", name=name, text=model)
        opened = load(model, threads=settings.train.threads, device=settings.model.device)
        if opened.embeds and proof is None and examples[0].label is not None:
            examples = list(class_pairs(examples, settings.seed, account))
        rows = _rows(opened, examples, settings, account)
        if proof is None or report is None:
            proof = _new_proof(
                settings, examples, rows, [model for _, model in models], opened.renderer, show
            )
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


def _columns(settings: Run, model: str) -> DataConfig:
    """How rows are read: as the settings say, else as a model with a head, or one of judged answers, needs them."""
    manifest = Manifest.read(locate(model), verify=False)
    if settings.data.format != "auto" or manifest is None:
        return settings.data
    judged = manifest.format in JUDGED
    if manifest.head is None and not judged:
        return settings.data
    return settings.data.model_copy(update={"format": "judged" if judged else manifest.format})


def _rows(opened: Opened, examples: Sequence[Example], settings: Run, account: Account) -> list[TokenRow]:
    if examples[0].completions and isinstance(opened.renderer, Renderer):
        return [
            *tokenise_trees(examples, opened.renderer, opened.context, settings.data.on_long_row, account)
        ]
    if isinstance(opened.renderer, HeadEncoder):
        return [*encode(examples, opened.renderer, opened.context, settings.data.on_long_row, account)]
    if isinstance(opened.renderer, PairEncoder):
        return [*encode_pairs(examples, opened.renderer, opened.context, settings.data.on_long_row, account)]
    own: Supervise = settings.method.supervise if isinstance(settings.method, SftConfig) else "assistant"
    supervise: Supervise = "all" if examples[0].text is not None else own
    long = settings.data.on_long_row
    return [*tokenise(examples, opened.renderer, supervise, opened.context, long, account)]


def _new_proof(
    settings: Run,
    examples: list[Example],
    rows: list[TokenRow],
    models: list[str],
    renderer: AnyEncoder,
    show: EventSink,
) -> prove.Proof:
    kept = {row.ref for row in rows}
    examples = [e for e in examples if e.ref in kept]
    labels = [e.label for e in examples]
    if examples[0].completions:
        task: Task = "steps" if examples[0].stepwise else "judged"
        return prove.Proof(settings, task, (), examples, rows, show)
    if isinstance(renderer, HeadEncoder):
        classes = span_labels(renderer.labels) if renderer.kind == "tag" else tuple(renderer.labels)
        return prove.Proof(settings, TASKS[renderer.kind], classes, examples, rows, show)
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
            kind=kind_of(module),
            architecture=architecture_of(opened.loaded),
            parameters=sum(p.numel() for p in module.parameters()),
            template=opened.renderer.choice.kind if isinstance(opened.renderer, Renderer) else "",
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
    if proof.task in ("judged", "steps"):
        proof.measure(name, *_judge(opened, rows), losses=False)
        return
    assert not isinstance(answerer, RewardJudge)
    if isinstance(answerer, HeadAnswerer):
        proof.measure(name, "the head's own answer", answerer, losses=False)
        return
    if proof.examples[0].text is not None:
        proof.texts_only(name, answerer)
        return
    proof.measure(name, "free generation, greedy", answerer)
    if proof.task == "label" and evaluate.label_scoring:
        proof.choose(f"{name} (choosing a label)", answerer)


def _judge(opened: Opened, rows: list[TokenRow]) -> tuple[str, Judge]:
    """How a model judges answers, in words, and what does it."""
    steps = "left_out" in rows[0].given
    if steps != (opened.of_steps is not None):
        raise ModelError(
            f"{'stepwise rows' if steps else 'judged answers'} for a model that was not trained on such",
            "a model of method.type=stepwise" if steps else "a reward model or a language model",
            "choose other rows, or another model",
        )
    if opened.loaded.head is None:
        by_ref = {row.ref: row for row in rows}
        return judging.LIKELIHOOD, PolicyJudge(
            opened.loaded.model, lambda some: [by_ref[e.ref] for e in some]
        )
    judge = opened.answerer(MAX_NEW_TOKENS, 1)
    if not isinstance(judge, RewardJudge):
        raise ModelError(
            f"judged rows for a model with a head for {opened.loaded.head.method}",
            "a reward model or a language model",
            "choose other rows, or another model",
        )
    return judging.STEPS if steps else judging.REWARDED, judge


def _fill(report: Report, proof: prove.Proof, names: list[str]) -> None:
    first, last = proof.get(names[0]), proof.get(names[-1])
    if first is None or last is None:
        losses = [proof.perplexities[name] for name in names]
        prove.fill_perplexity(report, losses[0], losses[-1], proof.settings, names)
    elif len(names) == 1:
        report.systems = proof.report_systems()
    else:
        proof.fill(report, first, last)
