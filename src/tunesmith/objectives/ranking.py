"""Comparative ranking of K completions of one prompt, with s their rewards, p their mean log-probabilities.

| loss | of a row | from |
|---|---|---|
| plackett_luce | sum_i log sum_{j = i or worse than i} e^s_j - s_i | arXiv:2305.18290, A.3 |
| best_vs_rest | the same, of the best ones alone, averaged over them | its first factor |
| lipo_lambda | sum over pairs of D_ij log(1 + e^(s_j - s_i)) | arXiv:2402.01878, 3.3 |
| rrhf | sum over pairs of max(0, p_j - p_i), beside supervised learning of the best | arXiv:2304.05302, 3 |

i is better than j in a pair. D_ij = |2^g_i - 2^g_j| |1 / log2(1 + t_i) - 1 / log2(1 + t_j)|, with g the scores scaled
to 0..1 in their row and t the places by s. Completions of equal scores are not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tunesmith.config.judged import RankingConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives import OBJECTIVES
from tunesmith.objectives.completions import Compared, Scored, best_tokens, compared
from tunesmith.objectives.preference import measured

TERM, SFT = "ranking", "sft"


def plackett_luce(found: Scored) -> Tensor:
    """(R,)"""
    return found.by_row(_first(found), found.row)


def best_vs_rest(found: Scored) -> Tensor:
    """(R,)"""
    best = found.best
    count = found.by_row(best.to(found.rewards.dtype), found.row)
    return found.by_row(_first(found) * best, found.row) / count


def _first(found: Scored) -> Tensor:
    """(C,) the negative log-probability of each to be taken before those that are worse."""
    mine = found.below | torch.eye(len(found.row), dtype=torch.bool)
    return torch.where(mine, found.rewards[None, :], -torch.inf).logsumexp(1) - found.rewards


def lipo_lambda(found: Scored) -> Tensor:
    """(R,)"""
    i, j, _ = found.pairs()
    s = found.rewards.detach()
    earlier = torch.ones(len(s), len(s), dtype=torch.bool).tril(-1)
    above = found.together & ((s[None, :] > s[:, None]) | ((s[None, :] == s[:, None]) & earlier))
    discount = 1 / torch.log2(2.0 + above.sum(1).to(s.dtype))
    low = torch.where(found.together, found.scores[None, :], torch.inf).amin(1)
    high = torch.where(found.together, found.scores[None, :], -torch.inf).amax(1)
    gain = 2 ** ((found.scores - low) / (high - low))
    cost = (gain[i] - gain[j]).abs() * (discount[i] - discount[j]).abs()
    return found.by_row(cost * softplus(found.rewards[j] - found.rewards[i]), found.row[i])


def rrhf(found: Scored) -> Tensor:
    """(R,); rewards are mean log-probabilities."""
    i, j, _ = found.pairs()
    return found.by_row(torch.relu(found.rewards[j] - found.rewards[i]), found.row[i])


LOSSES: dict[str, Callable[[Scored], Tensor]] = {
    "plackett_luce": plackett_luce,
    "best_vs_rest": best_vs_rest,
    "lipo_lambda": lipo_lambda,
    "rrhf": rrhf,
}


class Ranking:
    def __init__(self, config: RankingConfig) -> None:
        self.config, self.sft_weight = config, config.sft_weight or 0.0

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        found = {TERM: torch.tensor(float(batch.num_rows))}
        return found | ({SFT: best_tokens(batch)} if self.sft_weight else {})

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        found = compared(model, batch, self.config)
        terms = {TERM: self.row_losses(found).sum()}
        if self.sft_weight:
            terms[SFT] = self.sft_weight * found.sft()
        return LossOutput(terms, *measured(found))

    def settle(self, found: Sequence[Compared]) -> None:
        """A row's loss depends on no other row."""

    def row_losses(self, found: Compared) -> Tensor:
        """(R,)"""
        return LOSSES[self.config.loss](found)


OBJECTIVES.register("ranking")(Ranking)
