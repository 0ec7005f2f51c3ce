"""Where micro-batches come from. A source is a pure function of the step, so that a resume needs no more than it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.run import TrainConfig
from tunesmith.core.batch import Batch, num_shared
from tunesmith.data.pack import pack
from tunesmith.types import TokenRow


def rows_taken(train: TrainConfig, num_rows: int) -> int:
    """Rows that a whole run takes of a data set of `num_rows`, repeats counted. `train` must be resolved."""
    assert train.batch_size is not None
    if train.max_steps is not None:
        return train.max_steps * train.batch_size
    assert train.epochs is not None
    return max(1, round(train.epochs * num_rows))


def divided(
    rows: Sequence[TokenRow], budget: int, *, padded: bool, share: bool = True
) -> list[list[TokenRow]]:
    """The rows of each micro-batch, which computes at most `budget` tokens: what all rows begin with counts once. (Up
    to a ninth more where a micro-batch of the longest rows has too little of it to share, `core.batch.MIN_SHARED`.)
    share: see `Batch.from_rows`."""
    shared = num_shared(rows) if share and not padded else 0
    bins = pack([row.num_tokens for row in rows], budget, padded=padded, shared=shared)
    return [[rows[i] for i in bin_] for bin_ in bins]


@dataclass
class StaticSource:
    """Rows of a data set, in an order drawn anew for each epoch from (seed, epoch), or as they are given.

    The rows form one endless stream of epochs; step s takes rows s * batch_size up to (s + 1) * batch_size,
    and the last step takes what is left of `num_rows`, the rows that a whole run takes, repeats counted.
    share: see `Batch.from_rows`.
    """

    rows: Sequence[TokenRow]
    batch_size: int
    num_rows: int
    seed: int
    padded: bool
    shuffled: bool = True
    share: bool = True
    _orders: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def total_steps(self) -> int:
        return math.ceil(self.num_rows / self.batch_size)

    def epoch(self, step: int) -> float:
        """Passes over the rows before a step."""
        return step * self.batch_size / len(self.rows)

    def indices(self, step: int) -> list[int]:
        """The rows of a step, as indices into `rows`."""
        start = step * self.batch_size
        return [self._row(i) for i in range(start, min(start + self.batch_size, self.num_rows))]

    def micro_batches(self, step: int, budget: int) -> list[Batch]:
        rows = [self.rows[i] for i in self.indices(step)]
        bins = divided(rows, budget, padded=self.padded, share=self.share)
        return [Batch.from_rows(bin_, share=self.share) for bin_ in bins]

    def sums(self, of_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(steps,) sums over the rows of each step. of_rows: (R,)."""
        found = np.zeros(self.total_steps, np.int64)
        for begin in range(0, self.num_rows, len(self.rows)):
            order = self._order(begin // len(self.rows))[: self.num_rows - begin]
            np.add.at(found, (begin + np.arange(len(order))) // self.batch_size, of_rows[order])
        return found

    def _row(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.rows))
        return int(self._order(epoch)[offset]) if self.shuffled else offset

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffled:
            return np.arange(len(self.rows))
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))
        return self._orders[epoch]


class Ahead:
    """A source whose next batches are made while a GPU computes on these, which leaves this processor free."""

    def __init__(self, source: StaticSource) -> None:
        self.source = source
        self._pool = ThreadPoolExecutor(1, "tunesmith-batches")
        self._next: tuple[int, int, Future[list[Batch]]] | None = None

    @property
    def total_steps(self) -> int:
        return self.source.total_steps

    def epoch(self, step: int) -> float:
        return self.source.epoch(step)

    def micro_batches(self, step: int, budget: int) -> list[Batch]:
        expected, self._next = self._next, None
        if expected is not None and expected[:2] == (step, budget):
            found = expected[2].result()
        else:
            found = self.source.micro_batches(step, budget)
        if step + 1 < self.total_steps:
            following = self._pool.submit(self.source.micro_batches, step + 1, budget)
            self._next = (step + 1, budget, following)
        return found
