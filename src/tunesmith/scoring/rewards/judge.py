"""Rewards by a language model that marks answers, asked over HTTP (see `scoring.endpoint`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from tunesmith.config.rewards import PLACE, PLACES, JudgeReward
from tunesmith.errors import ModelError, clipped
from tunesmith.scoring.endpoint import Client, Failed, client_of, without_thoughts
from tunesmith.scoring.rewards.rows import Floats, prompt_text
from tunesmith.types import Example

_MARK = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:\.\d+)?|\.\d+)")


def question(spec: JudgeReward, example: Example, answer: str) -> str:
    """The judge's prompt. Places are filled in one pass, so that an answer that writes {reference} gets no wiser."""
    values = (prompt_text(example), answer, example.answer, f"{spec.low:g}", f"{spec.high:g}")
    places = dict(zip(PLACES, values, strict=True))
    return PLACE.sub(lambda place: places.get(place[1], place[0]), spec.prompt)


def read_mark(reply: str, low: float, high: float) -> float | None:
    """The first number of the reply, after the thoughts of a model that thinks aloud; None without one, or outside
    [low, high]."""
    found = _MARK.search(without_thoughts(reply))
    if found is None:
        return None
    mark = float(found.group())
    return mark if low <= mark <= high else None


@dataclass(frozen=True)
class JudgePart:
    spec: JudgeReward
    client: Client

    def __call__(self, examples: Sequence[Example], answers: Sequence[str]) -> Floats:
        """(N,) marks scaled to 0 .. 1. Raises ModelError that says how many answers were left without one."""
        with self.asking() as asking:
            for place, (example, answer) in enumerate(zip(examples, answers, strict=True)):
                asking.ask(place, example, answer)
            return asking.numbers(examples, answers)

    @contextmanager
    def asking(self) -> Iterator[Asking]:
        with self.client.asking(self._mark) as ask:
            yield Asking(ask, self)

    def scaled(self, examples: Sequence[Example], marks: Sequence[float | Failed]) -> Floats:
        failed = [(e, mark) for e, mark in zip(examples, marks, strict=True) if isinstance(mark, Failed)]
        if failed:
            example, first = failed[0]
            raise ModelError(
                f"the judge {self.spec.model} at {self.spec.url} gave no mark to {len(failed)} of {len(marks)} "
                f"answers; the first, to {example.ref}: {first.why}",
                f"a number from {self.spec.low:g} to {self.spec.high:g} for each",
                "see to the endpoint; retries, timeout, concurrency and prompt can be set",
            )
        scale = self.spec.high - self.spec.low
        return np.array([(m - self.spec.low) / scale for m in marks if not isinstance(m, Failed)], np.float64)

    def _mark(self, reply: str) -> float | Failed:
        mark = read_mark(reply, self.spec.low, self.spec.high)
        return Failed(f"no mark in the reply {clipped(reply)}") if mark is None else mark


@dataclass(frozen=True)
class Asking:
    """Questions that are asked as soon as their answers are known, and marked in the order of their places."""

    submit: Callable[[str], Future[float | Failed]]
    part: JudgePart
    asked: dict[int, Future[float | Failed]] = field(default_factory=dict)

    def ask(self, place: int, example: Example, answer: str) -> None:
        self.asked[place] = self.submit(question(self.part.spec, example, answer))

    def numbers(self, examples: Sequence[Example], answers: Sequence[str]) -> Floats:
        """(N,) of places 0 to N - 1, when all are there; as `JudgePart` makes and refuses them."""
        assert len(self.asked) == len(examples) == len(answers), "every answer was asked of"
        return self.part.scaled(examples, [self.asked[place].result() for place in range(len(examples))])


def judge_part(spec: JudgeReward) -> JudgePart:
    """Raises ConfigError for an address or a key that can not be used; the key is never shown."""
    return JudgePart(spec, client_of(spec, "judge"))
