"""Where a language model is asked over HTTP, and how patiently."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from tunesmith.config.section import Positive, Section

NotNegative = Annotated[float, Field(ge=0)]


class Address(Section):
    """A server that is asked over HTTP."""

    url: str
    """Where it is, such as `http://localhost:8000`."""

    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself never stands in a recipe. Null: no key."""

    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds for which the endpoint may be silent."""

    retries: Annotated[int, Field(ge=0)] = 4
    """How often a question is asked again: after too many requests (429), a fault there (408, 5xx), a timeout, or a
    reply that says nothing of use."""

    backoff: NotNegative = 1.0
    """Seconds before the first retry, doubled for each further one, at most 60; where the endpoint says how long to
    wait (Retry-After), that long, at most 60."""

    concurrency: Positive = 8
    """Questions asked at once."""

    @field_validator("url")
    @classmethod
    def _it_is_an_address(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", url):
            raise ValueError(f"got '{url}'; write an address that begins with http:// or https://")
        return url

    @field_validator("api_key_env")
    @classmethod
    def _it_names_a_variable(cls, name: str | None) -> str | None:
        """What was got may be the key, so it is not shown."""
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("not the name of an environment variable; write the name, never the key itself")
        return name


class Endpoint(Address):
    """A chat endpoint in the manner of OpenAI's."""

    url: str
    """Where the interface begins, such as `http://localhost:8000/v1`; `/chat/completions` is added."""

    model: Annotated[str, Field(min_length=1)]
    """The model's name there."""

    temperature: NotNegative | None = 0.0
    """Sampling temperature that is asked for. Null: the endpoint's own."""
