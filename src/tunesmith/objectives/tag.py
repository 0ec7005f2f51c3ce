"""Token classification: cross-entropy of the tag of every first sub-word token, averaged over them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.config.methods import TagConfig
from tunesmith.core.batch import Batch
from tunesmith.core.heads import targets
from tunesmith.core.model import Model
from tunesmith.core.objective import LossOutput
from tunesmith.objectives import OBJECTIVES

TERM = "tag"


class Tag:
    def __init__(self, config: TagConfig) -> None:
        self.label_smoothing = config.label_smoothing

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        return {TERM: torch.tensor(float(len(targets(batch))))}

    def loss(self, model: Model, batch: Batch) -> LossOutput:
        outputs, wanted = model.outputs(batch), targets(batch)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        losses = functional.cross_entropy(
            outputs, wanted, reduction="sum", label_smoothing=self.label_smoothing
        )
        correct = (outputs.detach().argmax(-1) == wanted).to(outputs.dtype)
        return LossOutput(
            terms={TERM: losses},
            metrics={"tag_accuracy": correct.sum()},
            metric_weights={"tag_accuracy": torch.tensor(float(len(wanted)))},
        )


OBJECTIVES.register("tag")(Tag)
