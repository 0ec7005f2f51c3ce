"""What base and tuned model write to the same test prompts: some answers side by side, and which are rewarded more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tunesmith.evaluate.answers import Answerer
from tunesmith.evaluate.baselines import asked
from tunesmith.evaluate.report_model import Report, Sample, Written
from tunesmith.evaluate.wins import win_rate
from tunesmith.evaluate.words import describe_wins
from tunesmith.types import Example
from tunesmith.workflow.prepare import Prepared
from tunesmith.workflow.prove import Proof, chosen_rows

SHOWN = 5
"""Prompts whose answers a report shows."""
GREEDY = "made of the likeliest token each time"
NO_REWARDS = "No win rate against the base: evaluate.rewards names nothing that rewards answers."


def side_by_side(
    examples: Sequence[Example], base: Sequence[str], tuned: Sequence[str], seed: int
) -> list[Sample]:
    """A seeded choice of prompts, whatever became of them. Beside the answers stands the best one that people gave."""
    places = {example.ref: i for i, example in enumerate(examples)}
    return [
        Sample(
            where=str(one.ref),
            prompt=asked(one),
            reference=one.answer,
            base=base[places[one.ref]],
            tuned=tuned[places[one.ref]],
            note=_people_said(one),
        )
        for one in chosen_rows(examples, SHOWN, seed)
    ]


def _people_said(example: Example) -> str:
    """Of an answer that stands alone: it need not be a good one."""
    return (
        f"people gave the reference {example.completions[0].score:g}" if len(example.completions) == 1 else ""
    )


def check_rewards(prepared: Prepared) -> None:
    """Opens what rewards answers that are written, so that what is wrong with it is told before training, not after."""
    if prepared.run.evaluate.rewards:
        assert prepared.rewards is not None


@dataclass
class Writing:
    """What models that learn from judged answers write themselves: a few answers, or one to every test prompt where
    rewards are named for them. answers: of base and tuned."""

    prepared: Prepared
    proof: Proof
    answers: dict[str, list[str]] = field(default_factory=dict)

    @property
    def examples(self) -> list[Example]:
        run = self.prepared.run
        return chosen_rows(self.proof.examples, None if run.evaluate.rewards else SHOWN, run.seed)

    def write(self, name: str, answerer: Answerer) -> None:
        with self.proof.timed(f"writing of {name}"):
            self.answers[name] = answerer.answer(self.examples).texts

    def fill(self, report: Report) -> None:
        base, tuned = self.answers["base"], self.answers["tuned"]
        seed = self.prepared.run.seed
        report.written = Written(how=GREEDY, samples=side_by_side(self.examples, base, tuned, seed))
        if not self.prepared.run.evaluate.rewards:
            report.absent["wins"] = NO_REWARDS
            return
        rewards = self.prepared.rewards
        found = win_rate(
            rewards(self.examples, base).total,
            rewards(self.examples, tuned).total,
            settings=self.proof.settings,
        )
        report.wins = describe_wins(found, self._tokens(base), self._tokens(tuned))

    def _tokens(self, texts: Sequence[str]) -> float:
        encoded = self.prepared.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return float(np.mean([len(ids) for ids in encoded]))
