"""Checks of answers, on what models write."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.scoring.rewards.checks import (
    contains,
    exact,
    is_json,
    last_number,
    same_json,
    same_number,
    stated,
    stated_choice,
)


def value(text: str) -> Fraction | None:
    found = last_number(text)
    return None if found is None else found.value


# -- numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 + 4 = 7 apples.", 7),
        ("He pays 2 * $9 = $<<2*9=18>>18.\n#### 18", 18),
        ("#### 1,234,567", 1234567),
        ("####-5", -5),
        ("#### 5\n\nQuestion: what is 6 + 7?", 5),  # it went on talking
        ("First #### 3, no: #### 4", 4),
        ("The answer is 12.", 12),
        ("Answer: 12 (I checked it)", 12),
        ("**Answer:** 12\nThat took 3 steps.", 12),
        ("**Answer**: 12", 12),
        ("answer:\n\n  12\n13", 12),
        ("Final ANSWER IS: 0.5", Fraction(1, 2)),
        (r"so \boxed{42} after 3 steps", 42),
        (r"\boxed{-\frac{3}{4}} of 8", Fraction(-3, 4)),
        (r"1\frac{1}{2}", Fraction(3, 2)),
        (r"1{,}234", 1234),
        ("3/4", Fraction(3, 4)),
        ("2 1/2 hours", Fraction(5, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        ("1.5e3", 1500),
        ("1e-2", Fraction(1, 100)),
        (".5", Fraction(1, 2)),
        ("-.5", Fraction(-1, 2)),
        ("so it is...5", 5),
        ("5.", 5),
        ("0042", 42),
        ("-$1,200.50", Fraction(-2401, 2)),
        ("$-3", -3),
        ("€5", 5),
        ("\u22127 degrees", -7),
        ("x=-7", -7),
        ("(-7)", -7),
        ("10-7", 7),
        ("10--7", 7),
        ("10 - 7", 7),
        ("pages 3\u20137", 7),
        ("- 7 apples", 7),
        ("5km", 5),
        ("__5__", 5),
        ("1\u202f234", 1234),
        ("1 234", 234),
        ("1,2,3", 3),
        ("12,34", 34),
        ("答案是42个", 42),
        ("\u0663", 3),  # Arabic-Indic
        ("12 of H2O in v1.2.3", 12),
        ("50%", 50),
        ("#### 3\n#### ", None),
        ("Answer: none\nwith 3 reasons", None),
        ("no number", None),
        ("", None),
        ("1/0", None),
        ("0/0", None),
        ("NaN or infinity", None),
        ("1e999999999999", None),
        ("1/1e-101", None),
        ("9" * 61, None),
    ],
)
def test_the_last_number_that_is_stated(text: str, number: Fraction | int | None) -> None:
    assert value(text) == number


@pytest.mark.parametrize(
    ("wanted", "answer", "right"),
    [
        ("#### 18", "That makes 18 dollars.", True),
        ("#### 18", "18 or 19", False),
        ("1,000", "1000.0", True),
        ("1/3", "0.333333", True),
        ("1/3", "0.3333", False),
        ("50", "50 %", True),
        ("0.5", "50\\%", True),
        ("50%", "0.5", True),
        ("50%", "50 percent", True),
        ("50%", "0.5%", False),
        ("5", "50%", False),
        ("9007199254740993", "9007199254740992", False),  # the same as floats
        ("1000001", "1000002", False),
        ("3", "three", False),
        ("-4", "4", False),
    ],
)
def test_the_number_is_the_references(wanted: str, answer: str, right: bool) -> None:
    number = last_number(wanted)
    assert number is not None
    assert same_number(number, answer, 1e-6) is right


def test_a_tolerance_holds_on_both_sides() -> None:
    ten = last_number("10")
    assert ten is not None
    found = [same_number(ten, text, 0.5) for text in ("9.4", "9.5", "10", "10.5", "10.6")]
    assert found == [False, True, True, True, False]


@given(st.integers(-(10**15), 10**15), st.integers(0, 6))
def test_every_way_of_writing_a_number_is_read(whole: int, decimals: int) -> None:
    number = Fraction(whole, 10**decimals)
    grouped = f"{abs(whole) // 10**decimals:,}"
    rest = f".{abs(whole) % 10**decimals:0{decimals}d}" if decimals else ""
    text = f"{'-' if whole < 0 else ''}{grouped}{rest}"
    assert value(f"It was 3, #### {text}") == number
    assert value(text.replace(",", "")) == number
    assert value(f"{number.numerator}/{number.denominator}") == number


@given(st.text(alphabet="0123456789.,/%-+eE$# aA:\n\\{}()\u2212\u00a0", max_size=60) | st.text())
def test_no_text_breaks_a_check(text: str) -> None:
    last_number(text), stated(text), stated_choice(text)
    contains("1", text), exact("a", text), is_json(text, ["a"]), same_json({}, text)
    assert exact(text, text)
    assert contains(text, text) == bool(text.split())


@pytest.mark.parametrize(
    "text", ["1" * 100_000, "1," * 50_000, "1 1/" * 25_000, "#" * 100_000, "(" * 100_000, "answer " * 20_000]
)
def test_long_texts_are_read_in_no_time(text: str) -> None:
    start = time.process_time()
    last_number(text), stated_choice(text), contains("x" + text, text), is_json(text)
    assert time.process_time() - start < 1


# -- texts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "answer", "right"),
    [
        ("Paris", "  PARIS\n", True),
        ("Straße", "STRASSE", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("New  York", "new york", True),
        ("Paris", "Paris.", False),
        ("x²", "x2", False),
        ("", " ", True),
    ],
)
def test_exact(wanted: str, answer: str, right: bool) -> None:
    assert exact(wanted, answer) is right


@pytest.mark.parametrize(
    ("wanted", "answer", "right"),
    [
        ("Paris", "It is paris, of course.", True),
        ("Paris", "comparison", False),
        ("Paris", "Parisian or Paris", True),  # the second place will do
        ("12", "112", False),
        ("12", "12.5", False),
        ("5", "12.5", False),
        ("000", "1,000", False),
        ("12", "It is 12.", True),
        ("12", "a12", False),
        ("C", "C++", True),
        ("C++", "I like C.", False),
        ("北京", "答案是北京市", True),
        ("서울", "서울은", True),
        ("new york", "New\nYork", True),
        ("", "anything", False),
    ],
)
def test_contains(wanted: str, answer: str, right: bool) -> None:
    assert contains(wanted, answer) is right


# -- JSON ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "keys", "right"),
    [
        ('{"a": 1}', [], True),
        ("[]", [], True),
        ("```json\n{}\n```", [], True),
        ("42", [], False),
        ("null", [], False),
        ('{"a": NaN}', [], False),
        ('Here: {"a": 1}', [], False),
        ('{"a": 1', [], False),
        ("[" * 5000, [], False),
        ('{"a": null, "b": 2}', ["a", "b"], True),
        ('{"a": 1}', ["a", "b"], False),
        ('["a"]', ["a"], False),
    ],
)
def test_json(answer: str, keys: list[str], right: bool) -> None:
    assert is_json(answer, keys) is right


@pytest.mark.parametrize(
    ("wanted", "answer", "right"),
    [
        ({"a": 1, "b": [1]}, '{"b": [1.0], "a": 1}', True),
        ({"a": 1}, '{"a": true}', False),
        ({"a": 1}, '{"a": 1, "b": 2}', False),
        ({"a": 1}, "a: 1", False),
        ([], "[]", True),
    ],
)
def test_json_equal(wanted: object, answer: str, right: bool) -> None:
    assert same_json(wanted, answer) is right


# -- choices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        (" (c) ", "C"),
        ("c.", "C"),
        ("C. Paris", "C"),
        ("C) Paris", "C"),
        ("**B**", "B"),
        ("B\nBecause it is so.", "B"),
        ("The answer is (D).", "D"),
        ("Answer: B", "B"),
        ("Answer: b", "B"),
        ("answer is: option B.", "B"),
        ("A is wrong, so\n**Answer:** E", "E"),
        ("Answer: A\nno wait\nAnswer: B", "B"),
        ("Answer: B Paris", "B"),
        (r"so \boxed{\text{D}} it is", "D"),
        ("#### A", "A"),
        ("A cat sat on it", None),
        ("Answer: a cat", None),
        ("Answer: A cat", None),
        ("Answer: A or B", None),
        ("Answer: A, B", None),
        ("A/B", None),
        ("Answer: F", None),
        ("Answer: Both", None),
        ("Answer:", None),
        ("Because of B", None),
        ("C is fine but D is better", None),
        ("D'accord", None),
        ("", None),
    ],
)
def test_the_choice_that_is_stated(text: str, letter: str | None) -> None:
    assert stated_choice(text) == letter
