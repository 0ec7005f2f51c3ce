"""Answers are rewarded as they come where that can be, and the rewards are those of asking at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tests import fakes
from tests.scoring.rewards.rows import row
from tests.scoring.rewards.test_judge import Endpoint, both, endpoint, says, until
from tunesmith.config.policy import PolicyConfig
from tunesmith.generate.sample import Sample
from tunesmith.train.spent import Spent
from tunesmith.train.writing import Writer

__all__ = ["endpoint"]
ORDER = [(1, 0), (0, 1), (1, 1), (0, 0)]
"""(prompt, number) of the answers, as they are finished."""


def test_the_first_answers_are_judged_while_the_last_are_written(
    endpoint: Endpoint,
) -> None:
    endpoint.reply = lambda asked, before: says(asked)

    def slowly(
        prompts: Sequence[Sequence[int]], count: int, seed: int, streams: Sequence[int] | None
    ) -> Iterator[tuple[int, int, Sample]]:
        assert (prompts, count, seed, streams) == ([r.segments[0].ids.tolist() for r in rows], 2, 9, [4, 7])
        for done, (prompt, number) in enumerate(ORDER):
            until(lambda done=done: len(endpoint.requests) == done)  # type: ignore[misc]  # those before are asked of
            yield prompt, number, Sample([2 * prompt + number], False, np.zeros(1), np.zeros(1))

    method = PolicyConfig(rewards=[{"kind": "length"}])  # type: ignore[list-item]
    writer = Writer(fakes.model(), method, slowly, lambda ids: str(ids[0]), both(endpoint))
    rows, spent = fakes.rows(2), Spent()
    samples, scored = writer.rewarded(rows, [row(line=1), row(line=2)], 2, 9, spent, [4, 7])
    assert [[one.ids for one in of_prompt] for of_prompt in samples] == [[[0], [1]], [[2], [3]]]
    assert scored.parts["judge"].tolist() == [0.0, 0.1, 0.2, 0.3]
    assert scored.total.tolist() == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert spent.seconds["writing"] > 0
