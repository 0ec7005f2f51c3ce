"""The plain words, one sentence for each thing that can have happened."""

from __future__ import annotations

import math

import pytest

from tunesmith.evaluate.stats import Interval
from tunesmith.evaluate.words import (
    describe_agreement,
    describe_alarms,
    describe_chosen,
    describe_fit,
    describe_forgetting,
    describe_length,
    describe_rewards,
    verdict,
)

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


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        (
            [(0, 0.2), (10, 0.3), (20, 0.7)],
            "rose from 0.2 to 0.7 at the last measured step, 20: more steps may help",
        ),
        (
            [(0, 0.2), (10, 0.7), (20, 0.6)],
            "rose from 0.2 to 0.7 at step 10, and was 0.6 at the last measured step",
        ),
        ([(0, -0.2), (10, -0.3)], "never rose above its first value (-0.2 at step 0)"),
    ],
)
def test_rewards_are_told_as_such(curve: list[tuple[int, float]], words: str) -> None:
    assert words in describe_rewards(curve)


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


def noisy(start: float, end: float, steps: int = 50) -> list[tuple[int, float]]:
    return [(s, start + (end - start) * s / steps + (-1) ** s) for s in range(1, steps + 1)]


def test_chosen_answers_that_became_less_likely() -> None:
    assert describe_chosen(noisy(-40, -55), noisy(-40, -90)) == (
        "Chosen answers became less likely than they were (log-probability −41.6 → −53.6) although they gained on the "
        "rejected ones: add method.sft_weight, lower train.learning_rate, or raise method.beta."
    )
    words = describe_chosen(noisy(-40, -55), noisy(-40, -50))
    assert words.endswith(
        "and did not gain on the rejected ones: lower train.learning_rate, or look at the data."
    )


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (noisy(-40, -30), noisy(-40, -50)),  # likelier
        (noisy(-40, -40.2), noisy(-40, -50)),  # within the noise of steps
        (noisy(-40, -55, 3), noisy(-40, -90, 3)),  # too few steps
        ([], []),  # another method
    ],
)
def test_chosen_answers_of_which_nothing_is_said(
    chosen: list[tuple[int, float]], rejected: list[tuple[int, float]]
) -> None:
    assert describe_chosen(chosen, rejected) == ""


def test_agreement_with_people() -> None:
    head = "base agrees with people in 60.0 % of pairs (95 % interval "
    assert describe_agreement("base", found(0.6, 0.55, 0.65)) == (
        f"{head}55.0 to 65.0); one who guesses agrees in 50 %."
    )
    assert describe_agreement("base", found(0.6, 0.45, 0.7)).endswith("from which this cannot be told.")
    assert describe_agreement("base", found(0.4, 0.3, 0.45)).endswith("so it does worse.")


def test_length_bias() -> None:
    assert describe_length("tuned", 0.71, 0.58, 0.412) == (
        "tuned prefers the longer answer in 71.0 % of pairs; people do in 58.0 %. Its scores and length have a rank "
        "correlation of 0.412: it leans to long answers more than people do."
    )
    assert "leans to short answers" in describe_length("tuned", 0.3, 0.58, -0.5)
    assert "leans" not in describe_length("tuned", 0.6, 0.58, 0.1)


def test_alarms_are_counted_and_the_first_and_the_last_are_said():
    assert describe_alarms([[], []]) == ""
    once = describe_alarms([[], ["answers are empty"], []])
    assert "in 1 of 3 rollouts, first in rollout 2: answers are empty. Read" in once
    often = describe_alarms([[], ["a", "b"], [], ["c"]])
    assert "in 2 of 4 rollouts, first in rollout 2: a; b, last in rollout 4: c. Read" in often
