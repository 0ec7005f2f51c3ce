"""Rewards by the length of the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.config.rewards import LengthReward
from tunesmith.errors import ConfigError
from tunesmith.scoring.rewards.rows import Floats
from tunesmith.scoring.text import words
from tunesmith.types import Example

Count = Callable[[str], int]


def nearness(lengths: Floats, target: int, tolerance: float) -> Floats:
    """1 - (|length - target| - tolerance) / target within 0 and 1."""
    return np.clip(1 - (np.abs(lengths - target) - tolerance) / target, 0.0, 1.0)


@dataclass(frozen=True)
class LengthPart:
    spec: LengthReward
    count: Count

    def __call__(self, examples: Sequence[Example], answers: Sequence[str]) -> Floats:
        lengths = np.array([self.count(answer) for answer in answers], np.float64)
        if self.spec.target is None:
            return lengths
        return nearness(lengths, self.spec.target, self.spec.tolerance)


def length_part(spec: LengthReward, count_tokens: Count | None) -> LengthPart:
    if spec.unit == "characters":
        return LengthPart(spec, len)
    if spec.unit == "words":
        return LengthPart(spec, lambda text: len(words(text)))
    if count_tokens is None:
        raise ConfigError("unit tokens, but there is no tokenizer here", "characters or words")
    return LengthPart(spec, count_tokens)
