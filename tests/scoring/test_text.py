"""Row scores of free text against slow references that read like their definitions."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.scoring import text

TOKENS = st.lists(st.sampled_from("abcd"), max_size=9)


@given(TOKENS, TOKENS)
def test_lcs_is_the_longest_common_subsequence(a: list[str], b: list[str]) -> None:
    def is_subsequence(needle: tuple[str, ...]) -> bool:
        rest = iter(b)
        return all(token in rest for token in needle)

    longest = max(n for n in range(len(a) + 1) if any(map(is_subsequence, combinations(a, n))))
    assert text.lcs_length(a, b) == longest


def test_rouge_l_of_the_textbook_example() -> None:
    # Lin 2004, section 3.1: three of four words in order
    assert text.rouge_l("police killed the gunman", "police kill the gunman") == pytest.approx(0.75)
    assert text.rouge_l("police killed the gunman", "the gunman kill police") == pytest.approx(0.5)


def test_rouge_l_is_the_harmonic_mean_of_precision_and_recall() -> None:
    reference, prediction = "a b c d e", "A x C"
    precision, recall = 2 / 3, 2 / 5
    assert text.rouge_l(reference, prediction) == pytest.approx(2 * precision * recall / (precision + recall))


def test_token_f1_as_squad_counts_it() -> None:
    # articles and punctuation do not count: {cat, sat} against {cat, sat, down}
    assert text.token_f1("The cat sat.", "a cat sat down") == pytest.approx(2 * 2 / (2 + 3))
    # a word counts as often as both have it
    assert text.token_f1("no no yes", "no yes yes") == pytest.approx(2 / 3)


@pytest.mark.parametrize("measure", [text.token_f1, text.rouge_l])
def test_empty_against_empty_is_right_and_against_words_is_wrong(measure) -> None:  # type: ignore[no-untyped-def]
    assert measure("", " ") == 1
    assert measure("word", "") == 0
    assert measure("", "word") == 0


def test_chinese_characters_are_words() -> None:
    assert text.words("退款 to 你") == ["退", "款", "to", "你"]
    assert 0 < text.rouge_l("我要退款", "请退款") < 1


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Refund", ' "refund." ', True),
        ("wrong  charge", "wrong\ncharge", True),
        ("ﬁne", "fine", True),
        ("C", "C#", False),
        ("C++", "c++", True),
        (".5", "5", False),
        ("", "", True),
        ("refund", "refund please", False),
    ],
)
def test_normalise_keeps_what_tells_answers_apart(a: str, b: str, same: bool) -> None:
    assert text.exact_match(a, b) is same


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot do this",
        "I cannot assist with that request.",
        "As an AI language model, I think",
        "Unfortunately, I am unable to say.",
        "I'm not able to answer",
        "I don't have access to your account.",
    ],
)
def test_refusals(answer: str) -> None:
    assert text.is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry about the double charge; it is on its way back.",
        "I am sorry, I have refunded it.",
        "Hello, I can't see a second charge.",
        "wrong_charge",
        "",
    ],
)
def test_an_apology_is_not_a_refusal(answer: str) -> None:
    assert not text.is_refusal(answer)


def test_perplexity() -> None:
    assert text.perplexity(10 * math.log(7), 10) == pytest.approx(7)
    assert text.perplexity(1e6, 1) == math.inf
    assert math.isnan(text.perplexity(0, 0))
