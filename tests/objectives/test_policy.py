"""Policy gradients against their formulas, and KL estimators against full enumeration (rows 12-14 of the list)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import fakes
from tests.objectives.judged import Known, held, random_losses, value_and_gradient
from tunesmith.config.policy import PolicyConfig
from tunesmith.core.batch import Batch
from tunesmith.objectives.policy import Policy, divergence, surrogate

REWARDS = [{"kind": "length"}]


def resolved(algorithm="grpo", kl=None, **settings) -> PolicyConfig:
    method = PolicyConfig(algorithm=algorithm, rewards=REWARDS, kl=kl or {}, **settings)
    method = method.model_copy(update={name: value for name, (value, _) in method.choices().items()})
    chosen = {name: value for name, (value, _) in method.kl_choices().items()}
    return method.model_copy(update={"kl": method.kl.model_copy(update=chosen)})


class Sampled(Known):
    def token_losses(self, batch, temperature=1.0):
        return self.losses


def rolled(count=4, seed=3, group=3):
    """Ragged groups with advantages, and old and reference log-probabilities near those of `random_losses`."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        texts = [rng.integers(3, fakes.VOCAB, int(rng.integers(1, 7))).tolist() for _ in range(group)]
        size = sum(map(len, texts))
        worth = np.concatenate(
            [np.full(len(t), a) for t, a in zip(texts, rng.normal(size=group), strict=True)]
        )
        given = {
            "advantages": worth,
            "old_logps": -rng.random(size) * 3,
            "reference_logps": -rng.random(size) * 3,
            "written_logps": -rng.random(size) * 3,
        }
        row = fakes.judged_row(rng.integers(3, fakes.VOCAB, 4).tolist(), texts, [0.0] * group, index)
        rows.append(replace(row, given=given))
    return rows


def answers(rows, losses):
    """Of each answer: (logp, old, reference, written, advantage) of its tokens."""
    at = 0
    for row in rows:
        start = 0
        for leaf in row.segments[1:]:
            n = len(leaf.ids)
            names = ("old_logps", "reference_logps", "written_logps", "advantages")
            yield (-losses[at : at + n], *(torch.from_numpy(row.given[k][start : start + n]) for k in names))
            at, start = at + n, start + n


def formula(method, rows, losses):
    """Term by term, and what it is divided by."""
    total, count = 0.0, 0
    for logp, old, reference, written, worth in answers(rows, losses):
        n = len(logp)
        q = torch.exp(logp - old)
        if method.algorithm == "gspo":
            s = torch.exp((logp - old).mean())
            token = -torch.minimum(s * worth[0], s.clamp(1 - method.clip, 1 + method.clip_high) * worth[0])
            part = token
        else:
            token = -torch.minimum(q * worth, q.clamp(1 - method.clip, 1 + method.clip_high) * worth)
            if method.importance_cap is not None:
                token = token * torch.exp(old - written).clamp(max=method.importance_cap)
            part = None
        if method.kl.where == "loss" and method.kl.weight:
            d = logp - reference
            kl = method.kl.weight * {"k3": torch.exp(-d) - 1 + d, "k2": d**2 / 2}[method.kl.estimator]
        else:
            kl = torch.zeros(n)
        if method.average == "token":
            total, count = total + (token + kl).sum(), count + n
        elif method.average == "sequence":
            total, count = total + (token.mean() if part is None else part) + kl.mean(), count + 1
        else:
            each = 1.0 if method.algorithm == "rloo" else 1 / method.max_new_tokens
            total, count = total + each * (token + kl).sum(), count + 1
    return total, count


CASES = [
    resolved("grpo"),
    resolved("grpo", kl={"estimator": "k2", "weight": 0.3}),
    resolved("grpo", importance_cap=1.5, kl={"weight": 0.0}),
    resolved("dr_grpo", max_new_tokens=10),
    resolved("dapo", clip=0.1),
    resolved("gspo", clip=0.05, clip_high=0.1),
    resolved("gspo", kl={"weight": 0.1}),
    resolved("rloo"),
    resolved("reinforce_pp"),
]


@pytest.mark.parametrize("method", CASES, ids=lambda m: f"{m.algorithm} {m.kl.weight} {m.importance_cap}")
def test_the_loss_and_its_gradient_are_the_papers(method):
    rows = rolled()
    batch = Batch.from_rows(rows)
    losses = random_losses(batch)
    objective = Policy(method)
    want, count = formula(method, rows, losses)
    assert objective.weights(batch)["policy"].item() == count
    got = objective.loss(Sampled(losses), batch).terms["policy"]
    held(value_and_gradient(got, losses), value_and_gradient(want, losses))


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "gspo", "dr_grpo"])
def test_a_divergence_is_told_of_an_answer(algorithm):
    rows = rolled()
    batch = Batch.from_rows(rows)
    losses = random_losses(batch)
    out = Policy(resolved(algorithm)).loss(Sampled(losses), batch)
    each = [(logp - reference).sum().item() for logp, _, reference, _, _ in answers(rows, losses)]
    assert (out.metrics["kl"] / out.metric_weights["kl"]).item() == pytest.approx(np.mean(each), rel=1e-6)


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "gspo", "dr_grpo"])
def test_splitting_a_rollout_changes_nothing(algorithm):
    rows, module = rolled(), fakes.module("gpt2")
    found = []
    for split in ([4], [1, 3], [1, 1, 1, 1]):
        objective, model = Policy(resolved(algorithm)), fakes.model("gpt2", module_=module)
        module.zero_grad()
        batches = [Batch.from_rows(rows[sum(split[:i]) : sum(split[: i + 1])]) for i in range(len(split))]
        total = sum(objective.weights(b)["policy"].item() for b in batches)
        for batch in batches:
            (objective.loss(model, batch).terms["policy"] / total).backward()
        found.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
    for other in found[1:]:
        assert (other - found[0]).norm() <= 1e-10 * found[0].norm()


def test_before_the_first_step_the_ratio_is_1_and_nothing_is_clipped():
    model = fakes.model("llama", dtype=torch.float32)
    rows = rolled()
    batch = Batch.from_rows(rows)
    with torch.no_grad():
        old = -model.token_losses(batch).double().numpy()
    cuts = np.cumsum([row.num_supervised for row in rows])[:-1]
    rows = [
        replace(row, given={**row.given, "old_logps": part})
        for row, part in zip(rows, np.split(old, cuts), strict=True)
    ]
    out = Policy(resolved()).loss(model, Batch.from_rows(rows))
    assert out.metrics["ratio"].item() == len(batch.targets)
    assert out.metrics["clipped"].item() == 0


@pytest.mark.parametrize("method", CASES, ids=lambda m: f"{m.algorithm} {m.kl.weight} {m.importance_cap}")
def test_the_only_step_on_its_rows_needs_no_old_log_probabilities(method):
    """Its own are the old ones: of the loss, of the correction for the engine that wrote, and of what is told."""
    rows = rolled()
    losses = random_losses(Batch.from_rows(rows))
    cuts = np.cumsum([row.num_supervised for row in rows])[:-1]
    own = np.split(-losses.detach().numpy(), cuts)
    said = [replace(r, given={**r.given, "old_logps": o}) for r, o in zip(rows, own, strict=True)]
    unsaid = [replace(r, given={k: v for k, v in r.given.items() if k != "old_logps"}) for r in rows]
    want, count = formula(method, said, losses)
    out = Policy(method).loss(Sampled(losses), Batch.from_rows(unsaid))
    assert Policy(method).weights(Batch.from_rows(unsaid))["policy"].item() == count
    held(value_and_gradient(out.terms["policy"], losses), value_and_gradient(want, losses))
    assert out.metrics["ratio"].item() == out.metric_weights["ratio"].item() == len(losses)
    assert out.metrics["clipped"].item() == 0


def test_a_clipped_token_has_no_gradient():
    gained = torch.tensor([0.5, 0.5, -0.5, -0.5]).requires_grad_()
    worth = torch.tensor([1.0, -1.0, 1.0, -1.0])
    losses, clipped = surrogate(gained, worth, 0.2, 0.2)
    losses.sum().backward()
    assert clipped.tolist() == [True, False, False, True]
    assert (gained.grad == 0).tolist() == [True, False, False, True]


LOGITS = torch.tensor([0.3, -0.8, 1.1], dtype=torch.float64)
REFERENCE = torch.tensor([0.5, 0.2, -0.4], dtype=torch.float64).log_softmax(-1)


def expected(estimator):
    """Over all three symbols: the mean of the estimate, and of its gradient as training takes it."""
    logits = LOGITS.clone().requires_grad_()
    logps = logits.log_softmax(-1)
    p = logps.detach().exp()
    value = (p * divergence(logps, REFERENCE, estimator)).sum()
    value.backward()
    return value.item(), logits.grad


def divergence_itself():
    logits = LOGITS.clone().requires_grad_()
    logps = logits.log_softmax(-1)
    kl = (logps.exp() * (logps - REFERENCE)).sum()
    kl.backward()
    return kl.item(), logits.grad


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_the_divergence_in_the_mean(estimator):
    assert expected(estimator)[0] == pytest.approx(divergence_itself()[0], abs=1e-12)


@pytest.mark.parametrize("estimator", ["k1", "k2"])
def test_k1_and_k2_have_the_divergences_gradient(estimator):
    assert (expected(estimator)[1] - divergence_itself()[1]).abs().max() < 1e-12


def test_k2s_value_and_k3s_gradient_are_biased_as_the_documentation_says():
    assert abs(expected("k2")[0] - divergence_itself()[0]) > 1e-2
    assert (expected("k3")[1] - divergence_itself()[1]).abs().max() > 1e-2
    logits = LOGITS.clone().requires_grad_()  # k3's is that of the KL divergence the other way round
    other = (REFERENCE.exp() * (REFERENCE - logits.log_softmax(-1))).sum()
    other.backward()
    assert (expected("k3")[1] - logits.grad).abs().max() < 1e-12


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_in_the_reward_k1_alone_has_the_divergences_gradient(estimator):
    """A sampled penalty counts as it is: the gradient is the mean of it times that of the log-probability."""
    logits = LOGITS.clone().requires_grad_()
    logps = logits.log_softmax(-1)
    (logps.exp().detach() * divergence(logps, REFERENCE, estimator).detach() * logps).sum().backward()
    gap = logits.grad - divergence_itself()[1]
    logits.grad = None
    (REFERENCE.exp() * (REFERENCE - logits.log_softmax(-1))).sum().backward()
    if estimator == "k1":
        assert gap.abs().max() < 1e-12
    elif estimator == "k3":  # it lacks the gradient of the divergence the other way round
        assert (gap + logits.grad).abs().max() < 1e-12
    else:
        assert gap.abs().max() > 1e-2


def test_temperature_divides_the_logits():
    rows, module = rolled(), fakes.module("gpt2")
    batch = Batch.from_rows(rows)
    model = fakes.model("gpt2", module_=module)
    got = model.token_losses(batch, 0.7)
    want = -(model.logits(batch) / 0.7).log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
    assert torch.allclose(got, want, atol=1e-10)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"rewards": []}, "rewards is empty"),
        ({"algorithm": "raft", "clip": 0.1}, "clip has no meaning"),
        ({"algorithm": "rwr", "kl": {"weight": 0.1, "stop_at": 1.0}}, "kl.weight has no meaning"),
        ({"algorithm": "raft", "kl": {"estimator": "k1"}}, "kl.estimator has no meaning"),
        ({"algorithm": "grpo", "beta": 0.1}, "beta has no meaning"),
        ({"algorithm": "reinforce_pp", "scale": "none"}, "leave scale out"),
        ({"algorithm": "ppo", "scale": "group"}, "leave scale out"),
        ({"algorithm": "gspo", "importance_cap": 2.0}, "gspo weighs whole answers"),
        ({"algorithm": "raft", "truncated": "mask"}, "truncated mask has no meaning"),
        ({"algorithm": "rloo", "truncated": "bootstrap"}, "needs the values of ppo, and rloo has none"),
        ({"algorithm": "grpo", "critic": {"kind": "separate"}}, "critic has no meaning with algorithm grpo"),
        ({"algorithm": "ppo", "critic": {"lr_factor": 2.0}}, "lr_factor is of critic.kind: separate"),
        ({"algorithm": "ppo", "critic": {"base": "elsewhere"}}, "base is of critic.kind: separate"),
        ({"samples": 1}, "nothing to compare"),
        ({"algorithm": "dapo", "kl": {"target": 0.1}}, "kl.target moves kl.weight"),
        ({"algorithm": "gspo", "average": "token"}, "leave average out"),
        ({"truncation_penalty": 0.5}, "truncated: penalise"),
        ({"rewards": [{"kind": "length"}, {"kind": "length"}]}, "2 rewards are called"),
    ],
)
def test_what_has_no_meaning_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        PolicyConfig(**{"rewards": REWARDS, **settings})


def test_entropy_of_nothing_is_no_number_anywhere():
    """A step of one token, whose group's answers are alike."""
    row = fakes.judged_row([3], [[5]], [0.0])
    row = replace(row, given={"advantages": np.zeros(1)})
    batch = Batch.from_rows([row])
    out = Policy(resolved("rloo")).loss(Sampled(random_losses(batch)), batch)
    assert math.isfinite(out.terms["policy"].item())
