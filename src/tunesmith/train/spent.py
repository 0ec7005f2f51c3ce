"""What the time of a rollout goes to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch.profiler import record_function

WORDS = {
    "writing": "writing answers",
    "scoring": "rewarding them",
    "preparing": "their log-probabilities and advantages",
}
"""Part -> what people are told."""


class Spent:
    """seconds: of each part of `WORDS`. A profiler sees the same parts."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(WORDS, 0.0)

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        with record_function(f"tunesmith: {part}"):
            yield
        self.seconds[part] += time.monotonic() - started


def spent_on(rollouts: Sequence[Mapping[str, float]], stepping: float) -> dict[str, float]:
    """In words: all rollouts' parts, and what is left for training of the seconds in steps; empty without a rollout."""
    if not rollouts:
        return {}
    found = {words: sum(one[part] for one in rollouts) for part, words in WORDS.items()}
    return found | {"learning from them": stepping - sum(found.values())}
