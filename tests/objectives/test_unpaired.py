"""KTO, BCO and APO on single answers against their formulas; the zero point is of the whole step."""

from __future__ import annotations

import pytest
import torch

from tests import fakes
from tests.objectives.judged import Known, held, log_s, random_losses, s, spelled_out, value_and_gradient
from tunesmith.config.judged import UnpairedConfig
from tunesmith.core.batch import Batch
from tunesmith.objectives.unpaired import Unpaired

NAN = float("nan")


def resolved(**settings) -> UnpairedConfig:
    config = UnpairedConfig(**settings)
    return config.model_copy(update={name: value for name, (value, _) in config.choices().items()})


def rows(count=6, shift=0.0):
    """A judged answer, and an answer to another prompt. shift: of the others' reference."""
    out = []
    for i, row in enumerate(fakes.judged_rows(count, most=2)):
        reference = row.given["reference"] - [0.0, shift]
        leaves = [c.ids for c in row.segments[1:]]
        out.append(
            fakes.judged_row(row.segments[0].ids, leaves, [float(i % 3 > 0), NAN], i, reference=reference)
        )
    return out


def want(config, spelled):
    rewards = [[config.beta * (p - r) for _, p, r, _ in completions] for completions, _ in spelled]
    if config.loss == "kto":
        zero = max(0.0, sum(other.item() for _, other in rewards) / len(rewards))
    else:
        zero = sum(r.item() for r, _ in rewards) / len(rewards) if config.loss == "bco" else 0.0
    total = 0.0
    for (completions, _), (r, _) in zip(spelled, rewards, strict=True):
        good = completions[0][0] == 1.0
        x = r - zero if good else zero - r
        weight = config.desirable_weight if good else config.undesirable_weight
        total = total + weight * (-log_s(x) if config.loss == "bco" else 1 - s(x))
    return total


@pytest.mark.parametrize("shift", [-40.0, 40.0], ids=["near", "far"])
@pytest.mark.parametrize("loss", ["kto", "bco", "apo_zero"])
def test_the_loss_and_its_gradient_are_the_papers(loss, shift):
    config, given = resolved(loss=loss, desirable_weight=1.5, undesirable_weight=0.5), rows(shift=shift)
    batch = Batch.from_rows(given)
    losses = random_losses(batch)
    out = Unpaired(config).loss(Known(losses), batch)
    held(
        value_and_gradient(out.terms["unpaired"], losses),
        value_and_gradient(want(config, spelled_out(given, losses)), losses),
    )


@pytest.mark.parametrize("loss", ["kto", "bco"])
def test_the_zero_point_is_of_the_whole_step(loss):
    given, module = rows(), fakes.module("gpt2")
    model, found = fakes.model("gpt2", module_=module), []
    for split in ([6], [2, 4], [1] * 6):
        objective = Unpaired(resolved(loss=loss))
        batches = [Batch.from_rows(given[sum(split[:i]) : sum(split[: i + 1])]) for i in range(len(split))]
        objective.begin_step(model, batches)
        found.append(sum(objective.loss(model, b).terms["unpaired"].item() for b in batches))
    assert found[1] == pytest.approx(found[0], rel=1e-12)
    assert found[2] == pytest.approx(found[0], rel=1e-12)


def test_an_answer_to_another_prompt_gets_no_gradient():
    given = rows()
    batch = Batch.from_rows(given)
    losses = random_losses(batch)
    Unpaired(resolved()).loss(Known(losses), batch).terms["unpaired"].backward()
    other = batch.given("scores").isnan()[batch.completion_of]
    assert losses.grad[other].abs().max() == 0
    assert losses.grad[~other].abs().min() > 0
    assert Unpaired(resolved()).weights(batch)["unpaired"].item() == 6


def test_rows_of_pairs_count_as_one_good_and_one_bad_answer():
    row = fakes.judged_row([3], [[5], [6], [7]], [1.0, 0.0, NAN], reference=[-1.0, -1.0, -1.0])
    batch = Batch.from_rows([row])
    objective = Unpaired(resolved(beta=1.0))
    assert objective.weights(batch)["unpaired"].item() == 2
    out = objective.loss(Known(torch.tensor([0.5, 1.5, 1.0])), batch)
    assert out.metrics["accuracy"].item() == 2  # gained 0.5, lost 0.5
    assert out.metric_weights["chosen_logp"].item() == 1
