"""Steps that people judged: every metric against the formula written out, row by row."""

from __future__ import annotations

import json
import math
import random

import pytest

from tests.data.test_steps import NAN, STEPS, stepwise
from tunesmith.errors import DataError
from tunesmith.evaluate.baselines import BASELINES
from tunesmith.scoring import score
from tunesmith.scoring.steps import reference_of


def rows_of(seed: int, count: int = 40) -> list[tuple[list[float | None], list[float | None] | None]]:
    """(labels, probabilities) of rows; some steps unjudged, some without a probability, some answers none."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        size = draw.randint(1, 6)
        labels = [draw.choice([1.0, 1.0, 0.0, 0.3, None]) for _ in range(size)]
        labels[draw.randrange(size)] = draw.choice([1.0, 0.0])
        said: list[float | None] | None = [
            draw.choice([draw.random(), draw.random(), None]) for _ in range(size)
        ]
        rows.append((labels, None if draw.random() < 0.1 else said))
    return rows


@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_are_their_formulas(seed):
    rows = rows_of(seed)
    found = score(
        "steps",
        [json.dumps(labels) for labels, _ in rows],
        ["none" if said is None else json.dumps(said) for _, said in rows],
    ).metrics
    accuracy, first, losses = [], [], []
    tp = named = wrong = 0
    for labels, said in rows:
        said = said or [None] * len(labels)
        judged = [(y, p) for y, p in zip(labels, said, strict=True) if y is not None]
        right = [p is not None and (p >= 0.5) == (y >= 0.5) for y, p in judged]
        accuracy.append(sum(right) / len(right))
        stop = next((i for i, (y, _) in enumerate(judged) if y < 0.5), len(judged) - 1)
        first.append(all(right[: stop + 1]))
        costs = [-y * math.log(p) - (1 - y) * math.log(1 - p) for y, p in judged if p is not None]
        losses += [sum(costs) / len(costs)] if costs else []
        tp += sum(p is not None and p < 0.5 and y < 0.5 for y, p in judged)
        named += sum(p is not None and p < 0.5 for _, p in judged)
        wrong += sum(y < 0.5 for y, _ in judged)
    assert found["step_accuracy"] == pytest.approx(sum(accuracy) / len(rows))
    assert found["first_wrong"] == pytest.approx(sum(first) / len(rows))
    assert found["step_nll"] == pytest.approx(sum(losses) / len(losses))
    assert found["wrong_precision"] == pytest.approx(tp / named)
    assert found["wrong_recall"] == pytest.approx(tp / wrong)
    assert found["wrong_f1"] == pytest.approx(2 * tp / (named + wrong))
    assert found["valid_scores"] == pytest.approx(sum(said is not None for _, said in rows) / len(rows))


def test_one_half_is_right_and_a_certain_error_costs_a_finite_loss():
    found = score("steps", ["[0.5, 1, 0]"], ["[0.5, 0.0, 1.0]"]).metrics
    assert found["step_accuracy"] == pytest.approx(1 / 3)
    assert found["wrong_recall"] == 0
    assert found["step_nll"] == pytest.approx((math.log(2) + 2 * 7 * math.log(10)) / 3, rel=1e-6)


@pytest.mark.parametrize("bad", ["[null]", "[2]", "right", "[]", "[true]"])
def test_a_reference_that_is_none_is_an_error(bad):
    with pytest.raises(DataError, match="a JSON list of labels from 0 to 1"):
        score("steps", [bad], ["[1]"])


def test_a_row_is_held_to_its_labels():
    assert reference_of(stepwise(STEPS, [1.0, NAN, 0.25])) == "[1.0, null, 0.25]"


def test_baselines_say_right_of_everything_or_go_by_words():
    train = [stepwise(["a sound step", "a bogus step", "who knows"], [1.0, 0.0, NAN])] * 4
    test = [stepwise(["another sound one", "this is bogus"], [1.0, 0.0]), stepwise(["sound"], [1.0])]
    all_right, words = BASELINES["steps"]
    assert all_right.answer(train, test) == ["[1.0, 1.0]", "[1.0]"]
    (good, bad), (also_good,) = map(json.loads, words.answer(train, test))
    assert min(good, also_good) > 0.5 > bad
    only_right = [stepwise(["x y"], [1.0])]
    assert words.answer(only_right, test[1:]) == ["[1.0]"]
