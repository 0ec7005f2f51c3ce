"""Regression by a head: squared, absolute or Huber's error (Ann. Math. Statist. 35, 1964, threshold 1) of scaled
targets, averaged over rows and targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.config.methods import RegressConfig
from tunesmith.core.batch import Batch
from tunesmith.core.heads import targets
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives import OBJECTIVES

TERM = "regress"
LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}


class Regress:
    def __init__(self, config: RegressConfig) -> None:
        self.error = LOSSES[config.loss]

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        return {TERM: torch.tensor(float(targets(batch).numel()))}

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        """Targets are in units of `RegressConfig.scale` already."""
        outputs, wanted = model.outputs(batch), targets(batch)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        losses = self.error(outputs, wanted.to(outputs.dtype), reduction="sum")
        return LossOutput(terms={TERM: losses})


OBJECTIVES.register("regress")(Regress)
