"""What an objective owes the loop: sums, one per named term, and what each is divided by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.core.model import Model


@dataclass
class LossOutput:
    """terms: name -> () SUM over the micro-batch, with gradient. metrics: name -> () sum, detached,
    reported as a mean over the metric's weight `metric_weights[name]`."""

    terms: dict[str, Tensor]
    metrics: dict[str, Tensor] = field(default_factory=dict)
    metric_weights: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """The loop sums `weights` over all micro-batches (and ranks) of a step and divides each term once,
    so that splitting a step into micro-batches cannot change its gradient."""

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        """term -> () what that term is summed over."""
        ...

    def loss(self, model: Model, batch: Batch) -> LossOutput: ...


@runtime_checkable
class WholeStep(Protocol):
    """An objective whose rows' losses depend on the step's other rows (contrastive ones)."""

    def begin_step(self, model: Model, batches: Sequence[Batch]) -> None:
        """Called before the losses of a step: what each micro-batch needs of the others is computed here, so that
        splitting still changes no gradient."""
        ...
