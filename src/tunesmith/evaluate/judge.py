"""Running a model on judged rows: a number for each of a row's answers, higher for better, and the loss.

A reward model says its reward; a model of steps how likely each step is right. A language model says how likely it
finds an answer (the mean log-probability of its tokens), or how much it gained on the reference, in the reward of its
method.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit

from tunesmith.config.judged import Judged
from tunesmith.core.batch import Batch
from tunesmith.core.device import pass_tokens
from tunesmith.core.model import Model
from tunesmith.data.trees import LEFT_OUT
from tunesmith.evaluate.answers import Answers
from tunesmith.evaluate.heads import mean
from tunesmith.evaluate.report import Losses
from tunesmith.generate.batched import Numbers, Told, completion_sums, of_completions, untold
from tunesmith.models.heads import HeadSpec
from tunesmith.objectives.completions import SCORES, Comparing, Scoring, compare, scored
from tunesmith.types import Example, TokenRow

DIGITS = 7
"""Of the numbers, as written."""
ROWS_AT_ONCE = 64
"""Rows whose losses are computed at once: pairs of answers are looked for among all of them."""


@dataclass(frozen=True)
class Judge(ABC):
    """rows_of: the token rows of examples, one each."""

    model: Model
    rows_of: Callable[[Sequence[Example]], Sequence[TokenRow]]

    def answer(
        self, examples: Sequence[Example], shots: Sequence[Example] = (), progress: Told = untold
    ) -> Answers:
        """JSON lists of numbers, in the order of the examples."""
        assert not shots, "a judge reads no worked examples"
        rows = self.rows_of(examples)
        return self.read(rows, self.outputs(rows, progress))

    def read(self, rows: Sequence[TokenRow], outputs: Sequence[Numbers]) -> Answers:
        return self.written(rows, self.said(rows, outputs))

    def written(self, rows: Sequence[TokenRow], said: Sequence[Numbers]) -> Answers:
        """JSON lists of the numbers."""
        return as_json(rows, said)

    def losses(self, rows: Sequence[TokenRow]) -> Losses:
        return self.losses_of(rows, self.outputs(rows))

    def mean_loss(self, rows: Sequence[TokenRow]) -> float:
        return mean(self.losses(rows))

    @abstractmethod
    def outputs(self, rows: Sequence[TokenRow], progress: Told = untold) -> list[Numbers]:
        """What the model says of each row's answers, in their order."""

    @abstractmethod
    def said(self, rows: Sequence[TokenRow], outputs: Sequence[Numbers]) -> list[Numbers]:
        """The numbers that the answers are judged by."""

    @abstractmethod
    def losses_of(self, rows: Sequence[TokenRow], outputs: Sequence[Numbers]) -> Losses:
        """The objective's loss of each row."""


def as_json(rows: Sequence[TokenRow], said: Sequence[Numbers]) -> Answers:
    texts = []
    for row, numbers in zip(rows, said, strict=True):
        judged = np.isfinite(row.given[SCORES])  # an answer to another prompt is not asked about
        texts.append(json.dumps([float(f"{x:.{DIGITS}g}") for x in numbers[judged]]))
    return Answers(texts, [False] * len(texts))


@dataclass(frozen=True)
class RewardJudge(Judge):
    """scale: mean and deviation of the ratings that rewards were learned from; a number is then in their unit."""

    objective: Scoring | None = None
    scale: tuple[float, float] = (0.0, 1.0)

    def outputs(self, rows: Sequence[TokenRow], progress: Told = untold) -> list[Numbers]:
        return of_completions(
            self.model,
            rows,
            lambda batch: self.model.outputs(batch)[:, 0],
            pass_tokens(self.model.device),
            progress,
        )

    def features(self, rows: Sequence[TokenRow]) -> list[Numbers]:
        """(K, H) the states that the head reads."""
        return of_completions(self.model, rows, self.model.features, pass_tokens(self.model.device))

    def said(self, rows: Sequence[TokenRow], outputs: Sequence[Numbers]) -> list[Numbers]:
        offset, unit = self.scale
        return [offset + unit * rewards for rewards in outputs]

    def losses_of(self, rows: Sequence[TokenRow], outputs: Sequence[Numbers]) -> Losses:
        assert self.objective is not None, "a judge that is trained or proved"
        parts = [scored(rewards, batch) for batch, rewards in _in_parts(rows, outputs)]
        losses = [self.objective.row_losses(part).numpy() for part in parts]
        counts = [self.objective.row_counts(part).numpy() for part in parts]
        return Losses(np.concatenate(losses), np.concatenate(counts).astype(np.int64))


@dataclass(frozen=True)
class StepJudge(RewardJudge):
    """Scores are log-odds that a step is right."""

    def said(self, rows: Sequence[TokenRow], outputs: Sequence[Numbers]) -> list[Numbers]:
        return [expit(scores) for scores in outputs]

    def written(self, rows: Sequence[TokenRow], said: Sequence[Numbers]) -> Answers:
        """With null for each step that did not fit."""
        texts = []
        for row, numbers in zip(rows, said, strict=True):
            known = [float(f"{x:.{DIGITS}g}") for x in numbers]
            texts.append(json.dumps(known + [None] * int(row.given[LEFT_OUT][0])))
        return Answers(texts, [False] * len(texts))


def score_judge(
    model: Model,
    rows_of: Callable[[Sequence[Example]], Sequence[TokenRow]],
    spec: HeadSpec,
    objective: Scoring | None = None,
) -> RewardJudge:
    """Of a model that scores answers, or steps."""
    if spec.steps is not None:
        return StepJudge(model, rows_of, objective)
    return RewardJudge(model, rows_of, objective, spec.scale[0] if spec.scale else (0.0, 1.0))


@dataclass(frozen=True)
class PolicyJudge(Judge):
    """by: `likelihood`, the mean log-probability of a token, or `reward`, that of the method."""

    objective: Comparing | None = None
    method: Judged | None = None
    by: str = "likelihood"

    def outputs(self, rows: Sequence[TokenRow], progress: Told = untold) -> list[Numbers]:
        """Summed log-probabilities."""
        return completion_sums(self.model, rows, pass_tokens(self.model.device), progress)

    def said(self, rows: Sequence[TokenRow], outputs: Sequence[Numbers]) -> list[Numbers]:
        if self.by == "likelihood":
            return [
                sums / [len(leaf.ids) for leaf in row.segments[1:]]
                for row, sums in zip(rows, outputs, strict=True)
            ]
        assert self.method is not None, "a judge that is trained or proved"
        out: list[Numbers] = []
        for batch, sums in _in_parts(rows, outputs):
            rewards = compare(batch, sums, self.method).rewards.numpy()
            out += np.split(rewards, np.cumsum(batch.completions_of_rows)[:-1])
        return out

    def losses_of(self, rows: Sequence[TokenRow], outputs: Sequence[Numbers]) -> Losses:
        assert self.method is not None, "a judge that is trained or proved"
        assert self.objective is not None
        found = [compare(batch, sums, self.method) for batch, sums in _in_parts(rows, outputs)]
        self.objective.settle(found)
        losses = [self.objective.row_losses(each).numpy() for each in found]
        return Losses(np.concatenate(losses), np.ones(len(rows), np.int64))


def _in_parts(rows: Sequence[TokenRow], outputs: Sequence[Numbers]) -> list[tuple[Batch, torch.Tensor]]:
    """Some rows at a time, and what was said of their answers, one after another."""
    starts = range(0, len(rows), ROWS_AT_ONCE)
    return [
        (
            Batch.from_rows(rows[at : at + ROWS_AT_ONCE], share=False),
            torch.from_numpy(np.concatenate(outputs[at : at + ROWS_AT_ONCE])),
        )
        for at in starts
    ]
