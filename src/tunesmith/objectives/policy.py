"""Policy gradients on sampled answers, with A the advantage and q the ratio of new and old probability of a token:

loss = -min(q A, clip(q, 1 - low, 1 + high) A) + weight x KL   (arXiv:1707.06347, 7; 2402.03300, 3)

averaged over answers (each the mean of its tokens), over all tokens, or over answers (each the sum of its tokens by a
constant). gspo's q is of the whole answer: the geometric mean of its tokens' (arXiv:2507.18071, 6). Advantages come
with the rows (`tunesmith.train.advantages`), as do old and reference log-probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith.config.policy import PolicyConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives.completions import lengths_of

TERM = "policy"
ADVANTAGES, OLD, REFERENCE, WRITTEN = "advantages", "old_logps", "reference_logps", "written_logps"
"""Of `TokenRow.given`, (n,) of its supervised tokens: what each is worth, and its log-probability as the rollout was
made, under the reference, and as the generation engine had it."""


class Policy:
    def __init__(self, config: PolicyConfig) -> None:
        assert config.clip_high is not None, "defaults are resolved before a run"
        self.config, self.low, self.high = config, config.clip, config.clip_high
        self.kl_weight = config.kl.weight or 0.0
        """It moves where the weight is adaptive."""

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        if self.config.average == "token":
            return {TERM: torch.tensor(float(len(batch.targets)))}
        return {TERM: torch.tensor(float(len(batch.completions)))}

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        return self.of(-model.token_losses(batch, self.config.temperature), batch)

    def of(self, logps: Tensor, batch: Batch) -> LossOutput:
        """logps (M,): of the batch's targets, as the policy has them now."""
        advantages = batch.given(ADVANTAGES).to(logps.dtype)
        old = batch.given(OLD).to(logps.dtype) if OLD in batch.rows[0].given else logps.detach()
        share = self._shares(batch, logps.dtype)
        if self.config.algorithm == "gspo":
            gained = _per_answer((logps - old) * share, batch)
            losses, clipped = surrogate(gained, _per_answer(advantages * share, batch), self.low, self.high)
        else:
            losses, clipped = surrogate(logps - old, advantages, self.low, self.high)
            if self.config.importance_cap is not None:
                trust = (old - batch.given(WRITTEN).to(old.dtype)).exp().clamp(max=self.config.importance_cap)
                losses = losses * trust
            losses = losses * share
        total = losses.sum()
        gap = logps.detach() - old
        metrics = {"ratio": gap.exp().sum(), "clipped": clipped.float().mean() * len(gap)}
        if REFERENCE in batch.rows[0].given:
            reference = batch.given(REFERENCE).to(logps.dtype)
            metrics["kl"] = (logps.detach() - reference).sum()
            if self.config.kl.where == "loss" and self.kl_weight:
                kl = divergence(logps, reference, self.config.kl.estimator or "k3")
                total = total + self.kl_weight * (kl * share).sum()
        counts = dict.fromkeys(metrics, torch.tensor(float(len(gap))))
        if "kl" in metrics:  # of an answer, not of a token
            counts["kl"] = torch.tensor(float(len(batch.completions)))
        return LossOutput({TERM: total}, metrics, counts)

    def _shares(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """(M,) what a token counts."""
        if self.config.average == "token":
            return torch.ones(len(batch.targets), dtype=dtype)
        if self.config.average == "constant":
            one = 1.0 if self.config.algorithm == "rloo" else 1.0 / self.config.max_new_tokens
            return torch.full((len(batch.targets),), one, dtype=dtype)
        return (1.0 / lengths_of(batch).to(dtype).clamp(min=1))[batch.completion_of]


def surrogate(gained: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """gained: log of the ratio. The clipped loss of each, and whether clipping took its gradient."""
    ratio = gained.exp()
    plain, bounded = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(plain, bounded), (bounded < plain).detach()


def divergence(logps: Tensor, reference: Tensor, estimator: str) -> Tensor:
    """Each token's estimate of KL(policy || reference), in nats. The values of k1 and k3 are unbiased, k2's is not; the
    gradients of k1 and k2 are (d times that of logps), k3's is biased."""
    d = logps - reference
    if estimator == "k2":
        return d**2 / 2
    if estimator == "k3":
        return torch.exp(-d) - 1 + d
    exact = d.detach() * logps
    return d.detach() + exact - exact.detach()


def _per_answer(values: Tensor, batch: Batch) -> Tensor:
    return values.new_zeros(len(batch.completions)).index_add(0, batch.completion_of, values)
