"""What methods that compare completions read: of each, what people said, and its log-probability or reward.

Shapes: M loss positions, C completions of R rows, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tunesmith.config.judged import Judged
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model

REFERENCE = "reference"
"""Of `TokenRow.given`: (K,) the log-probabilities of its completions under the model as the run started, in nats."""
SCORES, MARGIN = "scores", "margin"


@dataclass(frozen=True)
class Scored:
    """rewards (C,): what the model thinks of each. scores, row (C,): what people said, and the row that it belongs to.
    margins (R,), where rows have them."""

    rewards: Tensor
    scores: Tensor
    row: Tensor
    margins: Tensor | None

    @property
    def num_rows(self) -> int:
        return int(self.row[-1]) + 1

    @property
    def together(self) -> Tensor:
        """(C, C) bool: of one row."""
        return self.row[:, None] == self.row[None, :]

    @property
    def below(self) -> Tensor:
        """(C, C) bool: the column is of the same row and was found worse."""
        return self.together & (self.scores[:, None] > self.scores[None, :])

    @property
    def best(self) -> Tensor:
        """(C,) bool: none of its row is better."""
        return ~self.below.any(0)

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """(P,) the better and (P,) the worse completion of each pair of unequal scores, and (P,) 1 / pairs of its
        row."""
        better, worse = torch.nonzero(self.below, as_tuple=True)
        row = self.row[better]
        return better, worse, 1.0 / torch.bincount(row)[row].to(self.rewards.dtype)

    def by_row(self, values: Tensor, row: Tensor) -> Tensor:
        """(N,) values of these rows -> (R,) their sums."""
        return values.new_zeros(self.num_rows).index_add(0, row, values)

    def accuracy(self) -> Tensor:
        """(R,) the share of a row's pairs that the rewards put the right way round, ties half."""
        better, worse, share = self.pairs()
        gap = self.rewards.detach()[better] - self.rewards.detach()[worse]
        return self.by_row(share * ((gap > 0).to(gap.dtype) + 0.5 * (gap == 0)), self.row[better])


@dataclass(frozen=True)
class Compared(Scored):
    """Of a language model: sums (C,) of log-probabilities in nats and lengths (C,) in tokens; logps (C,), the sums, or
    means where the method is length-normalised; rewards are beta times what logps gained on the reference. likely (C,):
    see `preference.own_likelihood`, where the method weights by it."""

    sums: Tensor
    lengths: Tensor
    logps: Tensor
    likely: Tensor | None = None

    def sft(self) -> Tensor:
        """() the negative log-likelihood of the best completions, summed over their tokens."""
        return -self.sums[self.best].sum()


def scored(rewards: Tensor, batch: Batch) -> Scored:
    """rewards (C,): of a model that scores answers, or steps."""
    return Scored(
        rewards, batch.given(SCORES).to(rewards.dtype), rows_of(batch), margins_of(batch, rewards.dtype)
    )


@runtime_checkable
class Scoring(Protocol):
    """An objective on completions' scores, beside what the loop asks of it."""

    def row_losses(self, found: Scored) -> Tensor:
        """(R,)"""
        ...

    def row_counts(self, found: Scored) -> Tensor:
        """(R,) what each row's loss is a sum over."""
        ...


@runtime_checkable
class Comparing(Protocol):
    """An objective on completions' log-probabilities, beside what the loop asks of it."""

    def settle(self, found: Sequence[Compared]) -> None:
        """What a row's loss takes from other rows is from now on taken from these."""
        ...

    def row_losses(self, found: Compared) -> Tensor:
        """(R,)"""
        ...


def compared(model: Model, batch: Batch, method: Judged) -> Compared:
    """`method` must be resolved; rows carry their reference where it has one."""
    losses = model.token_losses(batch)
    return compare(batch, completion_logps(losses, batch), method)


def compare(batch: Batch, sums: Tensor, method: Judged, likely: Tensor | None = None) -> Compared:
    """sums (C,): of the policy."""
    assert method.beta is not None
    lengths = lengths_of(batch)
    per = lengths if method.length_normalised else torch.ones_like(lengths)
    gained = logps = sums / per
    if method.reference == "start":
        gained = logps - batch.given(REFERENCE).to(sums.dtype) / per
    return Compared(
        rewards=method.beta * gained,
        scores=batch.given(SCORES).to(sums.dtype),
        row=rows_of(batch),
        margins=margins_of(batch, sums.dtype),
        sums=sums,
        lengths=lengths,
        logps=logps,
        likely=likely,
    )


def completion_logps(losses: Tensor, batch: Batch) -> Tensor:
    """(M,) -> (C,) the sum over each completion's tokens."""
    return losses.new_zeros(len(batch.completions)).index_add(0, batch.completion_of, -losses)


def lengths_of(batch: Batch) -> Tensor:
    """(C,) supervised tokens of each completion."""
    return torch.bincount(batch.completion_of, minlength=len(batch.completions)).float()


def rows_of(batch: Batch) -> Tensor:
    """(C,) the row of each completion."""
    return torch.arange(batch.num_rows).repeat_interleave(torch.tensor(batch.completions_of_rows))


def margins_of(batch: Batch, dtype: torch.dtype) -> Tensor | None:
    """(R,), of rows that say none 0; None where no row says one."""
    found = [row.given.get(MARGIN) for row in batch.rows]
    if all(margin is None for margin in found):
        return None
    return torch.tensor([0.0 if margin is None else float(margin[0]) for margin in found], dtype=dtype)


def best_tokens(batch: Batch) -> Tensor:
    """() the tokens of completions than which none of their row is better."""
    scores, row, lengths = batch.given(SCORES), rows_of(batch), lengths_of(batch)
    worse = (row[:, None] == row[None, :]) & (scores[:, None] > scores[None, :])
    return lengths[~worse.any(0)].sum()
