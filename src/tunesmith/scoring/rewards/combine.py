"""The reward of an answer: the sum of weight x curve(number) over its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from tunesmith.config.rewards import (
    Curve,
    FunctionReward,
    JudgeReward,
    LengthReward,
    ModelReward,
    RegexReward,
    RewardPart,
    VerifierReward,
    called,
)
from tunesmith.errors import ConfigError, NonFiniteError, clipped
from tunesmith.scoring.rewards.function import function_part
from tunesmith.scoring.rewards.judge import Asking, JudgePart, judge_part
from tunesmith.scoring.rewards.length import Count, length_part
from tunesmith.scoring.rewards.model import ModelPart, Scorer
from tunesmith.scoring.rewards.patterns import RegexPart
from tunesmith.scoring.rewards.rows import Floats, Part
from tunesmith.scoring.rewards.verifier import VerifierPart
from tunesmith.types import Example


@dataclass(frozen=True, slots=True)
class Scored:
    """total: (N,) rewards. parts: name -> (N,) numbers as they were before curve and weight."""

    total: Floats
    parts: dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the sum."""

    name: str
    weight: float
    curve: Curve
    part: Part


def bend(curve: Curve, x: Floats) -> Floats:
    """The curve at x (N,); `Curve.shape` says what each shape is."""
    low, width = curve.low, curve.high - curve.low
    match curve.shape:
        case "linear":
            return x
        case "clip":
            return (np.clip(x, low, curve.high) - low) / width
        case "sigmoid":
            # logistic(z) = (1 + tanh(z / 2)) / 2, which never overflows; z is log 9 at high, where it is 0.9
            z = 2 * math.log(9) * ((x - low) / width - 0.5)
            return np.asarray((1 + np.tanh(z / 2)) / 2)
        case "log":
            return np.log1p(np.maximum(x - low, 0.0))
        case "step":
            return (x >= low).astype(np.float64)


@dataclass(frozen=True)
class Rewards:
    """Rewards of answers by all their terms."""

    terms: tuple[Term, ...]

    def __call__(self, examples: Sequence[Example], answers: Sequence[str]) -> Scored:
        """examples: (N,) the rows that were asked, each as often as it has answers. answers: (N,).

        Raises NonFiniteError for a number that is none, and whatever the parts raise.
        """
        with self.ahead() as ahead:
            for place, (example, answer) in enumerate(zip(examples, answers, strict=True)):
                ahead.put(place, example, answer)
            return ahead.scored(examples, answers)

    @contextmanager
    def ahead(self) -> Iterator[Ahead]:
        """For answers that come one after another."""
        with ExitStack() as stack:
            asking = {
                term.name: stack.enter_context(term.part.asking())
                for term in self.terms
                if isinstance(term.part, JudgePart)
            }
            yield Ahead(self, asking)


@dataclass(frozen=True)
class Ahead:
    """Rewards of answers while others are still being written. What waits for an endpoint begins with each answer; what
    computes here would take from the writing what it gains, and is done when all are there.

    The numbers are those of asking for all at the end: a judge is asked of each answer by itself either way.
    """

    rewards: Rewards
    asking: dict[str, Asking]

    @property
    def waits(self) -> bool:
        """Whether `put` does anything."""
        return bool(self.asking)

    def put(self, place: int, example: Example, answer: str) -> None:
        for one in self.asking.values():
            one.ask(place, example, answer)

    def scored(self, examples: Sequence[Example], answers: Sequence[str]) -> Scored:
        """examples, answers: (N,) all that were put, by their places. Raises as `Rewards` does."""
        assert len(examples) == len(answers), (len(examples), len(answers))
        total, parts = np.zeros(len(answers)), {}
        for term in self.rewards.terms:
            part = self.asking[term.name].numbers if term.name in self.asking else term.part
            values = part(examples, answers) if answers else np.zeros(0)
            _finite(f"reward '{term.name}'", values, examples, answers)
            parts[term.name] = values
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is an error below
                total = total + term.weight * bend(term.curve, values)
        _finite("the sum of rewards", total, examples, answers)
        return Scored(total, parts)


def _finite(name: str, values: Floats, examples: Sequence[Example], answers: Sequence[str]) -> None:
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        first = wrong[0]
        more = f" ({len(wrong)} of {len(values)} answers have none)" if len(wrong) > 1 else ""
        raise NonFiniteError(
            f"{name} is {values[first]} for an answer to {examples[first].ref}: {clipped(answers[first])}{more}",
            "a finite number",
            "mend what makes the number, or bound it",
        )


def build_rewards(
    parts: Sequence[RewardPart],
    open_model: Callable[[ModelReward], Scorer],
    count_tokens: Count | None = None,
) -> Rewards:
    """The rewards that a recipe lists.

    open_model: part -> what scores answers by its model. count_tokens: tokens of a text, where rewards may count
    them. Raises ConfigError for what can not be had: a function, a key, a tokenizer.
    """
    if not parts:
        raise ConfigError("no rewards", "at least one", "name one under rewards")
    return Rewards(
        tuple(Term(called(p), p.weight, p.curve, _part(p, open_model, count_tokens)) for p in parts)
    )


def _part(spec: RewardPart, open_model: Callable[[ModelReward], Scorer], count_tokens: Count | None) -> Part:
    match spec:
        case FunctionReward():
            return function_part(spec)
        case RegexReward():
            return RegexPart(spec)
        case LengthReward():
            return length_part(spec, count_tokens)
        case VerifierReward():
            return VerifierPart(spec)
        case ModelReward():
            return ModelPart(spec.path, open_model(spec))
        case JudgeReward():
            return judge_part(spec)
