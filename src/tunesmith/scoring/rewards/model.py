"""Rewards by a reward model or a classifier. Who runs it is handed in: nothing here knows of models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.errors import DataError
from tunesmith.scoring.rewards.rows import Floats
from tunesmith.types import Example

Scorer = Callable[[Sequence[Example], Sequence[str]], list[float]]
"""(examples, answers to their prompts) -> a number for each answer."""


@dataclass(frozen=True)
class ModelPart:
    path: str
    scorer: Scorer

    def __call__(self, examples: Sequence[Example], answers: Sequence[str]) -> Floats:
        found = np.array(self.scorer(examples, answers), np.float64)
        if found.shape != (len(answers),):
            raise DataError(f"reward model {self.path} gave {found.size} numbers", f"{len(answers)}")
        return found
