"""The proof: base, tuned and baselines on the same test rows, scored once, and the report."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.methods import ClassifyConfig, EmbedConfig
from tunesmith.config.run import DataConfig, Run
from tunesmith.core.device import give_back_freed_blocks
from tunesmith.core.model import Model
from tunesmith.data.account import Account
from tunesmith.data.backend import one
from tunesmith.data.encode import HeadEncoder
from tunesmith.data.load import read_examples
from tunesmith.data.render import Renderer
from tunesmith.data.tokens import windows
from tunesmith.embedded import general_text
from tunesmith.evaluate.answers import Answerer, Answers, pick_shots
from tunesmith.evaluate.baselines import BASELINES, asked
from tunesmith.evaluate.heads import HeadAnswerer
from tunesmith.evaluate.judge import Judge
from tunesmith.evaluate.judged import judged_completions, judgement_of
from tunesmith.evaluate.report import (
    Losses,
    calibration_of,
    class_scores,
    compare,
    comparison,
    confusion_of,
    flips_of,
    measured,
    pick_examples,
    system,
)
from tunesmith.evaluate.report_model import Comparison, Forgetting, Report, Sample, Suspect, System
from tunesmith.evaluate.retriever import Retriever
from tunesmith.evaluate.stats import (
    Interval,
    Settings,
    perplexity_difference,
    perplexity_interval,
    perplexity_ratio,
)
from tunesmith.evaluate.words import describe_forgetting
from tunesmith.scoring import TASKS, Scores, Task, align, known_classes, score
from tunesmith.scoring.rewarded import answer_in
from tunesmith.types import EventSink, Example, RowRef, TokenRow
from tunesmith.workflow.heads import AnyEncoder
from tunesmith.workflow.own import Asker

AnyAnswerer = Answerer | HeadAnswerer | Judge
Answering = AnyAnswerer | Asker

SUSPECT_TOKENS = 40_000
"""Training tokens scored again to find rows that are still hard: enough to rank them, cheap beside training."""

ORDER = (
    "base",
    "few-shot base",
    *dict.fromkeys(baseline.name for found in BASELINES.values() for baseline in found),
    "base (choosing a label)",
    "tuned (choosing a label)",
    "tuned (by reward)",
    "tuned",
)


@dataclass
class Found:
    """What one system did: answers, scores, losses on the references."""

    name: str
    note: str
    texts: list[str]
    scores: Scores
    losses: Losses | None = None


@dataclass
class Proof:
    """The systems that have been measured so far, on one set of rows.

    examples: the rows; rows: their token rows (an example may have several). seconds: phase -> wall time.
    """

    run: Run
    task: Task
    labels: tuple[str, ...]
    examples: list[Example]
    rows: list[TokenRow]
    sink: EventSink
    systems: list[Found] = field(default_factory=list)
    perplexities: dict[str, Losses] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - started

    @property
    def settings(self) -> Settings:
        evaluate = self.run.evaluate
        return Settings(evaluate.bootstrap, evaluate.confidence, self.run.seed)

    def measure(
        self,
        name: str,
        note: str,
        answerer: Answering,
        shots: Sequence[Example] = (),
        *,
        losses: bool = True,
    ) -> Found:
        """Free generation by a model, and its losses on the reference answers."""
        with self.timed(f"answers of {name}"):
            said = answerer.answer(
                self.examples,
                shots,
                lambda done, total: self.sink("progress", name=name, done=done, total=total),
            )
            found = self.found(name, note, said)
            if losses:
                assert not isinstance(answerer, Asker), "answers that are sampled have rewards and no loss"
                found.losses = self.losses(answerer)
        self.systems.append(found)
        return found

    def texts_only(self, name: str, answerer: Answerer) -> None:
        """For rows without answers: the losses on their text."""
        with self.timed(f"losses of {name}"):
            self.perplexities[name] = self.losses(answerer)

    def choose(self, name: str, answerer: Answerer) -> None:
        """Constrained: the known label of highest likelihood."""
        with self.timed(f"answers of {name}"):
            texts = answerer.choose(self.examples, self.labels)
        note = "picks the label of highest likelihood among those seen in training"
        self.systems.append(Found(name, note, texts, self.score(texts)))

    def baselines(self, train: Sequence[Example]) -> None:
        """What needs no language model, for every task that has such a baseline."""
        with self.timed("baselines"):
            for baseline in BASELINES[self.task]:
                said = baseline.answer(train, self.examples)
                self.systems.append(Found(baseline.name, baseline.note, said, self.score(said)))

    def found(self, name: str, note: str, said: Answers) -> Found:
        return Found(name, note, said.texts, self.score(said.texts, said.cut, said.probabilities))

    def score(
        self,
        texts: Sequence[str],
        cut: Sequence[bool] | None = None,
        probabilities: NDArray[np.float64] | None = None,
    ) -> Scores:
        """probabilities: (N, L) in the order of `self.labels`; a class that only the test rows have gets 0."""
        references = self.references
        labels = known_classes(self.task, references, self.labels)
        if probabilities is not None:
            probabilities = align(probabilities, self.labels, labels)
        return score(self.task, references, texts, labels, hit_limit=cut, probabilities=probabilities)

    def losses(self, answerer: AnyAnswerer) -> Losses:
        """One loss an example, where an example may have several token rows."""
        found = answerer.losses(self.rows)
        index = {e.ref: i for i, e in enumerate(self.examples)}
        nll, tokens = np.zeros(len(index)), np.zeros(len(index), dtype=np.int64)
        for row, row_nll, row_tokens in zip(self.rows, found.nll, found.tokens, strict=True):
            nll[index[row.ref]] += row_nll
            tokens[index[row.ref]] += row_tokens
        return Losses(nll, tokens)

    @property
    def references(self) -> list[str]:
        """What the examples are held to."""
        return [TASKS[self.task].reference(e) for e in self.examples]

    def get(self, name: str) -> Found | None:
        return next((s for s in self.systems if s.name == name), None)

    def report_systems(self) -> list[System]:
        return [
            system(s.name, s.scores, note=s.note, losses=s.losses, settings=self.settings)
            for s in self.systems
        ]

    def comparisons(self, tuned: Found) -> list[Comparison]:
        out: list[Comparison] = []
        for other in self.systems:
            if other is tuned or other.name.startswith(f"{tuned.name} ("):
                continue
            both = (other.losses, tuned.losses) if other.losses and tuned.losses else None
            out += compare(
                other.name,
                other.scores,
                tuned.scores,
                losses=both,
                tuned_name=tuned.name,
                settings=self.settings,
            )
        return out

    def fill_ordered(self, report: Report) -> None:
        """`fill` with base and tuned, the systems in the order people read them."""
        self.systems.sort(key=lambda s: ORDER.index(s.name))
        base, tuned = self.get("base"), self.get("tuned")
        assert base is not None
        assert tuned is not None
        self.fill(report, base, tuned)

    def fill(self, report: Report, base: Found, tuned: Found) -> None:
        """Put everything measured into the report."""
        report.systems = self.report_systems()
        report.comparisons = self.comparisons(tuned)
        report.calibrations = [k for f in (base, tuned) if (k := calibration_of(f.name, f.scores))]
        settings = self.settings
        report.judgements = [j for f in (base, tuned) if (j := judgement_of(f.name, f.scores, settings))]
        report.confusions = [c for f in (base, tuned) if (c := confusion_of(f.name, f.scores))]
        shown = answer_in if self.task == "rewarded" else str
        samples = [
            Sample(
                where=str(e.ref),
                prompt=asked(e),
                reference=e.answer,
                base=shown(b),
                tuned=shown(t),
                completions=judged_completions(e, b, t) if self.task in ("judged", "steps") else [],
            )
            for e, b, t in zip(self.examples, base.texts, tuned.texts, strict=True)
        ]
        report.classes = class_scores(base.scores, tuned.scores)
        report.flips = flips_of(base.scores, tuned.scores, samples)
        report.good, report.bad = pick_examples(tuned.scores, samples, seed=self.run.seed)


def have_answers(examples: Sequence[Example]) -> bool:
    """Conversations are answered; plain text is only read."""
    return bool(examples) and examples[0].text is None


def chosen_rows(examples: Sequence[Example], limit: int | None, seed: int) -> list[Example]:
    """All, or a seeded choice of `limit`, in file order."""
    if limit is None or limit >= len(examples):
        return list(examples)
    picked = np.random.default_rng((seed, 2)).permutation(len(examples))[:limit]
    return [examples[i] for i in sorted(picked)]


def make_answerer(
    run: Run, model: Model, tokenizer: object, renderer: AnyEncoder, context: int
) -> AnyAnswerer:
    if isinstance(renderer, HeadEncoder):
        limit = min(run.data.max_length or context, context)
        if isinstance(run.method, EmbedConfig):
            return Retriever(model, renderer, limit, method=run.method)
        below = run.method.abstain_below if isinstance(run.method, ClassifyConfig) else 0.0
        return HeadAnswerer(model, renderer, limit, below)
    assert run.evaluate.max_new_tokens is not None
    return Answerer(
        model=model,
        tokenizer=tokenizer,
        prompter=renderer,
        max_new_tokens=min(run.evaluate.max_new_tokens, context // 2),
        batch_size=run.evaluate.batch_size,
        context=context,
    )


def suspects(
    answerer: AnyAnswerer, examples: Sequence[Example], rows: Sequence[TokenRow], seed: int
) -> list[Suspect]:
    """The training rows of highest mean loss among a seeded choice of them, worst first."""
    by_ref = {e.ref: e for e in examples}
    chosen: list[TokenRow] = []
    used = 0
    for i in np.random.default_rng((seed, 3)).permutation(len(rows)):
        if used > SUSPECT_TOKENS:
            break
        chosen.append(rows[i])
        used += rows[i].num_tokens
    losses = answerer.losses(chosen)
    mean = losses.nll / np.maximum(losses.tokens, 1)
    worst = np.argsort(-mean, kind="stable")[:10]
    return [
        Suspect(
            where=str(chosen[i].ref),
            loss=float(mean[i]),
            text=asked(by_ref[chosen[i].ref]),
            answer=by_ref[chosen[i].ref].answer,
        )
        for i in worst
    ]


def general_rows(run: Run, renderer: AnyEncoder, context: int) -> list[TokenRow]:
    """Token rows of the general sample: the lines of a .txt file, or the `text` column of a file of rows; a text
    longer than the context becomes several windows. Raises DataError for rows without text."""
    if not isinstance(renderer, Renderer):
        return []  # a head writes no text, and an encoder-decoder model continues none
    examples: list[Example] = []
    for path in run.evaluate.forgetting:
        file = general_text() if path == "embedded" else Path(path)
        examples += _lines(file) if file.suffix == ".txt" else _texts(file)
    rows = [row for made in renderer.rows_of(examples, "all") for row in one([made])]
    return [window for row in rows for window in windows(row, context)]


def _lines(file: Path) -> list[Example]:
    lines = file.read_text(encoding="utf-8").split("\n")
    return [Example(RowRef(file.name, n), text=line) for n, line in enumerate(lines, 1) if line.strip()]


def _texts(file: Path) -> list[Example]:
    return read_examples([str(file)], DataConfig(format="text"), Account("stop"))[0]


def forgetting(before: Losses, after: Losses, run: Run) -> Forgetting:
    settings = Settings(run.evaluate.bootstrap, run.evaluate.confidence, run.seed)
    ratio: Interval = perplexity_ratio(before.nll, after.nll, before.tokens, settings)
    first = float(np.exp(before.nll.sum() / before.tokens.sum()))
    last = float(np.exp(after.nll.sum() / after.tokens.sum()))
    names = ", ".join(
        "the built-in general sample" if p == "embedded" else p for p in run.evaluate.forgetting
    )
    return Forgetting(before=first, after=last, words=describe_forgetting(first, last, ratio), texts=names)


def shots_for(run: Run, train: Sequence[Example]) -> list[Example]:
    return pick_shots(train, run.evaluate.few_shot, run.seed)


def fill_perplexity(
    report: Report, base: Losses, tuned: Losses, settings: Settings, names: Sequence[str] = ("base", "tuned")
) -> None:
    """For rows without answers (plain text): the perplexity of each system, and their difference."""
    for name, losses in zip(dict.fromkeys(names), (base, tuned), strict=False):
        found = perplexity_interval(losses.nll, losses.tokens, settings)
        note = "perplexity of the held-out text"
        report.systems.append(System(name=name, note=note, metrics={"perplexity": measured(found)}))
    if len(names) < 2:
        return
    found, test = perplexity_difference(base.nll, tuned.nll, base.tokens, settings)
    report.comparisons.append(comparison("perplexity", names[0], names[1], found, test, settings))


def free(*models: Model) -> None:
    """Let go of a model's weights before the next is loaded."""
    for model in models:
        model.module, model.head = None, None
    gc.collect()
    give_back_freed_blocks()
