"""Learning from verdicts on single answers: good ones gain on the reference, bad ones lose.

With the reward r = beta (p - r_ref) of a good or a bad answer:

| loss | good | bad | from |
|---|---|---|---|
| kto | 1 - s(r - z) | 1 - s(z - r) | arXiv:2402.01306 (8), z = max(0, mean reward of answers to other prompts) |
| bco | -log s(r - d) | -log s(d - r) | arXiv:2404.04656, d the mean reward |
| apo_zero | 1 - s(r) | s(r) | arXiv:2408.06266 (7) |

times desirable_weight or undesirable_weight, averaged over answers. z and d are of the whole step, without
gradient. A row's last completion answers another row's prompt: it has no score, and only z reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tunesmith.config.judged import UnpairedConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives import OBJECTIVES
from tunesmith.objectives.completions import SCORES, Compared, compared

TERM = "unpaired"


class Unpaired:
    def __init__(self, config: UnpairedConfig) -> None:
        self.config = config
        self._zero: Tensor | None = None

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        return {TERM: batch.given(SCORES).isfinite().sum().float()}

    def begin_step(self, model: Model, batches: Sequence[Batch]) -> None:
        self._zero = None
        if self.config.loss != "apo_zero" and len(batches) > 1:
            with torch.no_grad():
                self.settle([compared(model, batch, self.config) for batch in batches])

    def settle(self, found: Sequence[Compared]) -> None:
        """The zero point is from now on that of all these."""
        self._zero = self._zero_of(torch.cat([self._counted(each) for each in found]))

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        found = compared(model, batch, self.config)
        judged, good = found.scores.isfinite(), found.scores > 0.5
        r, logps = found.rewards.detach(), found.logps.detach()
        counts = {"accuracy": judged, "chosen_logp": judged & good, "rejected_logp": judged & ~good}
        values = {"accuracy": ((r > 0) == good).to(r.dtype), "chosen_logp": logps, "rejected_logp": logps}
        return LossOutput(
            {TERM: self.row_losses(found).sum()},
            {name: values[name][mask].sum() for name, mask in counts.items()},
            {name: mask.sum().float() for name, mask in counts.items()},
        )

    def row_losses(self, found: Compared) -> Tensor:
        """(R,)"""
        zero = self._zero_of(self._counted(found)) if self._zero is None else self._zero
        good = found.scores > 0.5
        signed = torch.where(good, found.rewards - zero, zero - found.rewards)
        losses = -logsigmoid(signed) if self.config.loss == "bco" else 1 - signed.sigmoid()
        losses = losses * torch.where(good, self.config.desirable_weight, self.config.undesirable_weight)
        return found.by_row(losses.masked_fill(found.scores.isnan(), 0.0), found.row)

    def _counted(self, found: Compared) -> Tensor:
        """(N,) the rewards that the zero point is the mean of, without gradient."""
        others = found.scores.isnan()
        return found.rewards.detach()[others if self.config.loss == "kto" else ~others]

    def _zero_of(self, rewards: Tensor) -> Tensor:
        if self.config.loss == "apo_zero":
            return torch.zeros(())
        mean = rewards.mean()
        return mean.clamp(min=0) if self.config.loss == "kto" else mean


OBJECTIVES.register("unpaired")(Unpaired)
