"""Classification by a head: softmax cross-entropy, or a sigmoid for each class.

One class: s * w_y * (1 - p_y)^gamma * -log p_y with s the row's own weight, summed over rows and divided by the sum of
s * w_y; label smoothing e as in arXiv:1512.00567 (7), with torch's treatment of class weights. Several: the binary
cross-entropy of every class, focal-scaled alike (arXiv:1708.02002, 4), averaged over rows and classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.config.methods import ClassifyConfig
from tunesmith.core.batch import Batch
from tunesmith.core.heads import targets
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives import OBJECTIVES
from tunesmith.types import SAMPLE_WEIGHT

TERM = "classify"


class Classify:
    def __init__(self, config: ClassifyConfig) -> None:
        assert config.labels is not None, "defaults are resolved before a run"
        assert not isinstance(config.class_weights, str), "balanced weights are worked out before a run"
        given = config.class_weights or {}
        self.class_weights = torch.tensor([given.get(label, 1.0) for label in config.labels])
        self.config = config

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        wanted = targets(batch)
        if self.config.multi_label:
            return {TERM: self.class_weights.sum() * len(wanted)}
        return {TERM: (self.class_weights[wanted] * _own(batch)).sum()}

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        outputs, wanted = model.outputs(batch), targets(batch)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        right = self._several if self.config.multi_label else self._one
        losses, correct = right(outputs, wanted)
        if not self.config.multi_label:
            losses = losses * _own(batch).to(losses.dtype)
        return LossOutput(
            terms={TERM: losses.sum()},
            metrics={"accuracy": correct.sum()},
            metric_weights={"accuracy": torch.tensor(float(correct.numel()))},
        )

    def _one(self, outputs: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C), (R,) -> (R,) losses and whether the best class is the right one."""
        weights = self.class_weights.to(outputs.dtype)
        losses = functional.cross_entropy(
            outputs, wanted, weights, reduction="none", label_smoothing=self.config.label_smoothing
        )
        if self.config.focal_gamma:
            logp = outputs.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
            losses = losses * (1 - logp.exp()) ** self.config.focal_gamma
        return losses, (outputs.detach().argmax(-1) == wanted).to(outputs.dtype)

    def _several(self, outputs: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C), (R, C) of 0 and 1 -> (R, C) losses and whether each class is on the right side of 1/2."""
        smooth = self.config.label_smoothing
        aim = wanted.to(outputs.dtype) * (1 - smooth) + smooth / 2
        losses = functional.binary_cross_entropy_with_logits(outputs, aim, reduction="none")
        if self.config.focal_gamma:
            p = outputs.sigmoid()
            losses = losses * (wanted * (1 - p) + (1 - wanted) * p) ** self.config.focal_gamma
        losses = losses * self.class_weights.to(outputs.dtype)
        return losses, ((outputs.detach() > 0) == (wanted > 0.5)).to(outputs.dtype)


def _own(batch: Batch) -> Tensor:
    """(R,) the rows' own weights."""
    found = [float(row.given[SAMPLE_WEIGHT][0]) if SAMPLE_WEIGHT in row.given else 1.0 for row in batch.rows]
    return torch.tensor(found)


OBJECTIVES.register("classify")(Classify)
