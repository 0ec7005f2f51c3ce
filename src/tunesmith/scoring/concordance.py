"""How often two numbers of N rows order a pair of rows the same way, row by row; O(N log N).

Shapes: N rows, U distinct rows, B samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.scoring.pooled import Array, Columns, Floats


@dataclass(frozen=True, slots=True)
class Concordance:
    """agreeing: (N,) for each row how many others of an unequal reference `scores` puts on the same side of it as the
    reference does; equal scores count half. pairs: (N,) how many such others there are."""

    agreeing: Floats
    pairs: Floats

    def by_row(self) -> Floats:
        """(N,) share of each row's pairs; NaN for a row that has none."""
        out = np.full(len(self.pairs), np.nan)
        np.divide(self.agreeing, self.pairs, out=out, where=self.pairs > 0)
        return out

    def pooled(self) -> Columns:
        """The share over all pairs of rows; of 0 and 1 that is AUROC.

        A row that a sample draws twice takes part in every other row's count too, which a mean of `by_row` over the
        sample leaves out: its intervals are half as wide as they should be. The columns are Hoeffding's projection of
        the pairs onto rows (1948), 2 x - mean(x), which has the same sum as x and both effects to first order, so that
        a sample costs one pass over its rows in place of a new count of all pairs.
        """
        return Columns(_projected(self.pairs), _projected(self.agreeing), _share)


def concordance(reference: Floats, scores: Floats, valid: NDArray[np.bool_] | None = None) -> Concordance:
    """Both (N,). valid: the rows that have a score; a pair with one that has none is not put the right way round."""
    valid = np.ones(len(reference), bool) if valid is None else valid
    agreeing = np.zeros(len(reference))
    agreeing[valid] = _agreeing(reference[valid], scores[valid])
    return Concordance(agreeing, (len(reference) - _equal(_codes(reference))).astype(np.float64))


def _agreeing(reference: Floats, scores: Floats) -> Floats:
    a, b = _codes(reference), _codes(scores)
    tied = _equal(b) - _equal(a * (len(b) + 1) + b)
    return np.asarray(_below(a, b) + _below(-a, -b) + tied / 2)


def _below(first: NDArray[np.int64], second: NDArray[np.int64]) -> Floats:
    """(N,) how many rows are less than each row in both."""
    order = np.lexsort(
        (-second, first)
    )  # rows of equal `first` do not count for one another: greater ones come first
    out = np.empty(len(first))
    out[order] = _less_before(_codes(second[order]))
    return out


def _less_before(ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) how many of the ranks before each are less than it: merge sort from below, one level at a time.

    At each level the ranks of a right half are compared with those of the left half beside it.
    """
    n = len(ranks)
    at = np.arange(n)
    found = np.zeros(n, np.int64)
    size = 1
    while size < n:
        block, is_left = at // (2 * size), at // size % 2 == 0
        order = np.argsort((block * (n + 1) + ranks) * 2 + is_left, kind="stable")
        left = is_left[order]
        passed = np.cumsum(left)
        right = order[~left]
        found[right] += (
            passed[~left] - block[right] * size
        )  # the left halves of the blocks before are all full
        size *= 2
    return found


def _codes(values: Array) -> NDArray[np.int64]:
    """(N,) 0 for the least, and so on; equal values have equal codes."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _equal(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) how many are equal to each, itself included."""
    of, counts = np.unique(codes, return_inverse=True, return_counts=True)[1:]
    return np.asarray(counts[of])


def _projected(values: Floats) -> Floats:
    return np.asarray(2 * values - values.mean())


def _share(reference: Array, predicted: Array, weights: Floats) -> Floats:
    """(B,); NaN where the rows of a sample all have the same reference."""
    pairs, agreeing = weights @ reference[:, 0], weights @ predicted[:, 0]
    out: Floats = np.divide(agreeing, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
    return out
