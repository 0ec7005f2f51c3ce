"""The plain words, one sentence for each thing that can have happened."""

from __future__ import annotations

import math

import pytest

from tunesmith.evaluate.stats import Interval
from tunesmith.evaluate.words import describe_fit, describe_forgetting, verdict

TRAIN = [(s, 2.0 - s / 150) for s in range(0, 201, 5)]


def found(value: float, low: float, high: float) -> Interval:
    return Interval(value, low, high, 200, "paired bootstrap")


def test_better() -> None:
    assert verdict("accuracy", found(0.123, 0.091, 0.154), 0.0002) == (
        "better",
        "better: +12.3 points (95 % interval 9.1 to 15.4), p < 0.001",
    )


def test_worse() -> None:
    tone, words = verdict("accuracy", found(-0.05, -0.09, -0.01), 0.02)
    assert tone == "worse"
    assert words == "worse: −5.0 points (95 % interval −9.0 to −1.0), p = 0.020"


def test_lower_perplexity_is_better() -> None:
    assert verdict("perplexity", found(-3.2, -4.0, -2.5), 0.001)[0] == "better"
    assert verdict("refusal_rate", found(0.2, 0.1, 0.3), 0.001)[0] == "worse"


@pytest.mark.parametrize(
    ("interval", "p"),
    [
        (found(0.02, -0.01, 0.05), 0.21),  # both say no
        (found(0.02, 0.001, 0.05), 0.06),  # only the interval says yes
        (found(0.02, -0.001, 0.05), 0.04),  # only the test says yes
        (found(0.0, 0.0, 0.0), 1.0),
    ],
)
def test_no_claim_unless_interval_and_test_agree(interval: Interval, p: float) -> None:
    tone, words = verdict("accuracy", interval, p)
    assert tone == "none"
    assert words.startswith("no difference can be claimed: ")
    assert words.endswith("200 rows")


def test_overfitting() -> None:
    val = [(0, 2.0), (40, 1.4), (80, 1.1), (120, 1.0), (160, 1.04), (200, 1.08)]
    words = describe_fit(TRAIN, val, 120)
    assert words.startswith("Validation loss was lowest at step 120 of 200; after that it rose 8 % while")
    assert words.endswith("the later steps overfit; the best step is kept.")


def test_rising_training_loss_is_not_overfitting() -> None:
    val = [(0, 2.0), (100, 1.0), (200, 1.5)]
    train = [(s, 2.0 if s <= 100 else 3.0) for s in range(0, 201, 5)]
    assert "unstable, not overfit" in describe_fit(train, val, 100)


def test_without_training_losses_the_cause_is_left_open() -> None:
    assert "overfit or were unstable" in describe_fit([], [(0, 2.0), (100, 1.0), (200, 1.5)], 100)


@pytest.mark.parametrize(
    ("val", "words"),
    [
        ([(0, 2.0), (100, 1.5), (200, 1.0)], "more steps may help"),
        ([(0, 2.0), (100, 1.0), (200, 1.005)], "stayed level"),
        ([(0, 1.0), (100, 1.2), (200, 1.5)], "did not help on unseen rows"),
        ([(100, 1.0)], "too few validation losses"),
        ([(0, 1.0), (100, math.nan)], "not a finite number at step 100"),
    ],
)
def test_other_courses(val: list[tuple[int, float]], words: str) -> None:
    assert words in describe_fit(TRAIN, val, val[-1][0])


def test_a_best_step_by_another_metric_is_said() -> None:
    val = [(0, 2.0), (100, 1.0), (200, 1.5)]
    assert describe_fit(TRAIN, val, 200).endswith("step 200 is kept, which was best by the watched metric.")


def test_the_base_as_the_best_step_is_said() -> None:
    words = describe_fit(TRAIN, [(0, 1.0), (100, 1.2), (200, 1.5)], 0)
    assert "did not help on unseen rows" in words
    assert words.endswith("the base's own weights are kept, no step was better by the watched metric.")


@pytest.mark.parametrize(
    ("after", "words"),
    [(9.9, "fell"), (10.1, "no forgetting"), (10.5, "slight"), (12, "clear"), (20, "severe")],
)
def test_forgetting(after: float, words: str) -> None:
    assert words in describe_forgetting(10.0, after)


def test_forgetting_with_its_interval() -> None:
    words = describe_forgetting(10.0, 10.5, found(1.05, 0.99, 1.11))
    assert "+5.0 %, interval −1.0 to 11.0 %" in words
