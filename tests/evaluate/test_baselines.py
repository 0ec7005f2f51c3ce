"""Baselines answer as a model would, and learn what words can teach."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tunesmith.errors import DataError
from tunesmith.evaluate.baselines import BASELINES, TITLES, lexicon, majority, mean, ridge, tfidf
from tunesmith.evaluate.judged import linear_reward
from tunesmith.evaluate.tasks import SHOWN
from tunesmith.scoring import TASKS, known_classes, score
from tunesmith.types import Completion, Example, Message, RowRef

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


def asked_and_told(text: str, answer: str) -> Example:
    return Example(RowRef("f", 1), (Message("user", text), Message("assistant", answer)))


def judged(*completions: tuple[str, float]) -> Example:
    found = tuple(Completion(Message("assistant", text), score) for text, score in completions)
    return Example(RowRef("f", 1), (Message("user", "why?"),), completions=found)


def test_completions_are_judged_by_their_length_or_their_words() -> None:
    longer, shorter, words = BASELINES["judged"]
    train = [
        judged(("thanks for asking, it rains", 2), ("rain, obviously", 0), ("it rains", 1)),
        judged(("go away", 0), ("thanks, the sun", 1)),
        judged(("so so", 1), ("well well", 1)),
    ] * 3
    test = [
        judged(("thanks, it is late", 1), ("obviously late", 0)),
        judged(("go", 0), ("thanks", 1), ("!", 2)),
    ]
    assert longer.answer(train, test) == ["[18, 14]", "[2, 6, 1]"]
    assert shorter.answer(train, test) == ["[-18, -14]", "[-2, -6, -1]"]
    first, second = map(json.loads, words.answer(train, test))
    assert first[0] > 0 > first[1]
    assert second[1] > 0 > second[0]
    assert second[2] == 0  # without an intercept, no word is worth nothing
    assert words.answer([judged(("!", 1), ("?", 0))], test) == ["[0.0, 0.0]", "[0.0, 0.0, 0.0]"]
    assert words.answer([judged(("a word", 1), ("no word", 1))], test[:1]) == ["[0.0, 0.0]"]
    assert words.answer(train, []) == []
    with pytest.raises(DataError, match="no judged training rows"):
        words.answer([asked_and_told("a", "b")], test)


def test_bradley_terry_is_fitted_on_both_signs_of_every_pair() -> None:
    train = [judged(("a good one", 2), ("a bad one", 1), ("bad bad", 0)), judged(("worse", 0), ("good", 1))]
    test = [judged(("good", 1), ("bad", 0), ("worse one", 0))]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    texts = [c.message.content for e in train for c in e.completions]
    x = vectorizer.fit_transform(texts).toarray()
    pairs = [(0, 1), (0, 2), (1, 2), (4, 3)]
    apart = np.array([x[i] - x[j] for i, j in pairs] + [x[j] - x[i] for i, j in pairs])
    model = LogisticRegression(fit_intercept=False, max_iter=1000).fit(apart, [1] * 4 + [0] * 4)
    wanted = vectorizer.transform(["good", "bad", "worse one"]) @ model.coef_[0]
    (found,) = map(json.loads, BASELINES["judged"][2].answer(train, test))
    assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    "scores", [[[2, 1, 0], [0, 1]], [[1], [0], [1], [0], [0]], [[5], [1], [4], [2.5], [2]]], ids=str
)
def test_a_linear_reward_is_the_same_of_vectors_that_are_sparse_and_that_are_not(scores) -> None:
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    rows = [np.array(of_row, float) for of_row in scores]
    found = linear_reward(x, rows)(new)
    assert linear_reward(csr_matrix(x), rows)(csr_matrix(new)) == pytest.approx(found, abs=1e-3)
    flat = np.concatenate(rows)
    if len(rows) == 2:
        apart = np.array([x[i] - x[j] for i, j in [(0, 1), (0, 2), (1, 2), (4, 3)]])
        weight = np.linalg.lstsq(new, found)[0]
        gradient = weight - 2 * apart.T @ (1 / (1 + np.exp(apart @ weight)))  # of the penalised likelihood
        assert gradient == pytest.approx(np.zeros(3), abs=1e-2)
    else:
        assert np.corrcoef(linear_reward(x, rows)(x), flat)[0, 1] > 0.5


def test_single_completions_are_rated_by_their_words() -> None:
    verdicts = [judged(("thanks a lot", 1)), judged(("go away", 0)), judged(("many thanks", 1))]
    ratings = [judged(("thanks a lot", 5)), judged(("go away", 1)), judged(("many thanks", 4.5))]
    test = [judged(("thanks", 1)), judged(("away", 0))]
    for train in (verdicts, ratings):
        good, bad = (json.loads(a)[0] for a in BASELINES["judged"][2].answer(train, test))
        assert good > bad
        if train is ratings:
            assert 1 < bad < good < 5
    assert BASELINES["judged"][2].answer(verdicts[:1], test) == ["[0.0]", "[0.0]"]


def test_every_task_has_its_baselines_and_they_answer_as_a_model_would() -> None:
    answers = {
        "label": LABELS,
        "labels": [json.dumps([label]) for label in LABELS],
        "json": [json.dumps({"k": label}) for label in LABELS],
        "number": [str(len(label)) for label in LABELS],
        "spans": ['[[0, 2, "start"]]'] * len(LABELS),
    }
    assert (
        BASELINES.keys()
        == TASKS.keys()
        == SHOWN.keys()
        == {
            *answers,
            "text",
            "ranking",
            "judged",
            "steps",
            "rewarded",
        }
    )
    assert BASELINES["text"] == ()
    for task, given in answers.items():
        for baseline in BASELINES[task]:
            rows = [asked_and_told(text, told) for text, told in zip(TEXTS, given, strict=True)]
            found = baseline.answer(rows, rows[:5])
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
