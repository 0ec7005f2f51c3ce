"""A run on the model's own answers: the source of its rows, its evaluations, and its proof."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tunesmith.config.policy import PolicyConfig
from tunesmith.core.model import Model
from tunesmith.data.render import Renderer
from tunesmith.evaluate.report_model import Report, Written
from tunesmith.evaluate.wins import win_rate
from tunesmith.evaluate.words import describe_wins
from tunesmith.generate.vllm import connect
from tunesmith.models.critic import APART
from tunesmith.scoring.rewarded import answer_in
from tunesmith.train.build import Built
from tunesmith.train.folder import RunFolder
from tunesmith.train.rollout import RolloutSource
from tunesmith.train.start import StartWeights
from tunesmith.train.writing import Writer
from tunesmith.types import EventSink
from tunesmith.workflow.own import ANSWERS, Asker, sampling_of, writer_of
from tunesmith.workflow.prepare import Prepared
from tunesmith.workflow.prove import Found, Proof
from tunesmith.workflow.written import side_by_side

SAMPLED = f"the mean of {ANSWERS} sampled answers to each prompt"


def source_of(prepared: Prepared, built: Built, sink: EventSink) -> RolloutSource:
    """In place of the rows of a data set; a checkpoint holds what it was in the middle of."""
    run = prepared.run
    assert isinstance(run.method, PolicyConfig)
    assert isinstance(prepared.renderer, Renderer)
    prompts = built.source
    whole = math.ceil(prompts.num_rows / prompts.batch_size) * prompts.batch_size
    source = RolloutSource(
        prompts=replace(prompts, num_rows=whole),
        examples={e.ref: e for e in prepared.examples("train")},
        writer=_rolling(prepared, built.loaded.model, sink),
        objective=built.objective,
        start=StartWeights(built.loaded.model.module, besides=APART),
        seed=run.seed,
        sink=sink,
    )
    built.state.source = source
    return source


def _rolling(prepared: Prepared, model: Model, sink: EventSink) -> Writer:
    """Who writes the rollouts: a server, where the recipe names one."""
    run, writer, renderer = prepared.run, _writer(prepared, model), prepared.renderer
    assert isinstance(run.method, PolicyConfig)
    assert isinstance(renderer, Renderer)
    if run.method.vllm is None:
        return writer
    sampler = connect(
        run.method.vllm,
        model,
        sampling_of(run.method),
        run.method.max_new_tokens,
        renderer.end_ids,
        Path(run.method.vllm.folder or RunFolder(Path(run.output) / run.name).vllm),
        max(len(row.segments[0].ids) for row in prepared.rows["train"]),
        sink,
    )
    return replace(writer, sampler=sampler)


def asker(prepared: Prepared, model: Model, split: str, count: int) -> Asker:
    return Asker(_writer(prepared, model), prepared.rows[split], prepared.run.seed, count)


def _writer(prepared: Prepared, model: Model) -> Writer:
    assert isinstance(prepared.renderer, Renderer)
    return writer_of(prepared.run, model, prepared.tokenizer, prepared.renderer, prepared.rewards)


def watching(prepared: Prepared, model: Model, proof: Proof) -> Callable[[int], dict[str, float]]:
    """Evaluation on validation prompts, one answer each; the loss of a policy gradient says nothing, so it is minus the
    reward."""
    asks = asker(prepared, model, "validation", 1)

    def evaluate(step: int) -> dict[str, float]:
        metrics = proof.found("", "", asks.answer(proof.examples)).scores.metrics
        return {"loss": -metrics["reward"]} | metrics

    return evaluate


def measure(proof: Proof, prepared: Prepared, model: Model, name: str) -> Found:
    return proof.measure(name, SAMPLED, asker(prepared, model, "test", ANSWERS), losses=False)


def fill_written(report: Report, proof: Proof) -> None:
    """Answers of both side by side, and how often the tuned model's are rewarded more than those of the model as it
    was."""
    base, tuned = proof.get("base"), proof.get("tuned")
    if base is None or tuned is None:
        return
    before, after = ([answer_in(text) for text in system.texts] for system in (base, tuned))
    report.written = Written(
        how=f"the first of {ANSWERS} that are sampled",
        samples=side_by_side(proof.examples, before, after, proof.run.seed),
    )
    found = win_rate(base.scores.per_row["reward"], tuned.scores.per_row["reward"], settings=proof.settings)
    lengths = [float(np.mean(s.scores.per_row["answer_tokens"])) for s in (base, tuned)]
    report.wins = describe_wins(found, *lengths)
