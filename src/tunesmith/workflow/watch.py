"""Evaluation on validation rows while a run trains: what chooses the best step."""

from __future__ import annotations

import numpy as np

from tunesmith.config.policy import PolicyConfig
from tunesmith.config.rewards import called
from tunesmith.core.model import Model
from tunesmith.errors import ConfigError
from tunesmith.evaluate.heads import HeadAnswerer, mean
from tunesmith.evaluate.judge import Judge
from tunesmith.scoring import metric
from tunesmith.train.engine import Watch
from tunesmith.types import silent
from tunesmith.workflow import judged, judging, prove
from tunesmith.workflow.prepare import Prepared
from tunesmith.workflow.rollouts import watching


def watch_of(prepared: Prepared, model: Model) -> Watch | None:
    """Evaluation on validation rows: loss, and task metrics by generation."""
    run, rows = prepared.run, prepared.rows["validation"]
    if not rows:
        return None
    proof = _validation(prepared)
    higher = run.train.watch != "loss" and metric(run.train.watch).higher_is_better
    if isinstance(run.method, PolicyConfig):
        return Watch(watching(prepared, model, proof), run.train.watch, higher)
    answerer: prove.AnyAnswerer | Judge
    if judged.is_judged(run.method):
        answerer = judging.judge_of(run.method, model, rows)
    else:
        answerer = prove.make_answerer(run, model, prepared.tokenizer, prepared.renderer, prepared.context)

    def evaluate(step: int) -> dict[str, float]:
        if isinstance(answerer, Judge):
            outputs = answerer.outputs(rows)
            said = answerer.read(rows, outputs)
            return {"loss": mean(answerer.losses_of(rows, outputs))} | proof.found(
                "", "", said
            ).scores.metrics
        if isinstance(answerer, HeadAnswerer):  # one pass gives the loss and the answers
            outputs = answerer.outputs(rows)
            said = answerer.read(proof.examples, outputs)
            return {"loss": mean(answerer.losses_of(rows, outputs))} | proof.found(
                "", "", said
            ).scores.metrics
        metrics = {"loss": answerer.mean_loss(rows)}
        if proof.examples:
            metrics |= proof.found("", "", answerer.answer(proof.examples)).scores.metrics
        return metrics

    return Watch(evaluate, run.train.watch, higher)


def _validation(prepared: Prepared) -> prove.Proof:
    """What scores the validation rows that are answered: by a head all of them, by generation some, none of plain
    text."""
    run, examples = prepared.run, prepared.examples("validation")
    head = prepared.head is not None or judged.is_judged(run.method)
    answers = prove.have_answers(examples) and (head or run.train.eval_generate > 0)
    limit = None if head else run.train.eval_generate
    return prove.Proof(
        run=run,
        task=prepared.task(examples) if answers else "text",
        labels=prepared.labels,
        examples=prove.chosen_rows(examples, limit, run.seed) if answers else [],
        rows=[],
        sink=silent,
    )


def check_watch(prepared: Prepared) -> None:
    """Raises ConfigError where the metric that shall choose the best step will not be measured."""
    watch, known = prepared.run.train.watch, {"loss"}
    if watch in known:
        return
    proof = _validation(prepared)
    if isinstance(prepared.run.method, PolicyConfig):
        if not proof.examples and prepared.rows["validation"]:
            raise ConfigError(
                "train.eval_generate=0 with method.type=policy",
                "validation prompts to answer",
                "set data.validation_fraction=0 for a run without validation",
            )
        parts = prepared.run.method.rewards
        known |= {"reward", "answer_tokens"}
        known |= {f"reward.{called(part)}" for part in parts if len(parts) > 1 and part.weight >= 0}
    elif proof.examples:
        answers = proof.references
        even = None
        if (
            prepared.head is not None and prepared.head.method == "classify"
        ):  # heads measure probabilities too
            even = np.full((len(answers), len(proof.labels)), 1 / len(proof.labels))
        known |= proof.score(answers, [False] * len(answers), even).metrics.keys()
    if watch not in known:
        raise ConfigError(
            f"train.watch={watch} is not measured on these validation rows",
            "one of " + ", ".join(sorted(known)),
            "task metrics need validation rows with answers, and train.eval_generate above 0",
        )
