"""Rewards by a check against the row's own answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tunesmith.config.rewards import VerifierReward
from tunesmith.errors import clipped
from tunesmith.scoring.json_answers import parse_json
from tunesmith.scoring.rewards import checks
from tunesmith.scoring.rewards.rows import Floats, bad_reference, reference
from tunesmith.types import Example

LETTER = "a letter from A to E"
T = TypeVar("T")


@dataclass(frozen=True)
class VerifierPart:
    spec: VerifierReward

    def __call__(self, examples: Sequence[Example], answers: Sequence[str]) -> Floats:
        return np.array([self._right(e, a) for e, a in zip(examples, answers, strict=True)], np.float64)

    def _right(self, example: Example, answer: str) -> bool:
        match self.spec.check:
            case "json":
                return checks.is_json(answer, self.spec.required_keys)
            case "exact":
                return checks.exact(reference(example, "a text"), answer)
            case "contains":
                return checks.contains(reference(example, "a text"), answer)
            case "number":
                number = _known(example, checks.last_number(reference(example, "a number")), "a number")
                return checks.same_number(number, answer, self.spec.tolerance)
            case "json_equal":
                value = _known(example, parse_json(reference(example, "a JSON value")), "a JSON value")
                return checks.same_json(value, answer)
            case "choice":
                letter = _known(example, checks.stated_choice(reference(example, LETTER)), LETTER)
                return checks.stated_choice(answer) == letter


def _known(example: Example, found: T | None, wanted: str) -> T:
    if found is None:
        raise bad_reference(example, f"the row's answer is {clipped(example.answer)}", wanted)
    return found
