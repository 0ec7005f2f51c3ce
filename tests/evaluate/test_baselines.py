"""Baselines answer as a model would, and learn what words can teach."""

from __future__ import annotations

import json

import pytest

from tunesmith.errors import DataError
from tunesmith.evaluate.baselines import majority, tfidf
from tunesmith.scoring import score

TEXTS = [
    "my card was charged twice",
    "charged the wrong amount",
    "cannot log in",
    "password does not work",
] * 5
LABELS = ["charge", "charge", "login", "login"] * 5
NEW = ["they charged my card", "the password fails when I log in"]


def test_majority_is_the_commonest_label() -> None:
    assert majority("label", ["b", "a", "a"], 2) == ["a", "a"]


def test_majority_of_json_is_the_commonest_value_of_each_field() -> None:
    answers = [
        '{"k": "x", "n": 1}',
        '{"k": "y", "n": 2}',
        '{"k": "y", "n": 1}',
        '{"rare": 1, "k": "z", "n": 1}',
    ]
    assert majority("json", answers, 1) == ['{"k": "y", "n": 1}']


def test_tfidf_learns_words() -> None:
    assert tfidf("label", TEXTS, LABELS, NEW) == ["charge", "login"]


def test_tfidf_fills_json_and_keeps_types() -> None:
    answers = [
        json.dumps(
            {"area": label, "urgent": label == "login", "level": 2 if label == "login" else 1, "tags": []}
        )
        for label in LABELS
    ]
    found = tfidf("json", TEXTS, answers, NEW)
    assert json.loads(found[0]) == {"area": "charge", "urgent": False, "level": 1, "tags": []}
    assert json.loads(found[1]) == {"area": "login", "urgent": True, "level": 2, "tags": []}
    assert score("json", [answers[0], answers[2]], found).metrics["json_exact"] == 1


def test_a_field_with_too_many_values_gets_its_commonest() -> None:
    texts = [f"word{i}" for i in range(60)]
    answers = [json.dumps({"id": f"t{max(i, 9)}"}) for i in range(60)] + [json.dumps({"id": "x"})] * 0
    assert json.loads(tfidf("json", texts, answers, ["word59"])[0]) == {"id": "t9"}


def test_one_class_or_no_words_fall_back_to_the_commonest() -> None:
    assert tfidf("label", ["a text", "another"], ["x", "x"], ["new"]) == ["x"]
    assert tfidf("label", ["!", "?", "."], ["x", "y", "y"], ["new"]) == ["y"]


def test_refused() -> None:
    with pytest.raises(DataError, match="free text"):
        majority("text", ["a"], 1)
    with pytest.raises(DataError, match="no training answers"):
        majority("label", [], 1)
    with pytest.raises(DataError, match="1 texts and 2 answers"):
        tfidf("label", ["a"], ["x", "y"], [])
