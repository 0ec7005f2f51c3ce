"""Rows that contradict one another, and rows that belong together."""

from __future__ import annotations

from tunesmith.data.columns import Mapping
from tunesmith.desk.conflicts import alike
from tunesmith.desk.rows import Row, Shape
from tunesmith.types import RowRef

LABELLED = Shape(Mapping("label", {"text": "text", "label": "label"}))
ASKED = Shape(Mapping("prompt", {"prompt": "q", "completion": "a"}))
LONG = "my card was swallowed by the machine at the station on Friday evening and nobody answers the phone"


def rows(shape: Shape, *pairs: tuple[str, str]) -> list[Row]:
    one, other = shape.meaning.columns.values()
    return [
        Row(at, "train", RowRef("r", at + 1), {one: a, other: b}, shape) for at, (a, b) in enumerate(pairs)
    ]


def test_one_prompt_with_two_labels_contradicts_itself() -> None:
    found = alike(rows(LABELLED, ("Where is it?", "a"), ("where  is it?", "b"), ("Elsewhere", "a")), None)
    assert found.conflicts == {0: {1: 1.0}, 1: {0: 1.0}}
    assert found.groups.tolist() == [0, 0, 2]


def test_equal_rows_belong_together_and_contradict_nothing() -> None:
    found = alike(rows(LABELLED, ("Where is it?", "a"), ("Where is it?", "a")), 0.8)
    assert found.conflicts == {}
    assert found.groups.tolist() == [0, 0]


def test_nearly_one_prompt_counts_where_it_is_asked_for() -> None:
    pairs = rows(LABELLED, (LONG, "a"), (LONG + "!", "b"))
    found = alike(pairs, 0.8)
    assert list(found.conflicts) == [0, 1]
    assert 0.8 <= found.conflicts[0][1] < 1
    assert alike(pairs, None).conflicts == {}


def test_answers_that_differ_contradict_one_another() -> None:
    found = alike(rows(ASKED, ("2 + 2?", "4"), ("2 + 2?", "5"), ("2 + 2?", " 4 ")), None)
    assert found.conflicts == {0: {1: 1.0}, 1: {0: 1.0, 2: 1.0}, 2: {1: 1.0}}
