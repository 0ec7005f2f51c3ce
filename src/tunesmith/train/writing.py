"""Writing answers and rewarding them; what was written as rows to learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.policy import PolicyConfig
from tunesmith.core.model import Model
from tunesmith.generate.sample import Sample, Sampler
from tunesmith.objectives import policy
from tunesmith.scoring.rewards import Rewards, Scored
from tunesmith.train.spent import Spent
from tunesmith.types import Example, Segment, TokenRow

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Writer:
    """What answers are written and rewarded with. decode: ids -> an answer's text."""

    model: Model
    method: PolicyConfig
    sampler: Sampler
    decode: Callable[[Sequence[int]], str]
    rewards: Rewards

    def rewarded(
        self,
        prompts: Sequence[TokenRow],
        examples: Sequence[Example],
        count: int,
        seed: int,
        spent: Spent,
        streams: Sequence[int] | None = None,
    ) -> tuple[list[list[Sample]], Scored]:
        """`count` answers to each prompt, and what they are worth, prompt by prompt. examples: of the prompts."""
        with self.rewards.ahead() as ahead:

            def told(prompt: int, number: int, one: Sample) -> None:
                if ahead.waits:
                    ahead.put(prompt * count + number, examples[prompt], self.text(one))

            with spent.on("writing"):
                samples = self._write(prompts, count, seed, streams, told)
            with spent.on("scoring"):
                texts = [self.text(one) for of_prompt in samples for one in of_prompt]
                return samples, ahead.scored([e for e in examples for _ in range(count)], texts)

    def _write(
        self,
        prompts: Sequence[TokenRow],
        count: int,
        seed: int,
        streams: Sequence[int] | None,
        told: Callable[[int, int, Sample], None],
    ) -> list[list[Sample]]:
        found: list[dict[int, Sample]] = [{} for _ in prompts]
        drawn = self.sampler([row.segments[0].ids.tolist() for row in prompts], count, seed, streams)
        for prompt, number, one in drawn:
            found[prompt][number] = one
            told(prompt, number, one)
        return [[of_prompt[i] for i in range(count)] for of_prompt in found]

    def text(self, one: Sample) -> str:
        return self.decode(one.ids[:-1] if one.ended else one.ids)


@dataclass
class Group:
    """A prompt, its answers, and their rewards (G,) as the data's parts make them, without penalties."""

    prompt: TokenRow
    samples: list[Sample]
    rewards: Floats

    @property
    def cut(self) -> NDArray[np.bool_]:
        """(G,) which answers did not end."""
        return np.array([not one.ended for one in self.samples])

    def counted(self, method: PolicyConfig) -> NDArray[np.bool_]:
        """(G,) which answers are learned from."""
        return ~self.cut if method.truncated == "mask" else np.ones(len(self.samples), np.bool_)

    def teaches(self, method: PolicyConfig) -> bool:
        """Whether some answer is learned from, and not all are worth the same."""
        return bool(self.counted(method).any() and np.ptp(self.learned(method)) > 0)

    def learned(self, method: PolicyConfig) -> Floats:
        """(G,) what is learned from: less where an answer was cut off and that costs something, nothing where one that
        has not ended has not earned its reward."""
        if method.truncated == "bootstrap":
            return np.where(self.cut, 0.0, self.rewards)
        penalty = method.truncation_penalty if method.truncated == "penalise" else 0.0
        return self.rewards - penalty * self.cut


def tree(prompt: TokenRow, samples: Sequence[Sample], weights: Sequence[float]) -> TokenRow:
    """The prompt and the very ids that were written. weights: what a token of each answer counts."""
    leaves = [
        Segment(np.array(one.ids, np.int64), np.full(len(one.ids), weight, np.float32), 0)
        for one, weight in zip(samples, weights, strict=True)
    ]
    written = [one.logps for one, weight in zip(samples, weights, strict=True) if weight > 0]
    given = {policy.WRITTEN: np.concatenate(written).astype(np.float64)} if written else {}
    return TokenRow(prompt.ref, (prompt.segments[0], *leaves), given=given)


def by_answer(row: TokenRow, values: Floats) -> list[Floats]:
    """(n,) of the row's supervised tokens -> of each answer that is learned from."""
    counts = [len(leaf.ids) for leaf in row.segments[1:] if leaf.weights[0] > 0]
    return np.split(values, np.cumsum(counts)[:-1])
