"""Which rows are computed together: bins under a token budget, rows whole."""

from __future__ import annotations

from collections.abc import Sequence


def pack(lengths: Sequence[int], budget: int, *, padded: bool, shared: int = 0) -> list[list[int]]:
    """Bins of indices into `lengths`, each of at most `budget` tokens (with padding when padded). shared: tokens that
    all rows begin with and each bin counts once.

    Rows are taken by length, longest first, so that a bin holds rows of similar length: little padding, few
    attention groups. A row longer than the budget goes alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    bins: list[list[int]] = []
    used = 0
    for index in order:
        cost = (lengths[bins[-1][0]] if bins and padded else lengths[index]) - shared
        if not bins or used + cost > budget:
            bins.append([])
            used, cost = 0, lengths[index]
        bins[-1].append(index)
        used += cost
    return bins
