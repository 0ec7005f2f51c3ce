"""Win rates: by hand, and their intervals against a bootstrap of a few lines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import DataError
from tunesmith.evaluate.stats import Settings, wilson
from tunesmith.evaluate.wins import win_rate


def test_shares_by_hand() -> None:
    found = win_rate(np.array([1.0, 2, 3, 4]), np.array([2.0, 2, 2, 9]))
    assert (found.win, found.tie, found.lose) == (0.5, 0.25, 0.25)
    assert found.rate.value == 0.625
    assert (found.num_pairs, found.rate.n) == (4, 4)
    assert found.rate.low <= 0.625 <= found.rate.high


def test_small_differences_can_be_ties() -> None:
    start, tuned = np.array([0.0, 0, 0, 0]), np.array([0.5, -0.5, 0.51, -2])
    found = win_rate(start, tuned, tie=0.5)
    assert (found.win, found.tie, found.lose) == (0.25, 0.5, 0.25)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=20))
def test_the_two_sides_mirror_each_other(pairs: list[tuple[int, int, int]]) -> None:
    start, tuned, prompts = (np.array(column, float) for column in zip(*pairs, strict=True))
    settings = Settings(resamples=50)
    there, back = (win_rate(a, b, list(prompts), settings) for a, b in ((start, tuned), (tuned, start)))
    assert (there.win, there.tie, there.lose) == (back.lose, back.tie, back.win)
    assert there.rate.value + back.rate.value == pytest.approx(1)
    assert there.win + there.tie + there.lose == pytest.approx(1)
    assert there.rate.n == len(set(prompts))


def test_answers_to_one_prompt_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    luck = rng.normal(0.2, 1, 40)  # of the prompt
    prompts = np.repeat(np.arange(40), rng.integers(1, 9, 40))
    gain = luck[prompts] + rng.normal(0, 0.1, len(prompts))
    found = win_rate(np.zeros(len(prompts)), gain, list(prompts), Settings(resamples=4000))

    groups = [np.flatnonzero(prompts == p) for p in range(40)]
    drawn = [np.concatenate([groups[i] for i in rng.integers(0, 40, 40)]) for _ in range(4000)]
    low, high = np.quantile([(gain[rows] > 0).mean() for rows in drawn], [0.025, 0.975])
    assert (found.rate.low, found.rate.high) == pytest.approx((low, high), abs=0.015)
    assert found.rate.value == pytest.approx((gain > 0).mean())
    alone = win_rate(np.zeros(len(prompts)), gain, None, Settings(resamples=4000)).rate
    assert found.rate.high - found.rate.low > 1.5 * (alone.high - alone.low)


def test_where_all_prompts_agree_the_interval_is_wilsons() -> None:
    found = win_rate(np.zeros(6), np.ones(6), ["a", "a", "b", "b", "c", "c"])
    assert found.rate.method == "Wilson"
    assert (found.rate.low, found.rate.high) == wilson(3, 3)
    assert found.rate.low < 0.5


def test_what_can_not_be_compared() -> None:
    with pytest.raises(DataError, match="2 and 3 rewards"):
        win_rate(np.zeros(2), np.zeros(3))
    with pytest.raises(DataError, match="of 1 prompts"):
        win_rate(np.zeros(2), np.zeros(2), ["a"])
    with pytest.raises(DataError, match="no rewards"):
        win_rate(np.zeros(0), np.zeros(0))
    with pytest.raises(DataError, match="rewards of pair 1 are"):
        win_rate(np.zeros(2), np.array([0.0, np.nan]))
