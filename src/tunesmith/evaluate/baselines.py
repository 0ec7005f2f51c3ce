"""What no language model is needed for: the commonest answer, linear models on words, a lexicon.

All return texts as a model would, so that the same `score` applies. If one of them does as well as the
tuned model, the report says so. Which answer a task is in BASELINES.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.errors import DataError
from tunesmith.evaluate import judged, ranking, steps
from tunesmith.evaluate.ranking import Offered
from tunesmith.evaluate.vectorizer import vectorizer_of
from tunesmith.scoring import Task
from tunesmith.scoring.json_answers import canonical, categories, parse_object
from tunesmith.scoring.multi_label import parse_names
from tunesmith.scoring.numbers import parse_numbers
from tunesmith.scoring.spans import parse_spans
from tunesmith.types import Example

MAJORITY_NOTE = (
    "Always the commonest answer of the training rows (for JSON: the commonest value of each field)."
)
TFIDF_NOTE = (
    "scikit-learn: TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True) on the input text, then "
    "LogisticRegression(max_iter=1000), everything else at its default (C = 1, L2), nothing tuned. For JSON: "
    "one classifier for each field with at most 50 different text, bool or whole-number values in the "
    "training rows; the commonest value for every other field. For several classes a text: one classifier for "
    "each class."
)
MEAN_NOTE = "Always the mean of the training rows."
RIDGE_NOTE = (
    "scikit-learn: TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True) on the input text, then Ridge(), "
    "everything at its default (alpha = 1), nothing tuned."
)
LEXICON_NOTE = (
    "Every text that was marked at least once in the training rows is marked with its commonest label wherever "
    "it stands as whole words, the longest first."
)

Words = tuple[str, ...]
Texts = Sequence[str]
Answer = Callable[[Sequence[Example], Sequence[Example]], list[str]]
"""(training rows, test rows) -> an answer to each test row."""
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Baseline:
    """name: of the system in a report. title: as a person reads it. note: what exactly it is."""

    name: str
    title: str
    note: str
    answer: Answer


def asked(example: Example) -> str:
    """What the user wrote last: the text that a bag of words looks at, and that a report shows."""
    if example.text is not None:
        return example.text
    return next((m.content for m in reversed(example.prompt) if m.role == "user"), "")


def majority(task: Task, train_answers: Sequence[str], num_rows: int) -> list[str]:
    """The commonest training answer, `num_rows` times. For `label`, `labels` and `json`; ties go to the first
    seen."""
    _check(task, ("label", "labels", "json"), train_answers)
    if task == "label":
        return [Counter(train_answers).most_common(1)[0][0]] * num_rows
    if task == "labels":
        return [json.dumps(_commonest(_lists(train_answers)), ensure_ascii=False)] * num_rows
    columns = _columns(train_answers)
    return [json.dumps({k: _commonest(v) for k, v in columns.items()}, ensure_ascii=False)] * num_rows


def tfidf(
    task: Task, train_texts: Sequence[str], train_answers: Sequence[str], test_texts: Sequence[str]
) -> list[str]:
    """What TF-IDF and logistic regression, fitted on the training rows, answer to `test_texts`.

    TFIDF_NOTE says exactly what is fitted. Raises DataError for other tasks or for lists of unequal length.
    """
    _check(task, ("label", "labels", "json"), train_answers, train_texts)
    if task == "label":
        return _classify(train_texts, train_answers, test_texts)
    if task == "labels":
        return _classify_each(train_texts, _lists(train_answers), test_texts)
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


def mean(train_answers: Sequence[str], num_rows: int) -> list[str]:
    """The mean of the training numbers, `num_rows` times."""
    _check("number", ("number",), train_answers)
    return [_number(_numbers(train_answers).mean(axis=0))] * num_rows


def ridge(train_texts: Sequence[str], train_answers: Sequence[str], test_texts: Sequence[str]) -> list[str]:
    """What TF-IDF and ridge regression answer; the mean where the training texts have no word."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    _check("number", ("number",), train_answers, train_texts)
    values = _numbers(train_answers)
    vectorizer = vectorizer_of(train_texts)
    if vectorizer is None or not test_texts:
        return mean(train_answers, len(test_texts))
    model = make_pipeline(vectorizer, Ridge()).fit(list(train_texts), values)
    return [_number(row) for row in model.predict(list(test_texts)).reshape(len(test_texts), -1)]


def lexicon(train_texts: Sequence[str], train_answers: Sequence[str], test_texts: Sequence[str]) -> list[str]:
    """What a list of the marked training texts answers; see LEXICON_NOTE. Ties go to the label seen first."""
    _check("spans", ("spans",), train_answers, train_texts)
    labels: dict[Words, Counter[str]] = defaultdict(Counter)
    for text, answer in zip(train_texts, train_answers, strict=True):
        for start, end, label in parse_spans(answer) or ():
            labels[tuple(_TOKEN.findall(text[start:end]))][label] += 1
    labels.pop((), None)
    known = {words: found.most_common(1)[0][0] for words, found in labels.items()}
    longest = max(map(len, known), default=0)
    return [json.dumps(_mark(text, known, longest), ensure_ascii=False) for text in test_texts]


def _of_texts(answer: Callable[[Texts, Texts, Texts], list[str]]) -> Answer:
    """answer: (training texts, training answers, test texts) -> an answer to each test text."""
    return lambda train, test: answer(
        [asked(e) for e in train], [e.answer for e in train], [asked(e) for e in test]
    )


def _majority(task: Task) -> Baseline:
    answer = _of_texts(lambda texts, answers, test: majority(task, answers, len(test)))
    return Baseline("majority", "commonest answer", MAJORITY_NOTE, answer)


def _tfidf(task: Task) -> Baseline:
    answer = _of_texts(lambda texts, answers, test: tfidf(task, texts, answers, test))
    return Baseline("tfidf", "TF-IDF + logistic regression", TFIDF_NOTE, answer)


def _rank(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    offered = Offered.of(test)
    answer = _of_texts(lambda texts, answers, test: ranking.tfidf_ranking(texts, answers, test, offered))
    return answer(train, test)


BASELINES: dict[Task, tuple[Baseline, ...]] = {
    "label": (_majority("label"), _tfidf("label")),
    "labels": (_majority("labels"), _tfidf("labels")),
    "json": (_majority("json"), _tfidf("json")),
    "text": (),
    "number": (
        Baseline(
            "mean",
            "training mean",
            MEAN_NOTE,
            _of_texts(lambda texts, answers, test: mean(answers, len(test))),
        ),
        Baseline("ridge", "TF-IDF + ridge regression", RIDGE_NOTE, _of_texts(ridge)),
    ),
    "spans": (Baseline("lexicon", "lexicon of marked texts", LEXICON_NOTE, _of_texts(lexicon)),),
    "ranking": (Baseline("tfidf ranking", "TF-IDF ranking", ranking.TFIDF_NOTE, _rank),),
    "judged": (
        Baseline(
            "longer answer",
            "the longer answer",
            judged.LONGER_NOTE,
            lambda _, test: judged.by_length(test, 1),
        ),
        Baseline(
            "shorter answer",
            "the shorter answer",
            judged.SHORTER_NOTE,
            lambda _, test: judged.by_length(test, -1),
        ),
        Baseline("bag of words", "bag of words", judged.WORDS_NOTE, judged.bag_of_words),
    ),
    "steps": (
        Baseline("all right", "every step is right", steps.RIGHT_NOTE, lambda _, test: steps.all_right(test)),
        Baseline("words of steps", "bag of words of a step", steps.WORDS_NOTE, steps.bag_of_words),
    ),
    "rewarded": (),  # what writes no answers gets no rewards
}

TITLES = {b.name: b.title for baselines in BASELINES.values() for b in baselines}


def _classify(texts: Sequence[str], classes: Sequence[str], test_texts: Sequence[str]) -> list[str]:
    """Logistic regression on TF-IDF; with one class, or no word to learn from, the commonest class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectorizer = vectorizer_of(texts)
    if len(set(classes)) < 2 or vectorizer is None:
        return [Counter(classes).most_common(1)[0][0]] * len(test_texts)
    if not test_texts:
        return []
    model = make_pipeline(vectorizer, LogisticRegression(max_iter=1000))
    model.fit(list(texts), list(classes))
    return [str(name) for name in model.predict(list(test_texts))]


def _classify_each(texts: Sequence[str], rows: Sequence[list[str]], test_texts: Sequence[str]) -> list[str]:
    """One logistic regression for each class that some but not all rows have; a class that all rows have is
    always named. Without a word to learn from: the commonest list."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    names = sorted({name for row in rows for name in row})
    always = [name for name in names if all(name in row for row in rows)]
    told = [name for name in names if name not in always]
    vectorizer = vectorizer_of(texts)
    if vectorizer is None:
        return [json.dumps(_commonest(rows), ensure_ascii=False)] * len(test_texts)
    chosen = np.zeros((len(test_texts), len(told)))
    if told and test_texts:
        wanted = np.array([[name in row for name in told] for row in rows]).astype(int)
        model = make_pipeline(vectorizer, OneVsRestClassifier(LogisticRegression(max_iter=1000)))
        chosen = model.fit(list(texts), wanted).predict(list(test_texts)).reshape(chosen.shape)
    return [
        json.dumps([*always, *(name for name, on in zip(told, row, strict=True) if on)], ensure_ascii=False)
        for row in chosen
    ]


def _mark(text: str, known: dict[Words, str], longest: int) -> list[tuple[int, int, str]]:
    """From left to right, at each word the longest known run of words."""
    tokens = list(_TOKEN.finditer(text))
    words = [token.group() for token in tokens]
    out: list[tuple[int, int, str]] = []
    at = 0
    while at < len(tokens):
        sizes = range(min(longest, len(tokens) - at), 0, -1)
        size = next((n for n in sizes if tuple(words[at : at + n]) in known), 0)
        if size:
            out.append((tokens[at].start(), tokens[at + size - 1].end(), known[tuple(words[at : at + size])]))
        at += max(size, 1)
    return out


def _columns(answers: Sequence[str]) -> dict[str, list[Any]]:
    """field -> its values, for the fields that at least half of the JSON answers have."""
    rows = [row for row in map(parse_object, answers) if row is not None]
    fields = Counter(key for row in rows for key in row)
    return {
        field: [row[field] for row in rows if field in row]
        for field, count in fields.items()
        if 2 * count >= len(rows)
    }


def _lists(answers: Sequence[str]) -> list[list[str]]:
    return [sorted(parse_names(answer) or ()) for answer in answers]


def _numbers(answers: Sequence[str]) -> Any:
    """(N, T) of the training answers. Raises DataError for one that is no number."""
    rows = [parse_numbers(answer) for answer in answers]
    for answer, row in zip(answers, rows, strict=True):
        if row is None or len(row) != len(rows[0] or ()):
            raise DataError(f"training answer '{answer}'", "as many numbers as in every other row")
    return np.array(rows)


def _number(row: Any) -> str:
    values = [float(x) for x in row]
    return json.dumps(values[0] if len(values) == 1 else values)


def _commonest(values: Sequence[Any]) -> object:
    names = [canonical(value) for value in values]
    return values[names.index(Counter(names).most_common(1)[0][0])]


def _check(
    task: Task, able: Sequence[Task], train_answers: Sequence[str], train_texts: Sequence[str] | None = None
) -> None:
    if task not in able:
        what = "free text" if task == "text" else f"task '{task}'"
        raise DataError(f"this baseline for {what}", f"one of {', '.join(able)}", "see BASELINES")
    if not train_answers:
        raise DataError("no training answers for the baselines", "at least one")
    if train_texts is not None and len(train_texts) != len(train_answers):
        raise DataError(
            f"{len(train_texts)} texts and {len(train_answers)} answers", "one answer for each text"
        )
