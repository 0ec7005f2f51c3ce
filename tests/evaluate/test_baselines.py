"""Baselines answer as a model would, and learn what words can teach."""

from __future__ import annotations

import json

import pytest

from tunesmith.errors import DataError
from tunesmith.evaluate.baselines import BASELINES, TITLES, lexicon, majority, mean, ridge, tfidf
from tunesmith.evaluate.tasks import SHOWN
from tunesmith.scoring import TASKS, known_classes, score

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


def test_several_classes() -> None:
    answers = [json.dumps(["all", label]) for label in LABELS]
    answers[0] = json.dumps(["charge", "all", "rare"])
    assert majority("labels", answers, 2) == ['["all", "login"]'] * 2
    found = [set(json.loads(a)) for a in tfidf("labels", TEXTS, answers, NEW)]
    assert found == [{"all", "charge"}, {"all", "login"}]
    assert tfidf("labels", ["!", "?"], ['["x"]', '["x"]'], ["new"]) == ['["x"]']
    assert tfidf("labels", ["a text", "a word"], ["[]", "[]"], ["new"]) == ["[]"]
    assert tfidf("labels", TEXTS, answers, []) == []


def test_numbers_are_the_mean_or_learnt_from_words() -> None:
    answers = ["1" if label == "charge" else "5" for label in LABELS]
    assert mean(answers, 2) == ["3.0", "3.0"]
    low, high = map(float, ridge(TEXTS, answers, NEW))
    assert 1 <= low < 3 < high <= 5
    assert ridge(["!", "?"], ["1", "2"], ["new"]) == ["1.5"]
    assert ridge(TEXTS, answers, []) == []
    two = [json.dumps([float(a), -float(a)]) for a in answers]
    assert json.loads(mean(two, 1)[0]) == [3, -3]
    found = [json.loads(a) for a in ridge(TEXTS, two, NEW)]
    assert [round(x, 6) for x in found[0]] == [round(low, 6), round(-low, 6)]
    with pytest.raises(DataError, match="training answer 'x'"):
        mean(["1", "x"], 1)


def test_the_lexicon_marks_whole_words_longest_first() -> None:
    texts = ["Ann Smith met Ann in New York.", "York is old", "New"]
    answers = [
        '[[0, 9, "PER"], [14, 17, "PER"], [21, 29, "LOC"]]',
        '[[0, 4, "LOC"]]',
        '[[0, 3, "ADJ"]]',
    ]
    test = ["Annie and Ann saw New York, not York", "new york", ""]
    found = [json.loads(a) for a in lexicon(texts, answers, test)]
    assert found == [[[10, 13, "PER"], [18, 26, "LOC"], [32, 36, "LOC"]], [], []]
    assert lexicon(texts, ["[]", "[]", "x"], test) == ["[]"] * 3


def test_the_lexicon_takes_the_commonest_label_and_the_first_of_equals() -> None:
    texts, answers = ["Paris"] * 4, [json.dumps([[0, 5, x]]) for x in ("PER", "LOC", "LOC", "ORG")]
    assert lexicon(texts, answers, ["Paris"]) == ['[[0, 5, "LOC"]]']
    assert lexicon(texts[:2], answers[:2], ["Paris"]) == ['[[0, 5, "PER"]]']


def test_every_task_has_its_baselines_and_they_answer_as_a_model_would() -> None:
    answers = {
        "label": LABELS,
        "labels": [json.dumps([label]) for label in LABELS],
        "json": [json.dumps({"k": label}) for label in LABELS],
        "number": [str(len(label)) for label in LABELS],
        "spans": ['[[0, 2, "start"]]'] * len(LABELS),
    }
    assert BASELINES.keys() == TASKS.keys() == SHOWN.keys() == {*answers, "text", "ranking"}
    assert BASELINES["text"] == ()
    for task, given in answers.items():
        for baseline in BASELINES[task]:
            found = baseline.answer(TEXTS, given, TEXTS[:5], None)
            labels = known_classes(task, given)
            valid = score(task, given[:5], found, labels).answers
            assert len(valid) == 5
            assert None not in valid
            assert TITLES[baseline.name] == baseline.title
            assert baseline.note


def test_refused() -> None:
    with pytest.raises(DataError, match="free text"):
        majority("text", ["a"], 1)
    with pytest.raises(DataError, match="no training answers"):
        majority("label", [], 1)
    with pytest.raises(DataError, match="1 texts and 2 answers"):
        tfidf("label", ["a"], ["x", "y"], [])
