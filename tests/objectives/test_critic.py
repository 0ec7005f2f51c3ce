"""A critic of its own: it gets all of the value's gradient and the policy none, however a step is split."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests import fakes
from tests.objectives.test_policy import resolved, rolled
from tests.objectives.test_ppo import with_values
from tunesmith.config.run import TrainConfig
from tunesmith.core.batch import Batch
from tunesmith.errors import ConfigError, ModelError
from tunesmith.models.critic import APART, FILE, attach, make_critic, take_critic
from tunesmith.objectives.ppo import Ppo, values_and_losses, values_of
from tunesmith.train.optim import Optimizer
from tunesmith.train.start import StartWeights


def loaded(folder, seed=0, words=("a", "b"), trained=(), **more):
    """What a base is loaded as; trained: all parameters, or those whose names have one of these in them."""
    model = fakes.model("llama", "layout", fakes.module("llama", seed=seed, **more))
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(not trained or any(part in name for part in trained))
    tokenizer = SimpleNamespace(get_vocab=lambda: {word: i for i, word in enumerate(words)})
    return SimpleNamespace(model=model, tokenizer=tokenizer, base="it", base_folder=folder, adapter=None)


def together(folder, seed=1, **more):
    """A policy and a critic that starts elsewhere, so that nothing agrees by chance."""
    policy, critic = loaded(folder, **more), loaded(folder, seed=seed, **more)
    notes = make_critic(critic, policy)
    torch.nn.init.normal_(critic.model.value.weight)
    critic.model.value.double()
    attach(critic, policy)
    return policy, critic, notes


def gradients(module):
    return {n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()}


def backward(policy, rows, term=None):
    policy.model.module.zero_grad(set_to_none=True)
    objective, batch = Ppo(resolved("ppo", kl={"weight": 0.0})), Batch.from_rows(rows)
    terms = objective.loss(policy.model, batch).terms
    (sum(terms.values()) if term is None else terms[term]).backward()
    return gradients(policy.model.module)


def test_each_term_trains_its_own_model_alone(tmp_path):
    policy, _, _ = together(tmp_path, tie_word_embeddings=False)
    rows = with_values(rolled())
    for term, of_critic in (("value", True), ("policy", False)):
        found = backward(policy, rows, term)
        trained = {
            name for name, gradient in found.items() if gradient is not None and gradient.abs().max() > 0
        }
        assert trained
        assert all(name.startswith(APART) == of_critic for name in trained), term
    # The critic's logits are not looked at: nothing is trained, or kept for it, in its language-model head.
    assert not dict(policy.model.module.named_parameters())[f"{APART}lm_head.weight"].requires_grad


def test_the_policy_learns_as_if_there_were_no_values(tmp_path):
    """Against the plain policy gradient of the same advantages."""
    from tunesmith.objectives.policy import Policy

    rows = with_values(rolled())
    policy, _, _ = together(tmp_path)
    found = backward(policy, rows)
    alone = loaded(tmp_path)
    method = resolved("ppo", kl={"weight": 0.0})
    Policy(method).loss(alone.model, Batch.from_rows(rows)).terms["policy"].backward()
    for name, want in gradients(alone.model.module).items():
        torch.testing.assert_close(found[name], want, rtol=1e-12, atol=1e-12)


def test_values_are_the_critics(tmp_path):
    policy, critic, _ = together(tmp_path)
    batch = Batch.from_rows(rolled())
    losses, values = values_and_losses(policy.model, batch, 1.0)
    torch.testing.assert_close(losses, policy.model.token_losses(batch))
    want = critic.model.value(critic.model.losses_and_states(batch)[1])[:, 0]
    torch.testing.assert_close(values, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(values_of(policy.model, batch), want, rtol=1e-12, atol=1e-12)


def test_splitting_a_step_changes_no_gradient(tmp_path):
    policy, _, _ = together(tmp_path)
    rows = with_values(rolled(count=5))
    whole = backward(policy, rows)
    parts = [backward(policy, part) for part in (rows[:1], rows[1:4], rows[4:])]
    for name, want in whole.items():
        found = [part[name] for part in parts if part[name] is not None]
        if want is not None:
            torch.testing.assert_close(sum(found), want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_steep_value_does_not_shorten_the_policys_step(dtype, tmp_path):
    """Each model's gradient is clipped by its own norm; in float32 by the kernel."""

    def stepped(scale):
        torch.manual_seed(0)
        both = torch.nn.ModuleDict({"policy": torch.nn.Linear(3, 2), "critic": torch.nn.Linear(3, 2)}).to(
            dtype
        )
        config = TrainConfig(max_grad_norm=0.1, betas=(0.0, 0.9))  # no moments that would take the scale out
        optimizer = Optimizer(both, config, apart=APART)
        found = []
        for _ in range(2):
            (
                both["policy"](torch.ones(3, dtype=dtype)).sum()
                + scale * both["critic"](torch.ones(3, dtype=dtype)).sum()
            ).backward()
            optimizer.step(0.1, optimizer.grad_norm().item())
            scale = 1.0
            found.append(both["policy"].weight.detach().clone())
        return found

    for one, other in zip(stepped(1.0), stepped(1000.0), strict=True):
        assert torch.equal(one, other)


def test_what_neither_trains_is_held_once(tmp_path):
    policy, critic, notes = together(tmp_path, seed=0, trained=("q_proj",))
    own = dict(policy.model.module.named_parameters())
    for name, parameter in critic.model.module.named_parameters():
        shares = name in own and own[name].data_ptr() == parameter.data_ptr()
        assert shares == (name in own and "q_proj" not in name), name
    assert "shares with the policy" in notes[0]
    _, _, notes = together(tmp_path, seed=1, trained=("q_proj",))  # other weights are its own
    assert f"; {32 * 5:,} numbers that stay" in notes[0]  # the norms alone are those of any such model


def test_the_reference_of_the_policy_holds_no_critic(tmp_path):
    policy, _, _ = together(tmp_path)
    alone = StartWeights(loaded(tmp_path).model.module)
    assert StartWeights(policy.model.module, besides=APART).num_bytes == alone.num_bytes


def test_it_is_taken_off_and_goes_on_where_it_was(tmp_path):
    from safetensors.torch import save_file

    policy, critic, _ = together(tmp_path)
    names = set(loaded(tmp_path).model.module.state_dict())
    (tensors,) = take_critic(policy).values()
    assert policy.model.critic is None
    assert set(policy.model.module.state_dict()) == names  # a plain model again
    save_file(tensors, tmp_path / FILE)
    again = loaded(tmp_path, seed=7)
    notes = make_critic(again, loaded(tmp_path))
    assert "goes on from" in notes[0]
    saved = {n: p for n, p in critic.model.module.named_parameters() if p.requires_grad}
    for name, parameter in again.model.module.named_parameters():
        torch.testing.assert_close(parameter.double(), saved[name].double())
    with pytest.raises(ModelError, match="another tuning"):
        make_critic(loaded(tmp_path, trained=("q_proj",)), loaded(tmp_path))


def test_another_vocabulary_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="another vocabulary"):
        make_critic(loaded(tmp_path, words=("a", "c")), loaded(tmp_path))
