"""Process reward models: how likely each step of an answer is right, read at the step's end.

With z the head's output at the last token of a step, and y its label, 1 for right, 0 for wrong, or a number between
(the share of continuations that succeed, arXiv:2312.08935, 3.3):

    loss = -y log s(z) - (1 - y) log s(-z)

averaged over all steps that have a label (arXiv:2305.20050, 2.6, which has three classes and drops the neutral one).
With `until_first_wrong` a row's steps after its first wrong one count no more, as they were labelled there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from tunesmith.config.methods import StepwiseConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives import OBJECTIVES
from tunesmith.objectives.completions import SCORES, Scored, rows_of, scored

TERM = "stepwise"


class Stepwise:
    def __init__(self, config: StepwiseConfig) -> None:
        self.config = config

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        return {TERM: self.counted(batch.given(SCORES), rows_of(batch)).sum().float()}

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        outputs = model.outputs(batch)[:, 0]
        found = scored(outputs.to(torch.promote_types(outputs.dtype, torch.float32)), batch)
        counted = self.counted(found.scores, found.row)
        agrees = (found.rewards.detach() >= 0) == (found.scores >= 0.5)
        return LossOutput(
            {TERM: self.row_losses(found).sum()},
            {"step_accuracy": (agrees & counted).sum().float()},
            {"step_accuracy": counted.sum().float()},
        )

    def row_losses(self, found: Scored) -> Tensor:
        """(R,)"""
        counted = self.counted(found.scores, found.row)
        losses = binary_cross_entropy_with_logits(
            found.rewards[counted], found.scores[counted], reduction="none"
        )
        return found.by_row(losses, found.row[counted])

    def row_counts(self, found: Scored) -> Tensor:
        """(R,) steps are counted."""
        return found.by_row(self.counted(found.scores, found.row).float(), found.row)

    def counted(self, labels: Tensor, row: Tensor) -> Tensor:
        """(C,) bool of steps: those with a label."""
        known = labels.isfinite()
        if not self.config.until_first_wrong:
            return known
        wrong = (labels < 0.5).long()  # no label is not wrong
        before = wrong.cumsum(0) - wrong  # also of earlier rows
        first = torch.searchsorted(row, row)
        return known & (before == before[first])


OBJECTIVES.register("stepwise")(Stepwise)
