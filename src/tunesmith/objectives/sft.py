"""Supervised fine-tuning and continued pre-training: cross-entropy of the supervised tokens.

Label smoothing e spreads a share e of the target over the V words of the vocabulary (arXiv:1512.00567, 7):
loss = (1 - e) * -log p(target) + e / V * sum_v -log p(v).
"""

from __future__ import annotations

from torch import Tensor

from tunesmith.config.methods import SftConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives import OBJECTIVES


class Sft:
    def __init__(self, config: SftConfig) -> None:
        self.label_smoothing = config.label_smoothing

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        return {"sft": batch.weights.sum()}

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        total, _, best = model.nll(batch, self.label_smoothing)
        correct = (best == batch.targets).to(batch.weights.dtype)
        return LossOutput(
            terms={"sft": total},
            metrics={"token_accuracy": (correct * batch.weights).sum()},
            metric_weights={"token_accuracy": batch.weights.sum()},
        )


OBJECTIVES.register("sft")(Sft)
