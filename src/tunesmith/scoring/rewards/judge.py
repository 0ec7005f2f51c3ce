"""Rewards by a language model that marks answers, asked over HTTP.

The interface is the chat completions of OpenAI's API: POST {url}/chat/completions with `model` and `messages`; the
reply's text is `choices[0].message.content`.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import numpy as np

from tunesmith.config.rewards import PLACE, PLACES, JudgeReward
from tunesmith.errors import ConfigError, ModelError
from tunesmith.scoring.rewards.rows import Floats, clipped, prompt_text
from tunesmith.types import Example

LONGEST_WAIT = 60.0
"""Seconds before a retry, whatever the endpoint asks for."""
AGAIN = (408, 425, 429)
"""Answers of HTTP after which asking again may help, besides 5xx."""

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_MARK = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:\.\d+)?|\.\d+)")


@dataclass(frozen=True, slots=True)
class Failed:
    """why: for a person. again: whether asking again may help. wait: seconds that the endpoint asks for."""

    why: str
    again: bool = True
    wait: float | None = None


def question(spec: JudgeReward, example: Example, answer: str) -> str:
    """The judge's prompt. Places are filled in one pass, so that an answer that writes {reference} gets no wiser."""
    values = (prompt_text(example), answer, example.answer, f"{spec.low:g}", f"{spec.high:g}")
    places = dict(zip(PLACES, values, strict=True))
    return PLACE.sub(lambda place: places.get(place[1], place[0]), spec.prompt)


def read_mark(reply: str, low: float, high: float) -> float | None:
    """The first number of the reply, after the thoughts of a model that thinks aloud; None without one, or outside
    [low, high]."""
    found = _MARK.search(_THOUGHT.sub("", reply))
    if found is None:
        return None
    mark = float(found.group())
    return mark if low <= mark <= high else None


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds from a Retry-After header, which has seconds or a date (RFC 9110, 10.2.3); None if it says nothing."""
    if not header:
        return None
    if re.fullmatch(r"\d{1,9}", header.strip()):
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class JudgePart:
    """headers: of every request, with the key."""

    spec: JudgeReward
    headers: dict[str, str]

    def __call__(self, examples: Sequence[Example], answers: Sequence[str]) -> Floats:
        """(N,) marks scaled to 0 .. 1. Raises ModelError that says how many answers were left without one."""
        with self.asking() as asking:
            for place, (example, answer) in enumerate(zip(examples, answers, strict=True)):
                asking.ask(place, example, answer)
            return asking.numbers(examples, answers)

    @contextmanager
    def asking(self) -> Iterator[Asking]:
        limits = httpx2.Limits(max_connections=self.spec.concurrency)
        with httpx2.Client(headers=self.headers, timeout=self.spec.timeout, limits=limits) as client:
            pool = ThreadPoolExecutor(self.spec.concurrency)
            try:
                yield Asking(lambda text: pool.submit(self._ask, client, text), self)
            finally:
                pool.shutdown(cancel_futures=True)

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

    def _ask(self, client: httpx2.Client, text: str) -> float | Failed:
        """One question, asked again while that may help and retries are left."""
        for attempt in range(self.spec.retries + 1):
            found = self._once(client, text)
            if not isinstance(found, Failed) or not found.again or attempt == self.spec.retries:
                break
            wait = self.spec.backoff * 2.0 ** min(attempt, 20) if found.wait is None else found.wait
            time.sleep(min(wait, LONGEST_WAIT))
        return found

    def _once(self, client: httpx2.Client, text: str) -> float | Failed:
        body: dict[str, Any] = {"model": self.spec.model, "messages": [{"role": "user", "content": text}]}
        if self.spec.temperature is not None:
            body["temperature"] = self.spec.temperature
        try:
            response = client.post(f"{self.spec.url.rstrip('/')}/chat/completions", content=json.dumps(body))
        except httpx2.TimeoutException:
            return Failed(f"no word within {self.spec.timeout:g} s")
        except httpx2.HTTPError as error:
            return Failed(f"{type(error).__name__}: {error}")
        if response.status_code != 200:
            again = response.status_code in AGAIN or response.status_code >= 500
            wait = retry_after(response.headers.get("retry-after"), time.time())
            return Failed(f"status {response.status_code}, {clipped(response.text)}", again, wait)
        try:
            reply = response.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            reply = None
        if not isinstance(reply, str):
            return Failed(f"got {clipped(response.text)}, expected choices[0].message.content")
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
    headers = {"Content-Type": "application/json"}
    try:
        httpx2.URL(spec.url)
    except httpx2.InvalidURL as error:
        raise ConfigError(f"the judge's url '{spec.url}' is none: {error}", "http://host:port/v1") from None
    if spec.api_key_env is None:
        return JudgePart(spec, headers)
    key = os.environ.get(spec.api_key_env, "").strip()
    if not re.fullmatch(r"[!-~]+", key):
        state = "has blanks or letters that no key has" if key else "is not set"
        raise ConfigError(
            f"the environment variable {spec.api_key_env} {state}",
            f"the key of {spec.url} in it",
            f"export {spec.api_key_env}=..., or leave api_key_env out where no key is needed",
        )
    return JudgePart(spec, headers | {"Authorization": f"Bearer {key}"})
