"""Packing: every row once, whole, and within the budget."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.pack import pack

LENGTHS = st.lists(st.integers(1, 200), max_size=60)


def cost(lengths, bin_, padded):
    """Tokens that a bin computes: with padding, each of its rows is as long as its longest."""
    own = [lengths[i] for i in bin_]
    return max(own) * len(own) if padded else sum(own)


@settings(max_examples=300, deadline=None)
@given(LENGTHS, st.integers(1, 400), st.booleans())
def test_every_row_is_in_one_bin_and_a_bin_keeps_the_budget(lengths, budget, padded):
    bins = pack(lengths, budget, padded=padded)
    assert sorted(i for bin_ in bins for i in bin_) == list(range(len(lengths)))
    for bin_ in bins:
        assert bin_
        assert cost(lengths, bin_, padded) <= budget or len(bin_) == 1


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(1, 400), st.booleans())
def test_a_bin_is_closed_only_where_the_next_row_does_not_fit(lengths, budget, padded):
    bins = pack(lengths, budget, padded=padded)
    for bin_, after in itertools.pairwise(bins):
        assert cost(lengths, [*bin_, after[0]], padded) > budget


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(1, 400), st.booleans())
def test_rows_come_longest_first_and_equal_ones_in_order(lengths, budget, padded):
    order = [i for bin_ in pack(lengths, budget, padded=padded) for i in bin_]
    assert order == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(1, 400), st.integers(0, 200))
def test_what_all_rows_begin_with_counts_once_in_a_bin(own, budget, shared):
    lengths = [shared + more for more in own]
    bins = pack(lengths, budget, padded=False, shared=shared)
    costs = [shared + cost(own, bin_, False) for bin_ in bins]
    assert all(found <= budget or len(bin_) == 1 for found, bin_ in zip(costs, bins, strict=True))
    for found, after in zip(costs, bins[1:], strict=False):
        assert found + own[after[0]] > budget


def test_by_hand():
    assert pack([], 10, padded=False) == []
    assert pack([3, 9, 4, 2], 10, padded=False) == [[1], [2, 0, 3]]
    assert pack([3, 9, 4, 2], 10, padded=True) == [[1], [2, 0], [3]]
    assert pack([30, 1], 10, padded=False) == [[0], [1]]
    assert pack([9, 8, 8, 7], 11, padded=False, shared=6) == [[0, 1], [2, 3]]
