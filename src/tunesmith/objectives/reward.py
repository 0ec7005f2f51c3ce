"""Reward models: a number r for each answer, from what people said of answers.

| loss | of a row | from |
|---|---|---|
| bradley_terry | mean over pairs of -(1 - e) log s(r_w - r_l - m) - e log s(r_l - r_w + m) | arXiv:2203.02155 (1), 2307.09288 (2) |
| plackett_luce | the negative log-likelihood of the ranking, as in `ranking` | R. L. Plackett, J. R. Stat. Soc. C 24 (1975) |
| regression | (r - (rating - mean) / deviation)^2 | |
| ordinal | -log(s(t_k - r) - s(t_(k-1) - r)) of a rating at level k with thresholds t | P. McCullagh, J. R. Stat. Soc. B 42 (1980) |

`centre` times (2 x the row's mean reward)^2 is added to the first two (arXiv:2312.09244, 2).
"""  # noqa: E501 (a table)

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tunesmith.config.judged import RewardConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives import OBJECTIVES
from tunesmith.objectives.completions import Scored, scored
from tunesmith.objectives.ranking import plackett_luce

TERM = "reward"


class Reward:
    def __init__(self, config: RewardConfig) -> None:
        assert config.loss is not None, "defaults are resolved before a run"
        self.config = config

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        return {TERM: torch.tensor(float(batch.num_rows))}

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        outputs = model.outputs(batch)[:, 0]
        rewards = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        found = scored(rewards, batch)
        rows = torch.tensor(float(batch.num_rows))
        metrics = {"reward": found.by_row(rewards.detach(), found.row).sum() / len(rewards) * rows}
        if self.config.loss in ("bradley_terry", "plackett_luce"):
            metrics["accuracy"] = found.accuracy().sum()
        return LossOutput({TERM: self.row_losses(found).sum()}, metrics, dict.fromkeys(metrics, rows))

    def row_losses(self, found: Scored) -> Tensor:
        """(R,)"""
        if self.config.loss == "regression":
            assert self.config.scale is not None
            mean, deviation = self.config.scale
            return (found.rewards - (found.scores - mean) / deviation) ** 2
        if self.config.loss == "ordinal":
            return self._ordinal(found)
        losses = plackett_luce(found) if self.config.loss == "plackett_luce" else self._bradley_terry(found)
        if self.config.centre:
            count = found.by_row(torch.ones_like(found.rewards), found.row)
            losses = losses + self.config.centre * (2 * found.by_row(found.rewards, found.row) / count) ** 2
        return losses

    def row_counts(self, found: Scored) -> Tensor:
        """(R,) rows are counted."""
        return torch.ones(found.num_rows)

    def _bradley_terry(self, found: Scored) -> Tensor:
        better, worse, share = found.pairs()
        row, e = found.row[better], self.config.label_smoothing
        gap = found.rewards[better] - found.rewards[worse]
        if found.margins is not None:
            gap = gap - self.config.margin_scale * found.margins[row]
        return found.by_row(share * (-(1 - e) * logsigmoid(gap) - e * logsigmoid(-gap)), row)

    def _ordinal(self, found: Scored) -> Tensor:
        assert self.config.levels is not None
        assert self.config.thresholds is not None
        edges = torch.tensor([-torch.inf, *self.config.thresholds, torch.inf], dtype=found.rewards.dtype)
        level = torch.searchsorted(torch.tensor(self.config.levels, dtype=found.scores.dtype), found.scores)
        upper, lower = edges[level + 1] - found.rewards, edges[level] - found.rewards
        # s(a) - s(b) = s(a) s(-b) (1 - e^(b - a))
        return -(logsigmoid(upper) + logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper)))


OBJECTIVES.register("reward")(Reward)
