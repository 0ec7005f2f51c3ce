"""Rows as flat arrays and back: the same bits, by number, by slice and in a row."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.test_backend import same
from tunesmith.data.flat import FlatExamples, FlatRows, Unkept, flat_examples, flat_rows, sizes
from tunesmith.types import Completion, Example, Message, RowRef, Segment, TokenRow

RNG = np.random.default_rng(0)
FILES = {"a": 0, "b": 1}


def tree(line: int) -> TokenRow:
    lengths = RNG.integers(1, 9, RNG.integers(1, 4))
    segments = [
        Segment(RNG.integers(0, 200_000, n), RNG.choice([0.0, 0.1, 1.0], n).astype(np.float32), index - 1)
        for index, n in enumerate(lengths)
    ]
    target = None if line % 3 else RNG.integers(-101, 9, 2)
    given = {"scores": RNG.normal(size=line % 4)} if line % 2 else {}
    given |= {"margin": RNG.normal(size=1)} if line % 3 else {}
    return TokenRow(
        RowRef("ab"[line % 2], line),
        tuple(segments),
        target,
        line if line % 5 else None,
        line % 7 == 0,
        given,
    )


def test_rows_come_back_as_they_were() -> None:
    rows = [tree(line) for line in range(40)]
    flat = FlatRows(flat_rows(rows, FILES), list(FILES))
    same(list(flat), rows)
    same(flat[3:9:2], rows[3:9:2])
    same(flat[-1], rows[-1])
    with pytest.raises(IndexError):
        flat[40]
    for ours, theirs in zip(sizes(flat), sizes(rows), strict=True):
        assert ours.tolist() == theirs.tolist()
    assert sizes(rows)[0].tolist() == [sum(len(s.ids) for s in row.segments) for row in rows]
    assert sizes(rows)[1].tolist() == [sum(int((s.weights > 0).sum()) for s in row.segments) for row in rows]
    assert flat[0].segments[0].ids.flags.writeable  # what is mapped is not, and torch warns of it


def test_no_rows_come_back_too() -> None:
    assert list(FlatRows(flat_rows([], {}), [])) == []
    assert list(FlatExamples(flat_examples([], {}), [])) == []


def test_examples_come_back_as_they_were() -> None:
    calls = {"tool_calls": [{"a": [1, 2.5, None]}]}
    turns = (Message("user", "é\ud800\n", None), Message("assistant", "x", 0.1, calls))
    examples = [
        Example(RowRef("a", 1), turns, ({"name": "t", "deep": {"b": True}},), "l", None, "p", ("n", "m")),
        Example(RowRef("b", 7), text="only text"),
        Example(
            RowRef("a", 2),
            turns,
            completions=(Completion(turns[1], 0.1), Completion(Message("assistant", "y"), -3.0)),
            margin=0.3,
        ),
    ]
    assert list(FlatExamples(flat_examples(examples, FILES), list(FILES))) == examples


@pytest.mark.parametrize("value", [(1, 2), {3: "a number as a key"}, b"bytes"])
def test_what_json_would_change_is_not_kept(value: object) -> None:
    turn = Message("user", "a", None, {"when": value})
    with pytest.raises(Unkept, match="a:1"):
        flat_examples([Example(RowRef("a", 1), (turn,))], FILES)


def test_what_json_would_change_in_a_completion_is_not_kept() -> None:
    answer = Completion(Message("assistant", "a", None, {"when": (1, 2)}), 1.0)
    with pytest.raises(Unkept, match="a:1"):
        flat_examples([Example(RowRef("a", 1), completions=(answer,))], FILES)


def test_numbers_of_several_types_are_not_kept() -> None:
    one = TokenRow(RowRef("a", 1), tree(1).segments, given={"scores": np.zeros(1, np.float32)})
    with pytest.raises(Unkept, match="scores"):
        flat_rows([tree(1), one], FILES)


def test_targets_of_several_types_are_not_kept() -> None:
    rows = [tree(0), TokenRow(RowRef("a", 1), tree(1).segments, np.zeros(1, np.float32))]
    with pytest.raises(Unkept):
        flat_rows(rows, FILES)
