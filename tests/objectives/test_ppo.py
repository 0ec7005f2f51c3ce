"""PPO: both terms against their formulas, advantages against the sum of the paper, and values from every path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import fakes
from tests.objectives.judged import held, value_and_gradient
from tests.objectives.test_policy import formula, resolved, rolled
from tunesmith.core.batch import Batch
from tunesmith.generate.sample import Sample
from tunesmith.objectives.ppo import AFTER, Ppo, value_errors, values_and_losses
from tunesmith.train.advantages import generalised, whitened, with_advantages
from tunesmith.train.writing import Group


class Worth(torch.nn.Module):
    """Stands for the value head: gives the values that it was made with."""

    def __init__(self, values):
        super().__init__()
        self.weight, self.values = torch.zeros(1, 1, dtype=torch.float64), values

    def forward(self, states):
        return self.values[:, None]


def known(losses, values):
    model = fakes.model("gpt2")
    model.value = Worth(values)
    model.losses_and_states = lambda batch, temperature: (losses, torch.zeros(len(losses), 1).double())
    return model


def with_values(rows, seed=5):
    rng = np.random.default_rng(seed)
    out = []
    for row in rows:
        more = {
            "returns": rng.normal(size=row.num_supervised),
            "old_values": rng.normal(size=row.num_supervised),
        }
        out.append(replace(row, given={**row.given, **more}))
    return out


def test_both_terms_and_their_gradients_are_the_papers():
    method, rows = resolved("ppo", kl={"weight": 0.0}), with_values(rolled())
    batch = Batch.from_rows(rows)
    torch.manual_seed(0)
    both = torch.rand(2, len(batch.targets), dtype=torch.float64).mul(2).requires_grad_()
    out = Ppo(method).loss(known(both[0], both[1]), batch)
    policy, _ = formula(method, rows, both[0])
    value = 0.0
    start = 0
    for row in rows:
        for at, (target, before) in enumerate(
            zip(row.given["returns"], row.given["old_values"], strict=True)
        ):
            v = both[1][start + at]
            near = before + torch.clamp(v - before, -method.value_clip, method.value_clip)
            value = value + torch.maximum((v - target) ** 2, (near - target) ** 2) / 2
        start += row.num_supervised
    got = out.terms["policy"] + out.terms["value"]
    held(value_and_gradient(got, both), value_and_gradient(policy + method.value_weight * value, both))
    weights = Ppo(method).weights(batch)
    assert weights["policy"].item() == weights["value"].item() == len(batch.targets)


def test_a_value_that_moved_too_far_gets_no_gradient_back():
    values = torch.tensor([0.5, 0.5]).requires_grad_()
    errors = value_errors(values, torch.tensor([0.0, 0.0]), torch.tensor([1.0, -1.0]), 0.2)
    errors.sum().backward()
    assert values.grad.tolist() == [0.0, 1.5]  # towards the return it is cut, away from it it pays in full


@pytest.mark.parametrize("discount, decay", [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_are_the_discounted_sum_of_errors(discount, decay):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=7), rng.normal(size=7)
    method = resolved("ppo", discount=discount, gae_lambda=decay)
    advantages, returns = generalised(rewards, values, method)
    after = [*values[1:], 0.0]
    errors = [r + discount * b - v for r, b, v in zip(rewards, after, values, strict=True)]
    for t in range(7):
        want = sum((discount * decay) ** k * e for k, e in enumerate(errors[t:]))
        assert advantages[t] == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(returns, advantages + values)
    if decay == 1.0 and discount == 1.0:
        np.testing.assert_allclose(returns, np.cumsum(rewards[::-1])[::-1], rtol=1e-12)


def test_whitening_is_of_all_tokens_together():
    found = whitened([np.array([1.0, 2.0]), np.array([7.0])])
    every = np.concatenate(found)
    assert every.mean() == pytest.approx(0.0, abs=1e-12)
    assert every.std() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_values_are_of_the_states_before_each_token_on_every_path(family):
    rows, module = rolled(), fakes.module(family)
    head = torch.nn.Linear(32, 1).double()
    found = {}
    for path in ("layout", "padded"):
        model = fakes.model(family, path, module)
        model.value = head
        losses, values = values_and_losses(model, Batch.from_rows(rows), 1.0)
        assert torch.allclose(losses, model.token_losses(Batch.from_rows(rows)), atol=1e-6)
        found[path] = values
    assert torch.allclose(found["layout"], found["padded"], atol=1e-5)
    module.set_attn_implementation("sdpa")
    want = []
    for row in rows:
        for leaf in row.segments[1:]:
            ids = torch.tensor([*row.segments[0].ids, *leaf.ids])[None]
            states = module(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
            first = len(row.segments[0].ids) - 1
            want.append(head(states[first : first + len(leaf.ids)])[:, 0])
    assert torch.allclose(found["padded"], torch.cat(want), atol=1e-5)


@pytest.mark.parametrize("discount, decay", [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_an_answer_that_was_cut_goes_on_with_the_value_of_the_state_after_it(discount, decay):
    """As if one more token followed, whose error is 0: it earns what its state is worth."""
    rng = np.random.default_rng(3)
    rewards, values, after = rng.normal(size=6), rng.normal(size=6), rng.normal()
    method = resolved("ppo", discount=discount, gae_lambda=decay, truncated="bootstrap")
    advantages, returns = generalised(rewards, values, method, after)
    next_values = [*values[1:], after]
    for t in range(6):
        errors = [rewards[k] + discount * next_values[k] - values[k] for k in range(t, 6)]
        want = sum((discount * decay) ** k * e for k, e in enumerate(errors))
        assert advantages[t] == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(returns, advantages + values)
    if decay == 1.0:  # the discounted rewards, and the value at the end of them
        steps = 6 - np.arange(6)
        summed = [sum(discount ** (k - t) * rewards[k] for k in range(t, 6)) for t in range(6)]
        np.testing.assert_allclose(returns, summed + discount**steps * after, rtol=1e-12)


def ended(group, row, rewards, which):
    """A group whose answers are those of the row, `which` of them with an end."""
    samples = [
        Sample(leaf.ids.tolist(), end, np.zeros(len(leaf.ids)), np.zeros(len(leaf.ids)))
        for leaf, end in zip(row.segments[1:], which, strict=True)
    ]
    return Group(row, samples, np.array(rewards[group]))


def test_the_reward_of_an_answer_that_has_not_ended_is_not_added_to_its_bootstrap():
    """With its reward and the value of going on it would be paid twice, and values would grow without bound."""
    rows = with_values(rolled(count=2, group=3))
    rewards = [[1.0, -2.0, 0.5], [0.3, 4.0, 0.0]]
    which = [[True, False, True], [False, False, True]]
    groups = [ended(g, row, rewards, which[g]) for g, row in enumerate(rows)]
    after = [np.array([0.0, 0.7, 0.0]), np.array([-0.4, 1.1, 0.0])]
    rows = [replace(row, given={**row.given, AFTER: a}) for row, a in zip(rows, after, strict=True)]
    rng = np.random.default_rng(1)
    kls = [[rng.normal(size=len(leaf.ids)) for leaf in row.segments[1:]] for row in rows]
    method = resolved("ppo", truncated="bootstrap", gae_lambda=1.0)
    found = with_advantages(rows, groups, kls, method, 0.1)
    for g, (row, got) in enumerate(zip(rows, found, strict=True)):
        want = []
        for i, leaf in enumerate(row.segments[1:]):
            last = rewards[g][i] if which[g][i] else after[g][i]
            want += [last - 0.1 * kls[g][i][t:].sum() for t in range(len(leaf.ids))]
        np.testing.assert_allclose(got.given["returns"], want, rtol=1e-12)
    learning = resolved("ppo", gae_lambda=1.0)
    plain = [replace(row, given={k: v for k, v in row.given.items() if k != AFTER}) for row in rows]
    counted = with_advantages(plain, groups, kls, learning, 0.1)
    cut = len(
        rows[0].segments[1].ids
    )  # the second answer, which was cut, is rewarded where it is taken as any
    assert counted[0].given["returns"][cut] == pytest.approx(-2.0 - 0.1 * kls[0][1].sum())


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_the_state_after_an_answer_is_that_of_its_last_token_on_every_path(family):
    rows, module = rolled(), fakes.module(family)
    head = torch.nn.Linear(32, 1).double()
    for path in ("layout", "padded"):
        model = fakes.model(family, path, module)
        model.value = head
        batch = Batch.from_rows(rows).after_completions()
        values = values_and_losses(model, batch, 1.0)[1]
        module.set_attn_implementation("sdpa")
        want = []
        for row in rows:
            for leaf in row.segments[1:]:
                ids = torch.tensor([*row.segments[0].ids, *leaf.ids])[None]
                want.append(head(module(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]))
        assert torch.allclose(values, torch.cat(want), atol=1e-5), path
        assert batch.row_of.tolist() == [r for r, row in enumerate(rows) for _ in row.segments[1:]]
