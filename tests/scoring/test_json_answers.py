"""JSON answers: what counts as JSON, as the same value, as a right field."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.scoring import json_answers as answers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (' \n{"a": 1}\n', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("{}", {}),
        ('{"a": 1} and more', None),
        ('Here: {"a": 1}', None),
        ("[1]", None),
        ('{"a": NaN}', None),
        ('{"a": 1', None),
        ("", None),
        ("[" * 100_000, None),
        ('{"a":' * 90 + "1" + "}" * 90, ...),
        ('{"a":' * 500 + "1" + "}" * 500, None),
        ('{"a": ' + "9" * 5000 + "}", None),
    ],
)
def test_what_is_a_json_object(text: str, value: object) -> None:
    found = answers.parse_object(text)
    assert found is not None if value is ... else found == value


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (False, 0, False),
        ("1", 1, False),
        (" x ", "x", True),
        ("X", "x", False),
        (None, None, True),
        (None, False, False),
        ([1, 2], [2, 1], False),
        ({"a": 1, "b": [True]}, {"b": [True], "a": 1.0}, True),
        ({"a": [1]}, {"a": [True]}, False),
    ],
)
def test_equality_of_values(a: object, b: object, same: bool) -> None:
    assert answers.same_value(a, b) is same
    assert (answers.canonical(a) == answers.canonical(b)) is same


def test_a_field_counts_only_where_the_reference_has_it() -> None:
    rows = answers.field_rows([{"a": 1}, {"a": 1, "b": 2}, {"b": 2}], [{"a": 1}, {"a": 2, "b": 2}, None])
    np.testing.assert_array_equal(rows["a"], [1, 0, np.nan])
    np.testing.assert_array_equal(rows["b"], [np.nan, 1, 0])


def test_categorical_fields() -> None:
    assert answers.categories(["x", "y", "x"]) == ('"x"', '"y"')
    assert answers.categories([True, False, 1]) == ("1", "false", "true")
    assert answers.categories([1.5, 2.5]) is None
    assert answers.categories([["x"]]) is None
    assert answers.categories(list(range(50))) is not None
    assert answers.categories(list(range(51))) is None


def test_an_identifier_or_a_constant_is_no_class() -> None:
    references = [{"id": f"t{i}", "kind": "x", "urgent": bool(i % 2)} for i in range(4)]
    assert list(answers.field_codes(references, references)) == ["urgent"]


def test_class_numbers_of_a_field_mark_missing_and_unknown_values_as_invalid() -> None:
    references = [{"k": "a"}, {"k": "b"}, {"k": "a"}, {"other": 1}]
    codes = answers.field_codes(references, [{"k": "b"}, {"k": "new"}, None, {}])["k"]
    assert codes.reference.tolist() == [0, 1, 0]
    assert codes.predicted.tolist() == [1, 2, 2]
    assert codes.rows.tolist() == [0, 1, 2]
