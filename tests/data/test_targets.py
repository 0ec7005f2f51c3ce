"""Names, numbers and spans as answers."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.config.run import DataConfig
from tunesmith.data.formats import detect, to_example, to_prompt
from tunesmith.data.inputs import input_mapping
from tunesmith.data.targets import names_answer, number_answer, spans_of, spans_of_tags, words_of
from tunesmith.errors import DataError, RowError
from tunesmith.types import Message, RowRef

REF = RowRef("rows.jsonl", 3)


def tagged(tags: list[str | None]) -> tuple[list[tuple[int, int, str]], int]:
    """Spans in words: the words are a, b, c …, so that word i begins at character 2i."""
    _, places = words_of([chr(97 + i) for i in range(len(tags))])
    spans, repaired = spans_of_tags(places, tags)
    return [(start // 2, (end + 1) // 2, label) for start, end, label in spans], repaired


@pytest.mark.parametrize(
    ("tags", "spans", "repaired"),
    [
        ("O O", [], 0),
        ("B-X I-X O B-X", [(0, 2, "X"), (3, 4, "X")], 0),
        ("B-X B-X", [(0, 1, "X"), (1, 2, "X")], 0),
        ("I-X I-X O I-Y", [(0, 2, "X"), (3, 4, "Y")], 2),
        ("B-X I-Y I-X", [(0, 1, "X"), (1, 2, "Y"), (2, 3, "X")], 2),
        ("B-X E-X S-X I-X", [(0, 2, "X"), (2, 3, "X"), (3, 4, "X")], 1),
        ("B-X I-X L-X U-Y", [(0, 3, "X"), (3, 4, "Y")], 0),
        ("X X O X Y", [(0, 2, "X"), (3, 4, "X"), (4, 5, "Y")], 0),
        ("E-mail O phone", [(0, 1, "E-mail"), (2, 3, "phone")], 0),
        ("B-a-b I-a-b", [(0, 2, "a-b")], 0),
    ],
)
def test_tags_become_spans(tags: str, spans: list[Any], repaired: int) -> None:
    assert tagged(tags.split()) == (spans, repaired)  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["", "PER", "LOC"])), max_size=8),
    st.text(min_size=1),
)
def test_bio_tags_say_their_spans_again(runs: list[tuple[int, str]], word: str) -> None:
    """Runs of words -> tags -> spans: each labelled run is one span, whose text is its words."""
    if not word.strip():
        return
    tags: list[str] = []
    expected = []
    for length, label in runs:
        if label:
            expected.append((len(tags), len(tags) + length, label))
        tags += [f"{'I' if i else 'B'}-{label}" if label else "O" for i in range(length)]
    if not tags:
        return
    text, places = words_of([word] * len(tags))
    spans, repaired = spans_of_tags(places, tags)
    assert repaired == 0
    assert [(text[a:b], label) for a, b, label in spans] == [
        (" ".join([word] * (end - start)), label) for start, end, label in expected
    ]
    assert spans_of(text, [list(span) for span in spans]) == spans


@pytest.mark.parametrize("tags", [["B-X", "Y"], ["O"], [1, 2], "BX", [["B-X"], "O"]])
def test_tags_that_are_none(tags: Any) -> None:
    with pytest.raises(RowError) as error:
        spans_of_tags(words_of(["a", "b"])[1], tags)
    assert error.value.reason == "bad_tags"


@pytest.mark.parametrize(
    "span",
    [
        [0, 0, "X"],
        [0, 6, "X"],
        [-1, 2, "X"],
        [2, 1, "X"],
        [0.0, 1, "X"],
        [True, 2, "X"],
        [0, 1],
        "x",
        {"start": 0},
    ],
)
def test_spans_that_are_none(span: Any) -> None:
    with pytest.raises(RowError) as error:
        spans_of("12345", [span])
    assert error.value.reason == "bad_spans"


def test_words_that_are_none() -> None:
    for value, reason in (
        (["a", 1], "bad_tokens"),
        ("a b", "bad_tokens"),
        ([" "], "empty_text"),
        ([], "empty_text"),
    ):
        with pytest.raises(RowError) as error:
            words_of(value)
        assert error.value.reason == reason
    assert words_of('["a", "", "b"]') == ("a  b", [(0, 1), (2, 2), (3, 4)])


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ([3], "3"),
        ([3.0], "3.0"),
        (["3"], "3"),
        ([" -2.50 "], "-2.5"),
        (["1e3"], "1000.0"),
        ([Decimal("0.1")], "0.1"),
        ([1, "2.5"], "[1, 2.5]"),
    ],
)
def test_numbers(values: list[Any], answer: str) -> None:
    assert number_answer([("n", value) for value in values]) == answer


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_loses_nothing_on_its_way(value: float) -> None:
    assert float(number_answer([("n", value)])) == float(number_answer([("n", repr(value))])) == value


@pytest.mark.parametrize("value", ["1_000", "1,5", "nan", "inf", "1e999", float("nan"), True, "x", [1], "٣"])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(RowError) as error:
        number_answer([("n", value)])
    assert (error.value.reason, error.value.field) == ("bad_number", "n")


def test_names() -> None:
    assert names_answer(["b", 2, "a ", "b"]) == '["2", "a", "b"]'
    assert names_answer("[]") == "[]"
    for value, reason in (
        ("a, b", "bad_labels"),
        ([1.5], "bad_label"),
        ([""], "empty_answer"),
        ([None], "not_a_string"),
    ):
        with pytest.raises(RowError) as error:
            names_answer(value)
        assert error.value.reason == reason


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1)))
def test_names_come_back(names: list[str]) -> None:
    assert json.loads(names_answer(names)) == sorted(set(names))


def test_which_column_is_the_number() -> None:
    with pytest.raises(DataError, match=r"may be score or rating"):
        detect([{"text": "T", "score": 1, "rating": 2}], DataConfig(format="number"), "f")
    with pytest.raises(DataError, match=r"is none of text, n.*\n.*\n.*data\.targets"):
        detect([{"text": "T", "n": 1}], DataConfig(format="number"), "f")
    mapping = detect([{"text": "T", "n": 1}], DataConfig(targets=["n"]), "f")
    assert mapping.describe() == "number rows: text = text, targets = n"


ASKED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"text": "T", "text_b": "P"}, {"label": "x"}, {}),
    ({"text": "T"}, {"labels": ["x"]}, {"format": "labels"}),
    ({"text": "T"}, {"score": 1}, {"format": "number"}),
    ({"tokens": ["a", "b"]}, {"tags": ["O", "B-X"]}, {}),
    ({"text": "T"}, {"spans": [[0, 1, "X"]]}, {"format": "tags"}),
]


@pytest.mark.parametrize("case", range(len(ASKED)))
@pytest.mark.parametrize("named", [False, True])
def test_a_row_is_asked_as_it_was_trained(case: int, named: bool) -> None:
    asked, answer, recipe = ASKED[case]
    mapping = detect([asked | answer], DataConfig.model_validate(recipe))
    expected = to_example(mapping, asked | answer, REF)
    trained = DataConfig(format=mapping.kind)
    found = input_mapping([asked], trained, "in", next(iter(asked)) if named else None)
    prompt = to_prompt(found, asked, REF)
    assert (prompt.messages, prompt.pair) == (expected.prompt, expected.pair)


def test_plain_text_can_be_asked_of_a_tagger_of_words() -> None:
    mapping = input_mapping([{"text": "a b"}], DataConfig(format="tags"), "in")
    assert to_prompt(mapping, {"text": "a b"}, REF).messages == (Message("user", "a b"),)
