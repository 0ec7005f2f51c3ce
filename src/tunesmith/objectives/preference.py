"""Preference learning from pairs: chosen completions w become likelier than rejected ones l.

With rewards w = beta (p_w - r_w), l likewise, their difference h less the margin m, and label smoothing e:

| loss | of a pair | from |
|---|---|---|
| sigmoid, cpo, simpo | -(1 - e) log s(h) - e log s(-h) | arXiv:2305.18290 (7); 2401.08417 (3); 2405.14734 (6) |
| hinge | max(0, 1 - h) | arXiv:2305.10425 |
| ipo | (h / beta - 1 / (2 beta))^2 | arXiv:2310.12036 (17) |
| robust | (-(1 - e) log s(h) + e log s(-h)) / (1 - 2 e) | arXiv:2403.00409 (12) |
| exo | s(h) (log s(h) - log(1 - e)) + s(-h) (log s(-h) - log e) | arXiv:2402.00856 (16) |
| bco | -log s(w - d) - log s(d - l), d the step's mean reward | arXiv:2404.04656 |
| apo_zero | 1 - s(w) + s(l) | arXiv:2408.06266 (7) |
| apo_down | s(w) + 1 - s(w - l) | arXiv:2408.06266 (8) |
| orpo | -beta log s(odds(p_w) - odds(p_l)), odds(p) = p - log(1 - e^p) | arXiv:2403.07691 (7) |

A row's pairs are averaged, rows summed. simpo, cpo and orpo have no reference (r = 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tunesmith.config.judged import PreferenceConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives import OBJECTIVES
from tunesmith.objectives.completions import (
    Compared,
    best_tokens,
    compare,
    compared,
    completion_logps,
    lengths_of,
)

TERM, SFT = "preference", "sft"


@dataclass(frozen=True)
class Pairs:
    """(P,) rewards and log-probabilities of the chosen and the rejected, margins; shift: d of bco."""

    w: Tensor
    l: Tensor  # noqa: E741 (the papers' letter)
    logp_w: Tensor
    logp_l: Tensor
    margin: Tensor | float
    shift: Tensor

    @property
    def h(self) -> Tensor:
        return self.w - self.l - self.margin


def _smoothed(h: Tensor, e: float) -> Tensor:
    return -(1 - e) * logsigmoid(h) - e * logsigmoid(-h)


def _exo(h: Tensor, e: float) -> Tensor:
    return h.sigmoid() * (logsigmoid(h) - math.log1p(-e)) + (-h).sigmoid() * (logsigmoid(-h) - math.log(e))


def log_odds(p: Tensor) -> Tensor:
    """log(e^p / (1 - e^p)) of log-probabilities below 0."""
    return p - torch.log(-torch.expm1(p))


Loss = Callable[[Pairs, float, float], Tensor]
LOSSES: dict[str, Loss] = {
    "sigmoid": lambda q, beta, e: _smoothed(q.h, e),
    "cpo": lambda q, beta, e: _smoothed(q.h, e),
    "simpo": lambda q, beta, e: _smoothed(q.h, e),
    "hinge": lambda q, beta, e: torch.relu(1 - q.h),
    "ipo": lambda q, beta, e: (q.h / beta - 1 / (2 * beta)) ** 2,
    "robust": lambda q, beta, e: (-(1 - e) * logsigmoid(q.h) + e * logsigmoid(-q.h)) / (1 - 2 * e),
    "exo": lambda q, beta, e: _exo(q.h, e),
    "bco": lambda q, beta, e: -logsigmoid(q.w - q.shift) - logsigmoid(q.shift - q.l),
    "apo_zero": lambda q, beta, e: 1 - q.w.sigmoid() + q.l.sigmoid(),
    "apo_down": lambda q, beta, e: q.w.sigmoid() + 1 - (q.w - q.l).sigmoid(),
    "orpo": lambda q, beta, e: -beta * logsigmoid(log_odds(q.logp_w) - log_odds(q.logp_l)),
}
"""loss -> of (P,) pairs, beta and label smoothing: (P,)."""


class Preference:
    def __init__(self, config: PreferenceConfig) -> None:
        assert config.beta is not None, "defaults are resolved before a run"
        assert config.label_smoothing is not None
        self.config, self.beta, self.smoothing = config, config.beta, config.label_smoothing
        self.margin, self.sft_weight = config.margin or 0.0, config.sft_weight or 0.0
        self._shift: Tensor | None = None

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        found = {TERM: torch.tensor(float(batch.num_rows))}
        return found | ({SFT: best_tokens(batch)} if self.sft_weight else {})

    def begin_step(self, model: Model, batches: Sequence[Batch]) -> None:
        """bco's shift is of the whole step."""
        self._shift = None
        if self.config.loss == "bco" and len(batches) > 1:
            with torch.no_grad():
                self.settle([compared(model, batch, self.config) for batch in batches])

    def settle(self, found: Sequence[Compared]) -> None:
        """bco's shift is from now on that of all these."""
        self._shift = torch.cat([mean_rewards(each) for each in found]).mean()

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        losses = model.token_losses(batch)
        likely = own_likelihood(model, batch, losses) if self.config.weighting == "wpo" else None
        found = compare(batch, completion_logps(losses, batch), self.config, likely)
        terms = {TERM: self.row_losses(found).sum()}
        if self.sft_weight:
            terms[SFT] = self.sft_weight * found.sft()
        return LossOutput(terms, *measured(found))

    def row_losses(self, found: Compared) -> Tensor:
        """(R,)"""
        better, worse, share = found.pairs()
        row = found.row[better]
        own = 0.0 if found.margins is None else self.config.margin_scale * found.margins[row]
        q = Pairs(
            w=found.rewards[better],
            l=found.rewards[worse],
            logp_w=found.logps[better],
            logp_l=found.logps[worse],
            margin=self.margin + (own if self.config.loss in self.config.WITH_MARGIN else 0.0),
            shift=mean_rewards(found).mean() if self._shift is None else self._shift,
        )
        losses = share * LOSSES[self.config.loss](q, self.beta, self.smoothing)
        if found.likely is not None:
            losses = losses * found.likely[better] * found.likely[worse]
        return found.by_row(losses, row)


OBJECTIVES.register("preference")(Preference)


def mean_rewards(found: Compared) -> Tensor:
    """(R,) the mean reward of a row's pairs, without gradient."""
    better, worse, share = found.pairs()
    rewards = found.rewards.detach()
    return found.by_row(share * (rewards[better] + rewards[worse]) / 2, found.row[better])


def measured(found: Compared) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Metrics of pairs, summed over rows, and their weights."""
    better, worse, share = found.pairs()
    rewards, logps = found.rewards.detach(), found.logps.detach()
    metrics = {
        "accuracy": found.accuracy().sum(),
        "reward_margin": (share * (rewards[better] - rewards[worse])).sum(),
        "chosen_logp": (share * logps[better]).sum(),
        "rejected_logp": (share * logps[worse]).sum(),
    }
    return metrics, dict.fromkeys(metrics, torch.tensor(float(found.num_rows)))


@torch.no_grad()
def own_likelihood(model: Model, batch: Batch, losses: Tensor) -> Tensor:
    """(C,) exp of the mean over tokens of log pi(token) - log sum_v pi(v)^2: how likely the policy itself writes the
    completion, against what it usually writes (arXiv:2406.11827, 3, sampled alignment)."""
    logps = model.logits(batch).float().log_softmax(-1)
    usual = (2 * logps).logsumexp(-1).cpu()
    return (completion_logps(losses.detach() + usual, batch) / lengths_of(batch)).exp()
