"""Listwise losses against their formulas, written out row by row with permutations and pairs."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from tests import fakes
from tests.objectives.judged import Known, held, random_losses, spelled_out, value_and_gradient
from tunesmith.config.judged import RankingConfig
from tunesmith.core.batch import Batch
from tunesmith.objectives.ranking import LOSSES, Ranking


def resolved(**settings) -> RankingConfig:
    config = RankingConfig(**settings)
    return config.model_copy(update={name: value for name, (value, _) in config.choices().items()})


def before(x, others):
    """-log of the probability that x is drawn first among itself and others."""
    return -torch.log(torch.exp(x) / sum(torch.exp(o) for o in [x, *others]))


def row_loss(config, completions):
    r = 0.0 if config.reference == "none" else 1.0
    items = [
        (score, config.beta * (p - r * reference) / (n if config.length_normalised else 1))
        for score, p, reference, n in completions
    ]
    better = [(a, b) for a in items for b in items if a[0] > b[0]]
    top = max(score for score, _ in items)
    if config.loss == "plackett_luce":
        return sum(before(x, [o for other, o in items if other < score]) for score, x in items)
    if config.loss == "best_vs_rest":
        best = [before(x, [o for other, o in items if other < top]) for score, x in items if score == top]
        return sum(best) / len(best)
    if config.loss == "rrhf":
        return sum(torch.clamp(b[1] - a[1], min=0) for a, b in better)
    low = min(score for score, _ in items)
    places = sorted(range(len(items)), key=lambda i: -items[i][1].item())
    total = 0.0
    for i, a in enumerate(items):
        for j, b in enumerate(items):
            if a[0] > b[0]:
                gains = [2 ** ((x[0] - low) / (top - low)) - 1 for x in (a, b)]
                discounts = [1 / math.log2(1 + places.index(k) + 1) for k in (i, j)]
                delta = abs(gains[0] - gains[1]) * abs(discounts[0] - discounts[1])
                total = total + delta * torch.log(1 + torch.exp(-(a[1] - b[1])))
    return total


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_and_its_gradient_are_the_papers(loss, ties):
    config, rows = resolved(loss=loss), fakes.judged_rows(6, most=5, ties=ties)
    batch = Batch.from_rows(rows)
    losses = random_losses(batch)
    out = Ranking(config).loss(Known(losses), batch)
    want = sum(row_loss(config, completions) for completions, _ in spelled_out(rows, losses))
    held(value_and_gradient(out.terms["ranking"], losses), value_and_gradient(want, losses))


def test_plackett_luce_gives_all_rankings_of_a_row_a_probability_of_1_together():
    rewards = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64)
    total = 0.0
    for order in permutations(range(4)):
        scores = [0.0] * 4
        for place, item in enumerate(order):
            scores[item] = -float(place)
        row = fakes.judged_row([3], [[5], [6], [7], [8]], scores, reference=[0.0] * 4)
        config = resolved(beta=1.0)
        out = Ranking(config).loss(Known(-rewards), Batch.from_rows([row]))
        total += math.exp(-out.terms["ranking"].item())
    assert total == pytest.approx(1.0, rel=1e-12)


def test_of_two_completions_plackett_luce_is_dpo():
    from tests.objectives.test_preference import resolved as preference
    from tunesmith.objectives.preference import Preference

    rows = fakes.judged_rows(5, most=2)
    rows = [fakes.judged_row(r.segments[0].ids, [c.ids for c in r.segments[1:]], r.given["scores"],
                             reference=r.given["reference"]) for r in rows]  # fmt: skip
    batch = Batch.from_rows(rows)
    losses = random_losses(batch)
    one = Ranking(resolved()).loss(Known(losses), batch).terms["ranking"]
    other = Preference(preference()).loss(Known(losses), batch).terms["preference"]
    assert one.item() == pytest.approx(other.item(), rel=1e-12)


def test_rrhf_learns_the_best_answer_too():
    rows = fakes.judged_rows(3)
    batch = Batch.from_rows(rows)
    objective = Ranking(resolved(loss="rrhf"))
    assert set(objective.weights(batch)) == {"ranking", "sft"}
    losses = random_losses(batch)
    assert objective.loss(Known(losses), batch).terms["sft"].item() > 0
