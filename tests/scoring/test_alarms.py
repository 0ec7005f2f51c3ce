"""What sampled answers look like, and when that is alarming."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.scoring.alarms import Looks, alarms, distinct, identical, kl_spike, looks, repeated

START = Looks(100, tokens=88, repeated=0.02, distinct=0.8, identical=0.1, at_limit=0.0, empty=0.0)


def test_looks_of_a_set_by_hand() -> None:
    answers = ["a b c d e", "x x x x x x", "", " a b c d e\n"]
    found = looks(answers, [5, 6, 0, 5], [False, True, False, False])
    assert found.num_answers == 4
    assert found.tokens == 4
    assert found.repeated == pytest.approx((0 + 2 / 3 + 0) / 3)  # x x x x is there three times
    assert found.distinct == pytest.approx(5 / (4 + 5 + 4))  # ab bc cd de xx
    assert (found.identical, found.at_limit, found.empty) == (0.5, 0.25, 0.25)


def test_sets_without_runs() -> None:
    assert repeated(["", "one two three"]) == 0
    assert distinct(["one", ""]) == 1
    assert identical(["a"]) == 0
    assert identical(["", " ", "\n"]) == 1


@given(st.lists(st.text(alphabet="ab ", max_size=30), min_size=1, max_size=6))
def test_shares_by_plain_counting(answers: list[str]) -> None:
    def runs(text: str, n: int) -> list[str]:
        found = text.split()
        return [" ".join(found[i : i + n]) for i in range(len(found) - n + 1)]

    each = [1 - len(set(r)) / len(r) for r in (runs(a, 4) for a in answers) if r]
    assert repeated(answers) == pytest.approx(sum(each) / len(each) if each else 0)
    every = [run for a in answers for run in runs(a, 2)]
    assert distinct(answers) == pytest.approx(len(set(every)) / len(every) if every else 1)
    stripped = [a.strip() for a in answers]
    assert identical(answers) == sum(stripped.count(a) > 1 for a in stripped) / len(answers)


def test_nothing_changed_is_no_alarm() -> None:
    assert alarms(START, START) == []
    assert alarms(START, START, [0.1] * 50) == []


@pytest.mark.parametrize(
    ("change", "below", "sentence"),
    [
        (
            {"tokens": 212},
            {"tokens": 175},
            "answers are 2.4 times as long as at the start (212 against 88 tokens)",
        ),
        (
            {"tokens": 22},
            {"tokens": 45},
            "answers are 0.25 times as long as at the start (22 against 88 tokens)",
        ),
        (
            {"repeated": 0.12},
            {"repeated": 0.11},
            "12 % of runs of four words repeat earlier ones of the answer (2 % at the start)",
        ),
        (
            {"distinct": 0.4},
            {"distinct": 0.41},
            "answers have become alike: 40 % of all pairs of words are different ones (80 % at the start)",
        ),
        (
            {"identical": 0.3},
            {"identical": 0.29},
            "30 % of answers are the same as another one (10 % at the start)",
        ),
        (
            {"at_limit": 0.1},
            {"at_limit": 0.09},
            "10 % of answers are cut off at the length limit (0 % at the start)",
        ),
        ({"empty": 0.05}, {"empty": 0.04}, "5 % of answers are empty (0 % at the start)"),
    ],
)
def test_each_threshold(change: dict[str, float], below: dict[str, float], sentence: str) -> None:
    assert alarms(replace(START, **change), START) == [sentence]
    assert alarms(replace(START, **below), START) == []


def test_short_answers_may_double() -> None:
    assert alarms(replace(START, tokens=9), replace(START, tokens=2)) == []
    assert alarms(replace(START, tokens=12), replace(START, tokens=2)) != []


def test_answers_that_were_empty() -> None:
    found = alarms(replace(START, tokens=50), replace(START, tokens=0))
    assert found == ["answers are long, and were empty at the start (50 against 0 tokens)"]


@pytest.mark.parametrize(
    ("kl", "alarm"),
    [
        ([0.1] * 5 + [0.41], True),
        ([0.1] * 5 + [0.39], False),
        ([0.1] * 4 + [9.0], False),  # too early to say
        ([0.1, 0.1, 0.1, 5.0, 0.1, 0.41], True),  # the median forgets an earlier spike
        ([0.0] * 5 + [0.009], False),
        ([0.0] * 5 + [0.011], True),
        ([-0.01] * 5 + [0.5], True),
        ([0.1] * 5 + [0.9, 0.1], False),  # it is over
        ([], False),
    ],
)
def test_kl_spikes(kl: list[float], alarm: bool) -> None:
    assert bool(kl_spike(kl)) is alarm
    assert kl_spike(kl) == alarms(START, START, kl)


def test_what_a_spike_says() -> None:
    said = "KL to the reference jumped to 5.0 times the usual (0.5 against 0.1)"
    assert kl_spike([0.1] * 5 + [0.5]) == [said]
    assert "far above the usual" in kl_spike([0.0] * 5 + [0.5])[0]
