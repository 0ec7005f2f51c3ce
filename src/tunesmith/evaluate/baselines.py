"""What no language model is needed for: the commonest answer, and a linear classifier on words.

Both return texts as a model would, so that the same `score` applies. If one of them does as well as the
tuned model, the report says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tunesmith.errors import DataError
from tunesmith.scoring import Task
from tunesmith.scoring.json_answers import canonical, categories, parse_object

MAJORITY_NOTE = (
    "Always the commonest answer of the training rows (for JSON: the commonest value of each field)."
)
TFIDF_NOTE = (
    "scikit-learn: TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True) on the input text, then "
    "LogisticRegression(max_iter=1000), everything else at its default (C = 1, L2), nothing tuned. For JSON: "
    "one classifier for each field with at most 50 different text, bool or whole-number values in the "
    "training rows; the commonest value for every other field."
)


def majority(task: Task, train_answers: Sequence[str], num_rows: int) -> list[str]:
    """The commonest training answer, `num_rows` times. For `label` and `json`; ties go to the first seen."""
    _check(task, train_answers)
    if task == "label":
        return [Counter(train_answers).most_common(1)[0][0]] * num_rows
    columns = _columns(train_answers)
    return [json.dumps({k: _commonest(v) for k, v in columns.items()}, ensure_ascii=False)] * num_rows


def tfidf(
    task: Task, train_texts: Sequence[str], train_answers: Sequence[str], test_texts: Sequence[str]
) -> list[str]:
    """What TF-IDF and logistic regression, fitted on the training rows, answer to `test_texts`.

    TFIDF_NOTE says exactly what is fitted. Raises DataError for task `text` or for lists of unequal length.
    """
    _check(task, train_answers)
    if len(train_texts) != len(train_answers):
        raise DataError(
            f"{len(train_texts)} texts and {len(train_answers)} answers", "one answer for each text"
        )
    if task == "label":
        return _classify(train_texts, train_answers, test_texts)
    rows: list[dict[str, Any]] = [{} for _ in test_texts]
    parsed = [parse_object(answer) for answer in train_answers]
    for field, values in _columns(train_answers).items():
        if categories(values) is None:
            predicted = [_commonest(values)] * len(test_texts)
        else:
            having = [text for text, row in zip(train_texts, parsed, strict=True) if row and field in row]
            by_name = {canonical(value): value for value in values}
            names = _classify(having, [canonical(value) for value in values], test_texts)
            predicted = [by_name[name] for name in names]
        for row, value in zip(rows, predicted, strict=True):
            row[field] = value
    return [json.dumps(row, ensure_ascii=False) for row in rows]


def _classify(texts: Sequence[str], classes: Sequence[str], test_texts: Sequence[str]) -> list[str]:
    """Logistic regression on TF-IDF; with one class, or no word to learn from, the commonest class."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    has_words = vectorizer.build_analyzer()
    if len(set(classes)) < 2 or not any(has_words(text) for text in texts):
        return [Counter(classes).most_common(1)[0][0]] * len(test_texts)
    if not test_texts:
        return []
    model = make_pipeline(vectorizer, LogisticRegression(max_iter=1000))
    model.fit(list(texts), list(classes))
    return [str(name) for name in model.predict(list(test_texts))]


def _columns(answers: Sequence[str]) -> dict[str, list[Any]]:
    """field -> its values, for the fields that at least half of the JSON answers have."""
    rows = [row for row in map(parse_object, answers) if row is not None]
    fields = Counter(key for row in rows for key in row)
    return {
        field: [row[field] for row in rows if field in row]
        for field, count in fields.items()
        if 2 * count >= len(rows)
    }


def _commonest(values: Sequence[Any]) -> object:
    names = [canonical(value) for value in values]
    return values[names.index(Counter(names).most_common(1)[0][0])]


def _check(task: Task, train_answers: Sequence[str]) -> None:
    if task == "text":
        raise DataError("a baseline for free text", "labels or JSON answers", "leave the baselines out")
    if not train_answers:
        raise DataError("no training answers for the baselines", "at least one")
