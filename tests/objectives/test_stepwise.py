"""Process reward models: the loss against its formula, and the main job on steps; on a tiny Llama and a tiny BERT."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from tests import fakes
from tests.objectives.judged import held, log_s, value_and_gradient
from tests.objectives.test_reward import Rewarding, rewards_for
from tests.workflow.conftest import read_jsonl, write_jsonl
from tests.workflow.test_judged import BAD, GOOD, metric, recipe, run
from tunesmith.config.methods import StepwiseConfig
from tunesmith.core.batch import Batch
from tunesmith.errors import ConfigError, ModelError
from tunesmith.models.heads import HeadSpec
from tunesmith.objectives.stepwise import Stepwise
from tunesmith.types import RowRef, Segment, TokenRow
from tunesmith.workflow.evaluate import evaluate
from tunesmith.workflow.open import load
from tunesmith.workflow.predict import predict

NAN = math.nan
LABELS = [[1.0, 0.0, 1.0, 0.0], [NAN, 0.3, 0.9], [1.0], [0.5, NAN, 0.2, 1.0]]
COUNTED = {False: [4, 2, 1, 3], True: [2, 1, 1, 2]}


def chain(labels: list[float], line: int) -> TokenRow:
    """A prompt of three tokens and steps of two, each the child of the one before."""
    steps = [
        Segment(np.array([5 + line + i, 9]), np.array([0, float(label == label)], np.float32), i)
        for i, label in enumerate(labels)
    ]
    root = Segment(np.array([3, 4, 5 + line]), np.zeros(3, np.float32))
    return TokenRow(RowRef("f", line), (root, *steps), given={"scores": np.array(labels)})


ROWS = [chain(labels, line) for line, labels in enumerate(LABELS)]


@pytest.mark.parametrize("until_first_wrong", [False, True])
def test_the_loss_is_binary_cross_entropy_at_the_end_of_each_step(until_first_wrong: bool) -> None:
    batch = Batch.from_rows(ROWS)
    outputs = rewards_for(batch)
    objective = Stepwise(StepwiseConfig(until_first_wrong=until_first_wrong))
    want, at = torch.zeros((), dtype=torch.float64), 0
    for labels in LABELS:
        for i, y in enumerate(labels):
            after = until_first_wrong and any(label < 0.5 for label in labels[:i])
            if not math.isnan(y) and not after:
                want = want - y * log_s(outputs[at]) - (1 - y) * log_s(-outputs[at])
            at += 1
    found = objective.loss(Rewarding(outputs), batch)
    held(value_and_gradient(found.terms["stepwise"], outputs), value_and_gradient(want, outputs))
    assert objective.weights(batch)["stepwise"] == sum(COUNTED[until_first_wrong])
    assert found.metric_weights["step_accuracy"] == sum(COUNTED[until_first_wrong])


def test_a_far_output_costs_a_finite_loss() -> None:
    outputs = torch.full((12,), 200.0, requires_grad=True)
    found = Stepwise(StepwiseConfig()).loss(Rewarding(outputs), Batch.from_rows(ROWS)).terms["stepwise"]
    value, gradient = value_and_gradient(found, outputs)
    assert math.isfinite(value)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("until_first_wrong", [False, True])
def test_splitting_a_step_changes_nothing(until_first_wrong: bool) -> None:
    """Sums of losses, weights and gradients of the parts are those of the whole."""
    objective = Stepwise(StepwiseConfig(until_first_wrong=until_first_wrong))
    whole = Batch.from_rows(ROWS)
    outputs = rewards_for(whole)
    want = value_and_gradient(objective.loss(Rewarding(outputs), whole).terms["stepwise"], outputs)
    parts = [Batch.from_rows(ROWS[:1]), Batch.from_rows(ROWS[1:3]), Batch.from_rows(ROWS[3:])]
    pieces = torch.split(outputs, [len(part.completions) for part in parts])
    total = sum(
        objective.loss(Rewarding(piece), part).terms["stepwise"]
        for piece, part in zip(pieces, parts, strict=True)
    )
    held(value_and_gradient(total, outputs), want)
    assert sum(objective.weights(part)["stepwise"] for part in parts) == objective.weights(whole)["stepwise"]


@pytest.mark.parametrize("path", ["layout", "padded"])
def test_a_step_is_read_at_its_last_token_and_sees_only_what_is_before(
    path: Literal["layout", "padded"],
) -> None:
    """Held to the same model on the answer cut there, one row a call."""
    model = fakes.headed("llama", HeadSpec("reward", ("reward",), steps="min"), path=path)
    found = model.outputs(Batch.from_rows(ROWS))[:, 0]
    alone = []
    for row in ROWS:
        for end in row.completions:
            ids = np.concatenate([segment.ids for segment in row.segments[: end + 1]])
            cut = TokenRow(row.ref, (Segment(ids, np.zeros(len(ids), np.float32)),), given={})
            alone.append(model.outputs(Batch.from_rows([cut]))[0, 0])
    assert torch.allclose(found, torch.stack(alone), atol=1e-5)


# The main job ----------------------------------------------------------------------------------------------

LONG: dict[str, Any] = {"train": {"max_steps": 90, "eval_every": 30, "learning_rate": 5e-3}}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_model_finds_the_first_wrong_step(kind: str, base: Path, encoder: Path, tmp_path: Path) -> None:
    """And knows that what follows it is wrong, which words of a step alone cannot tell."""
    result = run(recipe("stepwise", "stepwise", base if kind == "decoder" else encoder, tmp_path, **LONG))
    assert result.report.task == "steps"
    assert metric(result, "tuned", "step_accuracy") > 0.95
    assert metric(result, "tuned", "first_wrong") > 0.9
    assert metric(result, "tuned", "wrong_f1") > 0.9
    assert metric(result, "tuned", "step_accuracy") > metric(result, "words of steps", "step_accuracy")
    assert metric(result, "all right", "wrong_recall") == 0
    opened = load(result.folder)
    steps = opened.score("is a dog here beside a pear?", [f"{GOOD} a dog", f"{BAD} a dog", "perhaps a dog"])
    assert steps[0] > 0.5 > max(steps[1:])
    again = evaluate(str(result.folder), [tmp_path / "test.jsonl"]).report.systems[0].metrics
    assert again["step_accuracy"].value == pytest.approx(metric(result, "tuned", "step_accuracy"))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("answer", ["min", "product", "last"])
def test_predict_scores_each_step_and_the_answer(answer: str, base: Path, tmp_path: Path) -> None:
    tree = recipe("stepwise", "stepwise", base, tmp_path, method={"answer": answer}, train={"max_steps": 4})
    result = run(tree)
    rows = [{"prompt": "is a dog here?", "completions": [f"{GOOD} a dog", "perhaps"]}] * 2 + [{"prompt": "a"}]
    predict(
        str(result.folder), write_jsonl(tmp_path / "ask.jsonl", rows), tmp_path / "out.jsonl", sink=silent
    )
    first, _, bad = read_jsonl(tmp_path / "out.jsonl")
    one, two = first["steps"]
    want = {"min": min(one, two), "product": one * two, "last": two}[answer]
    assert first["score"] == pytest.approx(want)
    assert "completions" in bad["error"]


def silent(*_: Any, **__: Any) -> None:
    pass


@pytest.mark.usefixtures("quick")
def test_other_rows_and_other_models_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="preference rows with"):
        run(recipe("stepwise", "preference", base, tmp_path))
    with pytest.raises(ConfigError, match="stepwise rows with") as caught:
        run(recipe("reward", "stepwise", base, tmp_path))
    assert "method.type=stepwise" in str(caught.value)
    result = run(recipe("stepwise", "stepwise", base, tmp_path, train={"max_steps": 2}))
    (tmp_path / "pairs").mkdir()
    recipe("preference", "preference", base, tmp_path / "pairs")
    with pytest.raises(ModelError, match="not trained on such"):
        evaluate(str(result.folder), [tmp_path / "pairs" / "test.jsonl"])
    with pytest.raises(ModelError, match="scores answers"):
        next(load(result.folder).predict(["a"]))
