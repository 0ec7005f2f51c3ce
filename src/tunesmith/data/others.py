"""For methods that measure how far a policy is from its reference: beside each row's answers one to another prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tunesmith.types import Segment, TokenRow


def with_others(rows: Sequence[TokenRow], seed: int, max_length: int) -> list[TokenRow]:
    """Each row with the first answer of another one as its last completion, which has the score NaN: nobody judged it.
    Whose it is is drawn by the seed; it is cut where prompt and answer do not fit."""
    order = np.random.default_rng((seed, 6)).permutation(len(rows))
    other = np.empty(len(rows), np.int64)
    other[order] = np.roll(order, 1)
    return [_with(row, rows[i], max_length) for row, i in zip(rows, other.tolist(), strict=True)]


def _with(row: TokenRow, other: TokenRow, max_length: int) -> TokenRow:
    room = max(1, max_length - len(row.segments[0].ids))
    ids = other.segments[1].ids[:room]
    leaf = Segment(ids, np.ones(len(ids), np.float32), 0)
    scores = np.append(row.given["scores"], np.nan)
    return replace(row, segments=(*row.segments, leaf), given={**row.given, "scores": scores})
