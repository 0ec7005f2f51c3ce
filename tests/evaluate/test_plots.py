"""Curves: small SVG that follows the page's colours."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.evaluate.samples import ATTACK, bare_report, full_report
from tunesmith.evaluate.plots import _marks, curve, figures, preferred_by_length, reliability
from tunesmith.evaluate.report_model import Curves, Judgement, LengthGroup, ReliabilityBin

POINTS = [(0, 2.0), (10, 1.0), (20, 1.2)]


def test_text_is_text_and_colours_are_the_pages() -> None:
    svg = curve("loss", {"training": POINTS, "validation": POINTS}, best_step=10)
    texts = "".join(ET.fromstring(svg).itertext())
    assert all(word in texts for word in ("training", "validation", "best: step 10", "step"))
    assert "currentColor" in svg
    assert "var(--series-2)" in svg
    assert "#010203" not in svg
    assert "width=" not in svg[: svg.index(">")]


def test_the_same_numbers_give_the_same_bytes_under_other_ids() -> None:
    lines = {"a": POINTS}
    assert curve("x", lines) == curve("x", lines)
    assert 'id="x-' in curve("x", lines)


def test_names_are_no_markup() -> None:
    svg = curve("loss", {ATTACK: POINTS, "$x^2$": POINTS, "_hidden": POINTS})
    texts = "".join(ET.fromstring(svg).itertext())
    assert "<script" not in svg
    assert ATTACK in texts
    assert "$x^2$" in texts
    assert "_hidden" in texts


@pytest.mark.parametrize(
    "low, high, marks",
    [
        (1, 1000, [1, 5, 20, 100, 500]),
        (20, 48, [20, 25, 30, 35, 40, 45]),
        (3, 7, [3, 4, 5, 6, 7]),
        (7, 8, [7, 8]),
        (640, 660, [640, 645, 650, 655, 660]),
    ],
)
def test_lengths_have_marks_however_near_they_lie(low: int, high: int, marks: list[int]) -> None:
    assert _marks(low, high) == marks


def test_one_point_and_values_that_are_not_finite() -> None:
    assert "<svg" in curve("x", {"a": [(5, 1.0)]}, 5)
    captions = [caption for caption, _ in figures(full_report())]
    assert captions == ["Loss", "On validation rows", "Learning rate", "Gradient norm"]
    assert figures(bare_report()) == []


def test_a_reliability_plot_has_a_bar_and_a_dot_for_each_bin() -> None:
    bins = [
        ReliabilityBin(low=i / 15, high=(i + 1) / 15, confidence=(i + 0.5) / 15, accuracy=0.5, count=i)
        for i in (9, 12, 14)
    ]
    svg = reliability("r", bins)
    assert svg == reliability("r", bins)
    texts = "".join(ET.fromstring(svg).itertext())
    assert all(word in texts for word in ("confidence", "accuracy"))
    assert "step" not in texts
    assert svg.count("opacity: 0.3") == 3
    (dots,) = (g for g in ET.fromstring(svg).iter() if (g.get("id") or "").startswith("r-PathCollection"))
    assert len([part for part in dots.iter() if part.tag.endswith("path")]) == 3
    assert "var(--series-1)" in svg
    assert "#0a0b0c" not in svg


def test_the_loss_is_called_what_it_is_and_rollouts_are_told_apart_from_steps() -> None:
    points = [(0, 0.25), (4, 0.5)]
    curves = Curves(
        loss="Policy loss",
        train_loss=points,
        rollouts={"kl": points, "reward": points, "reward.kind": points},
    )
    found = dict(figures(bare_report().model_copy(update={"curves": curves})))
    assert list(found) == [
        "Policy loss",
        "KL divergence of an answer from the start (nats), rollouts",
        "Reward, rollouts",
        "Reward.kind, rollouts",
    ]


def test_what_training_steps_measured_is_drawn_chosen_beside_rejected() -> None:
    points = [(1, -40.0), (2, -41.0)]
    measured = {"chosen_logp": points, "accuracy": points, "rejected_logp": points, "reward_margin": points}
    found = dict(figures(bare_report().model_copy(update={"curves": Curves(train_metrics=measured)})))
    assert list(found) == [
        "Log-probability of completions, training steps",
        "Accuracy, training steps",
        "Reward margin, training steps",
    ]
    texts = "".join(ET.fromstring(found["Log-probability of completions, training steps"]).itertext())
    assert "chosen" in texts
    assert "rejected" in texts


def test_preferences_by_length_have_a_line_for_people_and_for_each_system() -> None:
    groups = [
        LengthGroup(characters=c, prefers_longer=0.7, people_prefer_longer=0.5, count=4) for c in (3, 40, 200)
    ]
    systems = [Judgement(system=name, words=[], lengths=groups) for name in ("base", "tuned")]
    texts = "".join(ET.fromstring(preferred_by_length("l", systems)).itertext())
    assert all(word in texts for word in ("people", "base", "tuned", "characters by which one is longer"))
    assert preferred_by_length("l", [Judgement(system="base", words=[])]) == ""
