"""Proximal policy optimisation with values (arXiv:1707.06347; for text arXiv:1909.08593 and 2203.02155, C.4).

The policy's term is that of `policy`, with a token's advantage from generalised advantage estimation. The value head's
is half the squared distance of its value v from the return R, clipped to where v was (v_old) when the answer was
written: max((v - R)^2, (v_old + clip(v - v_old, -c, c) - R)^2) / 2. Both are averaged over tokens. The head stands
on the policy's own states, or on those of a critic, a model that shares nothing that is trained with the policy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith.config.policy import PolicyConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives.policy import Policy

TERM = "value"
RETURNS, VALUES = "returns", "old_values"
"""Of `TokenRow.given`, (n,) of its supervised tokens."""
AFTER = "values_after"
"""(K,) of its answers: the value of the state after the last token of one that was cut off, 0 after one that ended."""


class Ppo(Policy):
    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        self.value_weight, self.value_clip = config.value_weight, config.value_clip

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        return super().weights(batch) | {TERM: torch.tensor(float(len(batch.targets)))}

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        losses, values = values_and_losses(model, batch, self.config.temperature)
        out = self.of(-losses, batch)
        returns, before = (batch.given(name).to(values.dtype) for name in (RETURNS, VALUES))
        error = value_errors(values, before, returns, self.value_clip)
        out.terms[TERM] = self.value_weight * error.sum()
        out.metrics["value_error"] = ((values.detach() - returns) ** 2).sum()
        out.metric_weights["value_error"] = torch.tensor(float(len(values)))
        return out


def values_and_losses(model: Model, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """(M,) losses of the targets, and (M,) the value of each state that a target is drawn from."""
    if model.critic is not None:
        return model.token_losses(batch, temperature), _worth(model.critic, model.critic.target_states(batch))
    losses, states = model.losses_and_states(batch, temperature)
    return losses, _worth(model, states)


def values_of(model: Model, batch: Batch) -> Tensor:
    """(M,) the values alone."""
    says = model if model.critic is None else model.critic
    return _worth(says, says.target_states(batch))


def _worth(model: Model, states: Tensor) -> Tensor:
    assert model.value is not None, "a model with a value head"
    values: Tensor = model.value(states.to(model.value.weight.dtype))[:, 0]
    return values.cpu()


def value_errors(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """(M,) half the larger of the two squared errors."""
    near = before + (values - before).clamp(-clip, clip)
    return torch.maximum((values - returns) ** 2, (near - returns) ** 2) / 2
