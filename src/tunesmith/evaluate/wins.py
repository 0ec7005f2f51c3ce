"""Which of two systems gets the higher rewards, prompt by prompt.

It stands here and not beside the rewards because intervals are `evaluate.stats`', and scoring imports nothing of
evaluate.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.errors import DataError
from tunesmith.evaluate.stats import DEFAULT, Floats, Interval, Settings, bootstrap, ratio_of_sums, wilson


@dataclass(frozen=True, slots=True)
class Wins:
    """win, tie, lose: shares of the pairs. rate: win + tie / 2 with its interval over prompts (rate.n of them)."""

    win: float
    tie: float
    lose: float
    rate: Interval
    num_pairs: int


def win_rate(
    start: Floats,
    tuned: Floats,
    prompts: Sequence[Hashable] | None = None,
    settings: Settings = DEFAULT,
    tie: float = 0.0,
) -> Wins:
    """start, tuned: (N,) rewards of the two systems' answers, pair by pair to the same prompt. prompts: (N,) which
    prompt; answers to one prompt are resampled together, since they are no independent rows. None: each has its own.
    tie: differences up to this are ties.

    Percentile bootstrap over prompts; where all prompts agree it would have no width, then Wilson's. Every pair counts
    alike, so prompts with more answers count more.
    """
    ids = list(range(len(start))) if prompts is None else list(prompts)
    if not len(start) == len(tuned) == len(ids):
        raise DataError(f"{len(start)} and {len(tuned)} rewards of {len(ids)} prompts", "as many of each")
    if not len(start):
        raise DataError("no rewards to compare", "at least one pair")
    difference = np.asarray(tuned, np.float64) - np.asarray(start, np.float64)
    if not np.isfinite(difference).all():
        row = int(np.flatnonzero(~np.isfinite(difference))[0])
        raise DataError(f"rewards of pair {row} are {start[row]} and {tuned[row]}", "finite numbers")
    won, lost = difference > tie, difference < -tie
    points = won + 0.5 * ~(won | lost)
    return Wins(
        win=float(won.mean()),
        tie=float((~(won | lost)).mean()),
        lose=float(lost.mean()),
        rate=_rate_interval(points, ids, settings),
        num_pairs=len(points),
    )


def _rate_interval(points: Floats, ids: Sequence[Hashable], settings: Settings) -> Interval:
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys(ids))}
    group = np.array([number[prompt] for prompt in ids])
    sums = np.stack([np.bincount(group, points), np.bincount(group) * 1.0], axis=1)  # (prompts, 2)
    rate, num = float(points.mean()), len(sums)
    if np.ptp(sums[:, 0] / sums[:, 1]) == 0:
        return Interval(rate, *wilson(rate * num, num, settings.confidence), num, "Wilson")
    return Interval(rate, *bootstrap(sums, ratio_of_sums, settings), num, "bootstrap over prompts")
