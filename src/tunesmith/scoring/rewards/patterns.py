"""Rewards by a regular expression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import regex

from tunesmith.config.rewards import RegexReward
from tunesmith.errors import RowError, clipped
from tunesmith.scoring.rewards.rows import Floats
from tunesmith.types import Example


def matches(spec: RegexReward, answer: str) -> int:
    """How often the pattern is found: 0 or 1, or with `count` any number. Raises TimeoutError."""
    pattern = regex.compile(spec.pattern)  # the package keeps what it compiled
    if spec.full:
        return int(pattern.fullmatch(answer, timeout=spec.timeout) is not None)
    if spec.count:
        return sum(1 for _ in pattern.finditer(answer, timeout=spec.timeout))
    return int(pattern.search(answer, timeout=spec.timeout) is not None)


@dataclass(frozen=True)
class RegexPart:
    spec: RegexReward

    def __call__(self, examples: Sequence[Example], answers: Sequence[str]) -> Floats:
        return np.array([self._one(e, a) for e, a in zip(examples, answers, strict=True)], np.float64)

    def _one(self, example: Example, answer: str) -> int:
        try:
            return matches(self.spec, answer)
        except TimeoutError:
            raise RowError(
                "slow pattern",
                f"pattern '{self.spec.pattern}' took more than {self.spec.timeout:g} s on an answer of "
                f"{len(answer)} characters: {clipped(answer)}",
                file=example.ref.file,
                line=example.ref.line,
                fix="write it without repetitions inside repetitions, such as (a+)+, or raise timeout",
            ) from None
