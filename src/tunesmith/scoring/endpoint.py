"""Asking a server over HTTP, patiently; and a language model.

A model's interface is the chat completions of OpenAI's API: POST {url}/chat/completions with `model` and `messages`;
the reply's text is `choices[0].message.content`.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2

from tunesmith.config.endpoint import Address, Endpoint
from tunesmith.errors import ConfigError, clipped

LONGEST_WAIT = 60.0
"""Seconds before a retry, whatever the endpoint asks for."""
AGAIN = (408, 425, 429)
"""Answers of HTTP after which asking again may help, besides 5xx."""

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    """why: for a person. again: whether asking again may help. wait: seconds that the endpoint asks for. status: of a
    reply that says there is none."""

    why: str
    again: bool = True
    wait: float | None = None
    status: int | None = None


def without_thoughts(reply: str) -> str:
    """Without the thoughts of a model that thinks aloud."""
    return _THOUGHT.sub("", reply)


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds from a Retry-After header, which has seconds or a date (RFC 9110, 10.2.3); None if it says nothing."""
    if not header:
        return None
    if re.fullmatch(r"\d{1,9}", header.strip()):
        return float(header.strip())
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class Caller:
    """headers: of every request, with the key."""

    spec: Address
    headers: dict[str, str]

    @contextmanager
    def calling(
        self, read: Callable[[str], T | Failed]
    ) -> Iterator[Callable[[str, Any], Future[T | Failed]]]:
        """A function that posts a body as JSON to an address, or gets what is there where the body is None, in the time
        of the block; as many at once as `spec.concurrency`. read: of a reply what it says, or Failed where it says
        nothing of use, and is to be asked for again."""
        limits = httpx2.Limits(max_connections=self.spec.concurrency)
        with httpx2.Client(headers=self.headers, timeout=self.spec.timeout, limits=limits) as client:
            pool = ThreadPoolExecutor(self.spec.concurrency)
            try:
                yield lambda url, body: pool.submit(self._call, client, url, body, read)
            finally:
                pool.shutdown(cancel_futures=True)

    def call(self, url: str, body: Any = None) -> str | Failed:
        """The text of one reply."""
        with self.calling(lambda reply: reply) as call:
            return call(url, body).result()

    def _call(
        self, client: httpx2.Client, url: str, body: Any, read: Callable[[str], T | Failed]
    ) -> T | Failed:
        """One question, asked again while that may help and retries are left."""
        for attempt in range(self.spec.retries + 1):
            found = self._once(client, url, body)
            said = found if isinstance(found, Failed) else read(found)
            if not isinstance(said, Failed) or not said.again or attempt == self.spec.retries:
                break
            wait = self.spec.backoff * 2.0 ** min(attempt, 20) if said.wait is None else said.wait
            time.sleep(min(wait, LONGEST_WAIT))
        return said

    def _once(self, client: httpx2.Client, url: str, body: Any) -> str | Failed:
        try:
            response = client.get(url) if body is None else client.post(url, content=json.dumps(body))
        except httpx2.TimeoutException:
            return Failed(f"no word within {self.spec.timeout:g} s")
        except httpx2.HTTPError as error:
            return Failed(f"{type(error).__name__}: {error}")
        if response.status_code != 200:
            again = response.status_code in AGAIN or response.status_code >= 500
            wait = retry_after(response.headers.get("retry-after"), time.time())
            return Failed(
                f"status {response.status_code}, {clipped(response.text)}", again, wait, response.status_code
            )
        return response.text


@dataclass(frozen=True)
class Client(Caller):
    """Of a language model. more: what the body of every request says beside model, messages and temperature."""

    spec: Endpoint
    more: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def asking(self, read: Callable[[str], T | Failed]) -> Iterator[Callable[[str], Future[T | Failed]]]:
        """A function that asks one question, as `calling` calls. read: of the model's words."""

        def heard(text: str) -> T | Failed:
            said = _content(text)
            return said if isinstance(said, Failed) else read(said)

        with self.calling(heard) as call:
            yield lambda text: call(f"{self.spec.url.rstrip('/')}/chat/completions", self._body(text))

    def _body(self, text: str) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.spec.model, "messages": [{"role": "user", "content": text}]}
        if self.spec.temperature is not None:
            body["temperature"] = self.spec.temperature
        return body | dict(self.more)


def _content(text: str) -> str | Failed:
    try:
        reply = json.loads(text)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        reply = None
    if not isinstance(reply, str):
        return Failed(f"got {clipped(text)}, expected choices[0].message.content")
    return reply


def caller_of(spec: Address, who: str) -> Caller:
    """As `client_of`, of a server that is no chat endpoint."""
    return Caller(spec, _headers(spec, who))


def client_of(spec: Endpoint, who: str, more: Mapping[str, Any] | None = None) -> Client:
    """who: the model's part, for errors. Raises ConfigError for an address or a key that can not be used; the key is
    never shown."""
    return Client(spec, _headers(spec, who), more or {})


def _headers(spec: Address, who: str) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    try:
        httpx2.URL(spec.url)
    except httpx2.InvalidURL as error:
        raise ConfigError(f"the {who}'s url '{spec.url}' is none: {error}", "http://host:port/v1") from None
    if spec.api_key_env is None:
        return headers
    key = os.environ.get(spec.api_key_env, "").strip()
    if not re.fullmatch(r"[!-~]+", key):
        state = "has blanks or letters that no key has" if key else "is not set"
        raise ConfigError(
            f"the environment variable {spec.api_key_env} {state}",
            f"the key of {spec.url} in it",
            f"export {spec.api_key_env}=..., or leave api_key_env out where no key is needed",
        )
    return headers | {"Authorization": f"Bearer {key}"}
