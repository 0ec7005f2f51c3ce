"""Beside each judged answer one to another prompt, which measures how far a policy is from its reference."""

from __future__ import annotations

import numpy as np
import pytest

from tests import fakes
from tunesmith.data.others import with_others


@pytest.mark.parametrize("seed", range(5))
def test_every_row_has_the_first_answer_of_another_row_and_each_lends_its_own_once(seed: int) -> None:
    rows = [fakes.judged_row([3, 4], [[10 + i, 11 + i], [60]], [1.0, 0.0], i) for i in range(6)]
    made = with_others(rows, seed, max_length=100)
    lent = []
    for index, (row, before) in enumerate(zip(made, rows, strict=True)):
        assert len(row.segments) == 4
        assert row.segments[3].parent == 0
        assert (row.segments[3].weights == 1).all()
        assert np.isnan(row.given["scores"][2])
        assert row.given["scores"][:2].tolist() == before.given["scores"].tolist()
        lent.append(int(row.segments[3].ids[0]) - 10)
        assert row.segments[3].ids.tolist() == rows[lent[-1]].segments[1].ids.tolist()
        assert lent[-1] != index
    assert sorted(lent) == list(range(6))
    again = with_others(rows, seed, max_length=100)
    assert [row.segments[3].ids[0] for row in again] == [row.segments[3].ids[0] for row in made]


def test_it_is_cut_where_prompt_and_answer_do_not_fit() -> None:
    rows = [fakes.judged_row([3] * 4, [[5, 6, 7, 8]], [1.0]), fakes.judged_row([3], [[9, 9]], [0.0], 1)]
    made = with_others(rows, 0, max_length=6)
    assert [row.segments[2].ids.tolist() for row in made] == [[9, 9], [5, 6, 7, 8]]
    made = with_others(rows, 0, max_length=4)
    assert [row.segments[2].ids.tolist() for row in made] == [[9], [5, 6, 7]]
