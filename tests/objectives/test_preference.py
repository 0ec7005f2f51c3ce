"""Preference losses: every value and gradient against the formula as its paper writes it, pair by pair."""

from __future__ import annotations

import math

import pytest
import torch

from tests import fakes
from tests.objectives.judged import Known, held, log_s, random_losses, s, spelled_out, value_and_gradient
from tunesmith.config.judged import PreferenceConfig
from tunesmith.core.batch import Batch
from tunesmith.objectives.preference import LOSSES, Preference


def resolved(**settings) -> PreferenceConfig:
    config = PreferenceConfig(**settings)
    return config.model_copy(update={name: value for name, (value, _) in config.choices().items()})


def pair_loss(c: PreferenceConfig, w, l, margin, shift):  # noqa: E741
    """Of (score, p, r, n) twice: the loss of one pair, from the papers."""
    beta, e = c.beta, c.label_smoothing

    def log_ratio(x):
        r = 0.0 if c.loss in ("simpo", "cpo", "orpo") or c.reference == "none" else x[2]
        return (x[1] - r) / (x[3] if c.length_normalised else 1)

    a, b = log_ratio(w), log_ratio(l)
    m = (c.margin or 0.0) + c.margin_scale * margin
    h = a - b
    return {
        "sigmoid": lambda: -(1 - e) * log_s(beta * h - m) - e * log_s(-beta * h + m),
        "cpo": lambda: -(1 - e) * log_s(beta * h - m) - e * log_s(-beta * h + m),
        "simpo": lambda: -(1 - e) * log_s(beta * h - m) - e * log_s(-beta * h + m),
        "hinge": lambda: torch.clamp(1 - (beta * h - m), min=0),
        "ipo": lambda: (h - 1 / (2 * beta)) ** 2,
        "robust": lambda: (-(1 - e) * log_s(beta * h - m) + e * log_s(-beta * h + m)) / (1 - 2 * e),
        "exo": lambda: (
            s(beta * h) * (log_s(beta * h) - math.log(1 - e))
            + s(-beta * h) * (log_s(-beta * h) - math.log(e))
        ),
        "bco": lambda: -log_s(beta * a - shift) - log_s(-(beta * b - shift)),
        "apo_zero": lambda: (1 - s(beta * a)) + s(beta * b),
        "apo_down": lambda: s(beta * a) + (1 - s(beta * (a - b))),
        "orpo": lambda: -beta * log_s(odds(a) - odds(b)),
    }[c.loss]()


def odds(p):
    return torch.log(torch.exp(p) / (1 - torch.exp(p)))


def expected(c: PreferenceConfig, rows, losses):
    total = torch.zeros((), dtype=torch.float64)
    shifts = []
    for completions, _ in spelled_out(rows, losses.detach()):
        found = [(w, l) for w in completions for l in completions if w[0] > l[0]]  # noqa: E741
        per = [c.beta * ((w[1] - w[2]) + (l[1] - l[2])).item() / 2 for w, l in found]  # noqa: E741
        shifts.append(sum(per) / len(per))
    for completions, margin in spelled_out(rows, losses):
        found = [(w, l) for w in completions for l in completions if w[0] > l[0]]  # noqa: E741
        parts = [pair_loss(c, w, l, margin, sum(shifts) / len(shifts)) for w, l in found]  # noqa: E741
        total = total + sum(parts) / len(parts)
    return total


CASES = [{"loss": loss} for loss in LOSSES] + [
    {"loss": "sigmoid", "label_smoothing": 0.2, "margin": 0.3},
    {"loss": "sigmoid", "reference": "none"},
    {"loss": "sigmoid", "length_normalised": True, "beta": 2.0},
    {"loss": "sigmoid", "margin_scale": 0.7},
    {"loss": "hinge", "margin_scale": 1.0},
    {"loss": "ipo", "length_normalised": False},
    {"loss": "robust", "label_smoothing": 0.3, "margin": 1.0},
    {"loss": "simpo", "beta": 2.5, "margin": 0.5},
]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_the_loss_and_its_gradient_are_the_papers(settings):
    config, rows = resolved(**settings), fakes.judged_rows(6)
    batch = Batch.from_rows(rows)
    losses = random_losses(batch)
    out = Preference(config).loss(Known(losses), batch)
    # The optimiser of every method sees the preference term; the supervised one has its own test.
    held(
        value_and_gradient(out.terms["preference"], losses),
        value_and_gradient(expected(config, rows, losses), losses),
    )


@pytest.mark.parametrize("loss", ["sigmoid", "bco", "orpo"])
def test_splitting_a_step_changes_nothing(loss):
    config, rows = resolved(loss=loss, sft_weight=0.7), fakes.judged_rows(6)
    module = fakes.module("llama")
    gradients = []
    for split in ([6], [2, 4], [1] * 6):
        objective, model = Preference(config), fakes.model(module_=module)
        module.zero_grad()
        batches = [Batch.from_rows(rows[sum(split[:i]) : sum(split[: i + 1])]) for i in range(len(split))]
        weights = [objective.weights(b) for b in batches]
        total = {term: sum(w[term] for w in weights) for term in weights[0]}
        objective.begin_step(model, batches)
        for batch in batches:
            terms = objective.loss(model, batch).terms
            sum(terms[t] / total[t] for t in terms).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
    for other in gradients[1:]:
        # Llama's norms are in float32 whatever the weights are.
        assert (other - gradients[0]).norm() <= 1e-5 * gradients[0].norm()


@pytest.mark.parametrize("path", ["layout", "padded"])
def test_sequence_log_probabilities_are_those_of_each_completion_alone(path):
    """DPO on a real model: every prompt and completion through the stock model, one at a time."""
    rows, module = fakes.judged_rows(5), fakes.module("gpt2")
    config = resolved(margin_scale=1.0)
    model = fakes.model("gpt2", path, module)
    got = Preference(config).loss(model, Batch.from_rows(rows)).terms["preference"]
    module.set_attn_implementation("sdpa")
    total = 0.0
    for row in rows:
        rewards = []
        for k, leaf in enumerate(row.segments[1:]):
            ids = torch.tensor([*row.segments[0].ids, *leaf.ids])
            logps = module(input_ids=ids[None]).logits[0, :-1].double().log_softmax(-1)
            logp = logps.gather(1, ids[1:, None])[len(row.segments[0].ids) - 1 :].sum()
            rewards.append(config.beta * (logp - row.given["reference"][k]))
        margin, scores = row.given["margin"][0], row.given["scores"]
        parts = [
            -log_s(rewards[i] - rewards[j] - margin)
            for i in range(len(scores))
            for j in range(len(scores))
            if scores[i] > scores[j]
        ]
        total += sum(parts) / len(parts)
    assert got.item() == pytest.approx(total.item(), rel=1e-10)


def test_the_supervised_term_is_the_mean_loss_of_the_best_answers_tokens():
    rows = fakes.judged_rows(4)
    batch = Batch.from_rows(rows)
    losses = random_losses(batch)
    objective = Preference(resolved(sft_weight=0.5))
    total, tokens = 0.0, 0
    for completions, _ in spelled_out(rows, losses):
        best = max(c[0] for c in completions)
        total = total - sum(c[1] for c in completions if c[0] == best)
        tokens += sum(c[3] for c in completions if c[0] == best)
    assert objective.loss(Known(losses), batch).terms["sft"].item() == pytest.approx(
        0.5 * total.item(), rel=1e-12
    )
    assert objective.weights(batch)["sft"].item() == tokens


def test_at_the_start_the_loss_is_ln_2_and_the_rewards_are_level():
    rows = fakes.judged_rows(4)
    model = fakes.model("llama", dtype=torch.float32)
    batch = Batch.from_rows(rows)
    with torch.no_grad():
        losses = model.token_losses(batch)
    rows = [
        fakes.judged_row(
            row.segments[0].ids,
            [leaf.ids for leaf in row.segments[1:]],
            row.given["scores"],
            reference=[c[1].item() for c in spoken],
        )
        for row, (spoken, _) in zip(rows, spelled_out(rows, losses), strict=True)
    ]
    out = Preference(resolved()).loss(model, Batch.from_rows(rows))
    assert out.terms["preference"].item() / 4 == pytest.approx(math.log(2), abs=1e-6)
    assert out.metrics["reward_margin"].item() == pytest.approx(0.0, abs=1e-5)


def test_wpo_weighs_a_pair_by_how_likely_the_policy_writes_it():
    """arXiv:2406.11827: exp of the mean of log pi(token) - log sum pi^2, of both completions; without gradient."""
    rows = fakes.judged_rows(3, most=2)
    model = fakes.model("gpt2")
    batch = Batch.from_rows(rows)
    plain, weighed = Preference(resolved()), Preference(resolved(weighting="wpo"))
    expected = 0.0
    for row in rows:
        one = Batch.from_rows([row])
        p = model.logits(one).double().softmax(-1)
        aligned = p.gather(1, one.targets[:, None])[:, 0].log() - (p**2).sum(-1).log()
        sizes = [len(leaf.ids) for leaf in row.segments[1:]]
        weight = math.prod(part.mean().exp().item() for part in aligned.split(sizes))
        expected += weight * plain.loss(model, one).terms["preference"].item()
    got = weighed.loss(model, batch).terms["preference"]
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_metrics_say_which_way_the_pairs_went():
    row = fakes.judged_row([3, 4], [[5], [6], [7]], [1.0, 0.0, 0.0], reference=[-2.0, -2.0, -1.0])
    batch = Batch.from_rows([row])
    out = Preference(resolved(beta=1.0)).loss(Known(torch.tensor([1.0, 2.0, 0.5])), batch)
    # Rewards 1, 0, 0.5: both pairs are right.
    assert out.metrics["accuracy"].item() == 1.0
    assert out.metrics["reward_margin"].item() == pytest.approx(0.75)
    assert out.metrics["chosen_logp"].item() == -1.0
    assert out.metrics["rejected_logp"].item() == pytest.approx(-1.25)
    level = Preference(resolved(beta=1.0)).loss(Known(torch.tensor([1.0, 1.0, 0.5])), batch)
    assert level.metrics["accuracy"].item() == 0.75  # rewards 1, 1, 0.5: a level pair is half right


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"loss": "simpo", "reference": "start"}, "has no reference"),
        ({"loss": "ipo", "reference": "none"}, "needs a reference"),
        ({"loss": "ipo", "margin": 0.5}, "margin 0.5 has no meaning"),
        ({"loss": "exo", "margin_scale": 2.0}, "margin_scale 2.0 has no meaning"),
        ({"loss": "bco", "label_smoothing": 0.1}, "label_smoothing 0.1 has no meaning"),
        ({"loss": "robust", "label_smoothing": 0.0}, "above 0 and below 0.5"),
        ({"loss": "orpo", "length_normalised": False}, "mean log-probabilities"),
    ],
)
def test_a_setting_that_the_loss_does_not_use_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        PreferenceConfig(**settings)
