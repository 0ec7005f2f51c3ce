"""The systems that a finished run is proved by: tuned, base, and baselines, on the same test rows."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.config.judged import ScoresAnswers
from tunesmith.config.policy import PolicyConfig
from tunesmith.core.model import Model
from tunesmith.data.encode import HeadEncoder
from tunesmith.data.render import Renderer
from tunesmith.evaluate.answers import Answerer
from tunesmith.evaluate.heads import HeadAnswerer
from tunesmith.evaluate.linear_probe import NOTE, linear_probe
from tunesmith.evaluate.report import Losses
from tunesmith.evaluate.report_model import Report
from tunesmith.evaluate.retriever import Retriever
from tunesmith.models.load import Loaded, load_model
from tunesmith.train.build import Built, with_template, writes_after_prompt
from tunesmith.types import EventSink, TokenRow
from tunesmith.workflow import judged, judging, prove, rollouts
from tunesmith.workflow.prepare import Prepared
from tunesmith.workflow.written import Writing

NO_TEST_ROWS = "there are no test rows (data.test_fraction is 0 and no data.test is given)"


@dataclass
class _General:
    """Losses of one model on held-out text (where rows have no answers) and on the general sample."""

    held_out: Losses | None
    general: Losses | None


def measure_all(
    prepared: Prepared, built: Built, report: Report, sink: EventSink, seconds: dict[str, float]
) -> None:
    """Tuned first, then base: one model in memory at a time."""
    run = prepared.run
    sink("phase", name="prove", text="base, tuned and baselines on the same test rows")
    examples = prove.chosen_rows(prepared.examples("test"), run.evaluate.limit, run.seed)
    refs = {e.ref for e in examples}
    proof = prove.Proof(
        run=run,
        task=report.task,
        labels=prepared.labels,
        examples=examples,
        rows=[r for r in prepared.rows["test"] if r.ref in refs],
        sink=sink,
    )
    answers = prove.have_answers(examples)
    if judged.is_judged(run.method):
        _prove_judged(prepared, built, report, proof)
        seconds |= proof.seconds
        return
    if isinstance(run.method, PolicyConfig):
        _prove_own(prepared, built, report, proof)
        seconds |= proof.seconds
        return
    if isinstance(prepared.renderer, HeadEncoder):
        _prove_head(prepared, built, report, proof)
        seconds |= proof.seconds
        return
    general = prove.general_rows(run, prepared.renderer, prepared.context)
    tuned = _look(prepared, proof, built.loaded.model, "tuned", general)
    with proof.timed("hard training rows"):
        report.suspects = prove.suspects(
            _answerer(prepared, built.loaded.model), prepared.splits.train, prepared.rows["train"], run.seed
        )
    built.state.optimizer.release()
    prove.free(built.loaded.model)
    base_model = load_base(prepared).model
    base = _look(prepared, proof, base_model, "base", general)
    if answers and run.evaluate.few_shot and isinstance(prepared.renderer, Renderer):
        shots = prove.shots_for(run, prepared.examples("train"))
        note = f"prompted with {len(shots)} training examples (as many as fit)"
        proof.measure("few-shot base", note, _answerer(prepared, base_model), shots, losses=False)
    prove.free(base_model)
    if answers and run.evaluate.baselines:
        proof.baselines(prepared.examples("train"))
    if answers:
        with proof.timed("statistics"):
            proof.fill_ordered(report)
    elif base.held_out and tuned.held_out:
        prove.fill_perplexity(report, base.held_out, tuned.held_out, proof.settings)
    else:
        report.absent["systems"] = NO_TEST_ROWS
    if base.general and tuned.general:
        report.forgetting = prove.forgetting(base.general, tuned.general, run)
    elif not isinstance(prepared.renderer, Renderer):
        report.absent["forgetting"] = "an encoder-decoder model has no perplexity on plain text"
    seconds |= proof.seconds


def _prove_head(prepared: Prepared, built: Built, report: Report, proof: prove.Proof) -> None:
    """The head on the test rows, against a linear probe on what the base's features already hold."""
    run = prepared.run
    tuned = _head_answerer(prepared, built.loaded.model)
    if proof.examples:
        what = "its embeddings" if isinstance(tuned, Retriever) else "the head's own answer"
        proof.measure("tuned", what, tuned, losses=False)
    with proof.timed("hard training rows"):
        report.suspects = prove.suspects(tuned, prepared.splits.train, prepared.rows["train"], run.seed)
    built.state.optimizer.release()
    prove.free(built.loaded.model)
    report.absent["forgetting"] = "a head writes no text"
    if not proof.examples:
        report.absent["systems"] = NO_TEST_ROWS
        return
    base = load_base(prepared).model
    answerer = _head_answerer(prepared, base)
    if isinstance(answerer, Retriever):
        proof.measure("base", "the untuned model's own embeddings", answerer, losses=False)
    else:
        _probe(prepared, proof, answerer)
    prove.free(base)
    if run.evaluate.baselines:
        proof.baselines(prepared.examples("train"))
    with proof.timed("statistics"):
        proof.fill_ordered(report)


def _prove_judged(prepared: Prepared, built: Built, report: Report, proof: prove.Proof) -> None:
    """The tuned model, the one it was, and what looks at the words or the length alone, on the same judged answers."""
    run, method, model = prepared.run, prepared.run.method, built.loaded.model
    general: list[TokenRow] = []
    if isinstance(method, ScoresAnswers):
        report.absent["forgetting"] = "a reward model writes no text"
    else:
        general = prove.general_rows(run, prepared.renderer, prepared.context)
    writing = Writing(prepared, proof)
    if proof.examples:
        judging.measure(proof, method, model, "tuned")
    if proof.examples and not isinstance(method, ScoresAnswers):
        writing.write("tuned", _answerer(prepared, model))
    after = _answerer(prepared, model).losses(general) if general else None
    with proof.timed("hard training rows"):
        judge = judging.judge_of(method, model, prepared.rows["train"])
        report.suspects = prove.suspects(judge, prepared.splits.train, prepared.rows["train"], run.seed)
    built.state.optimizer.release()
    prove.free(model)
    base = load_base(prepared).model
    if after is not None:
        before = _answerer(prepared, base).losses(general)
        report.forgetting = prove.forgetting(before, after, run)
    if not proof.examples:
        report.absent["systems"] = NO_TEST_ROWS
        return
    if isinstance(method, ScoresAnswers):
        judging.probe(proof, method, base, prepared.rows["train"])
    else:
        judging.measure(proof, method, base, "base")
        writing.write("base", _answerer(prepared, base))
    prove.free(base)
    if writing.answers:
        writing.fill(report)
    if run.evaluate.baselines:
        proof.baselines(prepared.examples("train"))
    with proof.timed("statistics"):
        proof.fill_ordered(report)


def _prove_own(prepared: Prepared, built: Built, report: Report, proof: prove.Proof) -> None:
    """Answers of the tuned model and of the one it was to the same prompts, and what they are rewarded with."""
    run, model = prepared.run, built.loaded.model
    general = prove.general_rows(run, prepared.renderer, prepared.context)
    if proof.examples:
        rollouts.measure(proof, prepared, model, "tuned")
    after = _answerer(prepared, model).losses(general) if general else None
    report.absent["suspects"] = "the model learned from its own answers"
    built.state.optimizer.release()
    prove.free(model)
    base = load_base(prepared).model
    if after is not None:
        report.forgetting = prove.forgetting(_answerer(prepared, base).losses(general), after, run)
    if not proof.examples:
        report.absent["systems"] = NO_TEST_ROWS
        return
    rollouts.measure(proof, prepared, base, "base")
    prove.free(base)
    with proof.timed("statistics"):
        proof.fill_ordered(report)
        rollouts.fill_written(report, proof)


def _probe(prepared: Prepared, proof: prove.Proof, answerer: HeadAnswerer) -> None:
    with proof.timed("answers of base"):
        outputs = linear_probe(answerer, prepared.rows["train"], proof.rows, prepared.run.seed)
        proof.systems.append(proof.found("base", NOTE, answerer.read(proof.examples, outputs)))


def _answerer(prepared: Prepared, model: Model) -> Answerer:
    found = _any_answerer(prepared, model)
    assert isinstance(found, Answerer)
    return found


def _head_answerer(prepared: Prepared, model: Model) -> HeadAnswerer:
    found = _any_answerer(prepared, model)
    assert isinstance(found, HeadAnswerer)
    return found


def _any_answerer(prepared: Prepared, model: Model) -> prove.AnyAnswerer:
    return prove.make_answerer(prepared.run, model, prepared.tokenizer, prepared.renderer, prepared.context)


def _look(
    prepared: Prepared, proof: prove.Proof, model: Model, name: str, general: list[TokenRow]
) -> _General:
    """Everything that is measured of one model."""
    run, answerer = prepared.run, _answerer(prepared, model)
    answers = prove.have_answers(proof.examples)
    if answers:
        proof.measure(name, "free generation, greedy", answerer)
        if proof.task == "label" and run.evaluate.label_scoring:
            proof.choose(f"{name} (choosing a label)", answerer)
    with proof.timed(f"losses of {name}"):
        held_out = proof.losses(answerer) if proof.examples and not answers else None
        return _General(held_out, answerer.losses(general) if general else None)


def load_base(prepared: Prepared) -> Loaded:
    """The model as it was before training, with the same template and new tokens."""
    loaded = load_model(prepared.run.model, head=prepared.head)
    if writes_after_prompt(loaded):
        with_template(loaded, prepared.run.model.template)
    return loaded
