"""PPO's critic as a model of its own: it begins as the policy does, and its value layer's error alone trains it.

While a run trains it is a part of the policy's module, under names that begin with `critic.`, so that optimizer and
checkpoints have it. What of it is trained is saved in a file beside the policy's weights, which other software does not
look for; PPO on top of that model goes on with it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from tunesmith.errors import ConfigError, ModelError
from tunesmith.models.load import Loaded
from tunesmith.models.value import add_value

NAME, FILE = "critic", "critic.safetensors"
APART = f"{NAME}."
"""How the names of its parameters begin."""


def make_critic(critic: Loaded, policy: Loaded) -> list[str]:
    """Give a model that is prepared for training (`tunesmith.models.tune`) a value layer, and what was learned before;
    returns notes. What neither model trains and both have is held once."""
    if critic.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ConfigError(
            f"method.critic.base={critic.base} has another vocabulary than {policy.base}",
            "a model that reads the policy's tokens",
            "name a model of the same family, or leave method.critic.base out",
        )
    module = critic.model.module
    _freeze_head(module)
    note = add_value(critic)
    folder = policy.adapter or policy.base_folder
    continued = (folder / FILE).exists()
    if continued:
        _take_over(module, folder / FILE)
    shared = _share(policy.model.module, module)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    said = f"a critic of its own, {trained:,} parameters of which are trained, with {note}"
    said += f"; it goes on from {folder / FILE}" if continued else ""
    return [
        said + (f"; {shared:,} numbers that stay as they are it shares with the policy" if shared else "")
    ]


def attach(critic: Loaded, policy: Loaded) -> None:
    policy.model.module.add_module(NAME, critic.model.module)
    policy.model.critic = critic.model


def take_critic(policy: Loaded) -> dict[str, dict[str, torch.Tensor]]:
    """What of it is trained as a file of tensors, and the policy has it no longer; none where it had none."""
    if policy.model.critic is None:
        return {}
    trained = {
        name: parameter.detach().clone()
        for name, parameter in policy.model.critic.module.named_parameters()
        if parameter.requires_grad
    }
    delattr(policy.model.module, NAME)
    policy.model.critic = None
    return {FILE: trained}


def _freeze_head(module: nn.Module) -> None:
    """Its logits are not looked at; tied to the embeddings they are trained as these."""
    inputs = {id(p) for p in module.get_input_embeddings().parameters()}  # type: ignore[operator]
    for parameter in module.get_output_embeddings().parameters():  # type: ignore[operator]
        if id(parameter) not in inputs:
            parameter.requires_grad_(False)


def _take_over(module: nn.Module, file: Path) -> None:
    saved = load_file(file)
    own = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if {n: t.shape for n, t in saved.items()} != {n: p.shape for n, p in own.items()}:
        raise ModelError(
            f"{file} holds what another tuning trained, {len(saved)} tensors",
            f"the {len(own)} that this run trains, of the same shapes",
            "set method.tuning as it was, or remove the file to begin with a new critic",
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])


def _share(policy: nn.Module, critic: nn.Module) -> int:
    """Frozen weights that are the same in both; returns how many numbers the critic no longer holds."""
    theirs = {name: p for name, p in policy.named_parameters() if not p.requires_grad}
    count = 0
    for name, parameter in critic.named_parameters():
        twin = theirs.get(name)
        if twin is None or parameter.requires_grad or twin.dtype != parameter.dtype:
            continue
        if torch.equal(twin, parameter):
            parameter.data = twin.data
            count += parameter.numel()
    return count
