"""Who writes synthetic rows: an endpoint, or a model on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass

from tunesmith.config.synth import Synthetic, WriterEndpoint
from tunesmith.desk.synthetic.answers import Unanswered, Writer
from tunesmith.scoring.endpoint import Client, Failed, client_of

PATIENCE = ("timeout", "retries", "backoff", "concurrency", "api_key_env")
"""Settings of an endpoint that do not change a reply."""


def writer_of(recipe: Synthetic) -> Writer | None:
    """Raises ConfigError for an endpoint that can not be asked; a model is opened when it is first asked."""
    if recipe.endpoint is not None:
        more = {"max_tokens": recipe.endpoint.max_tokens} if recipe.endpoint.max_tokens else {}
        return ByEndpoint(recipe.endpoint, client_of(recipe.endpoint, "writer", more))
    if recipe.local is None:
        return None
    # Here: torch takes seconds to import, and templates need none.
    from tunesmith.workflow.local_writer import ByModel

    return ByModel(recipe.local, recipe.seed)


@dataclass(frozen=True)
class ByEndpoint:
    spec: WriterEndpoint
    client: Client

    @property
    def name(self) -> str:
        return self.spec.model

    @property
    def settings(self) -> str:
        return json.dumps(self.spec.model_dump(exclude=set(PATIENCE)), sort_keys=True)

    def write(self, questions: Sequence[str], keys: Sequence[str]) -> Iterator[tuple[int, str | Unanswered]]:
        with self.client.asking(_anything) as ask:
            places = {ask(question): place for place, question in enumerate(questions)}
            for one in as_completed(places):
                found = one.result()
                yield places[one], Unanswered(found.why) if isinstance(found, Failed) else found


def _anything(reply: str) -> str | Failed:
    return reply if reply.strip() else Failed("an empty reply")
