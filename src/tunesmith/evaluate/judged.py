"""Completions that people scored: what needs no language model, and what a report says and shows of them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.evaluate.report_model import Judged, Judgement, LengthGroup
from tunesmith.evaluate.stats import DEFAULT, Floats, Settings, interval
from tunesmith.evaluate.vectorizer import vectorizer_of
from tunesmith.evaluate.words import describe_agreement, describe_length
from tunesmith.scoring import Scores
from tunesmith.scoring.numbers import parse_numbers
from tunesmith.scoring.steps import parse_steps
from tunesmith.types import Example

LONGER_NOTE = "Scores a completion by its number of characters."
SHORTER_NOTE = "Scores a completion by its number of characters, the fewer the better."
WORDS_NOTE = (
    "scikit-learn, on TF-IDF of the completions alone (TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)): "
    "Bradley-Terry, that is LogisticRegression(fit_intercept=False, max_iter=1000) on the difference of each training "
    "pair of unequal scores, both ways round; the score is its linear function. Where rows have one completion each: "
    "LogisticRegression(max_iter=1000) on two different scores, Ridge() on more. Everything else at its default, "
    "nothing tuned."
)


def by_length(test: Sequence[Example], sign: int) -> list[str]:
    """The longer completion (sign 1) or the shorter one (sign -1)."""
    return [json.dumps([sign * len(c.message.content) for c in e.completions]) for e in test]


def bag_of_words(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """What words of the completions teach; see WORDS_NOTE. All alike where there is no word, or nothing to learn.

    Raises DataError without a training row that people judged.
    """
    if not any(e.completions for e in train):
        raise DataError("no judged training rows for the baselines", "at least one")
    texts, scores = _texts(train), [np.array([c.score for c in e.completions]) for e in train]
    found = np.zeros(sum(len(e.completions) for e in test))
    vectorizer = vectorizer_of(texts)
    if vectorizer is not None and len(found):
        linear = linear_reward(vectorizer.fit_transform(texts), scores)
        found = linear(vectorizer.transform(_texts(test)))
    ends = np.cumsum([len(e.completions) for e in test])
    return [json.dumps(part.tolist()) for part in np.split(found, ends[:-1])] if len(test) else []


def judgement_of(name: str, scores: Scores, settings: Settings = DEFAULT) -> Judgement | None:
    """How the system called `name` agrees with people, and whether it goes by length; None for other tasks."""
    if scores.task != "judged":
        return None
    found = interval(scores, "pair_accuracy", settings)
    assert found is not None
    words = [describe_agreement(name, found, settings.confidence)]
    if "prefers_longer" in scores.metrics:
        names = ("prefers_longer", "people_prefer_longer", "length_correlation")
        words.append(describe_length(name, *(scores.metrics[n] for n in names)))
    return Judgement(system=name, words=words, lengths=[LengthGroup(**asdict(b)) for b in scores.lengths])


def judged_completions(example: Example, base: str, tuned: str) -> list[Judged]:
    """A row's completions, or steps, with people's and both systems' scores. base, tuned: the systems' answers."""
    count = len(example.completions)
    read = parse_steps if example.stepwise else parse_numbers
    found = (read(base), read(tuned))
    before, after = (f if f is not None and len(f) == count else [None] * count for f in found)
    return [
        Judged(text=c.message.content, people=None if math.isnan(c.score) else c.score, base=b, tuned=t)
        for c, b, t in zip(example.completions, before, after, strict=True)
    ]


def _texts(examples: Sequence[Example]) -> list[str]:
    return [c.message.content for e in examples for c in e.completions]


def linear_reward(vectors: Any, scores: Sequence[NDArray[np.floating[Any]]]) -> Callable[[Any], Floats]:
    """The linear function of the vectors of completions that people's scores teach: (C, V) -> (C,).

    vectors: (C, V), sparse or not, of all completions in order. scores: of each row, those of its completions. Rows of
    several teach by their pairs of unequal scores (Bradley-Terry), single completions by their scores: two different
    ones are classes, more are numbers. 0 for everything where there is nothing to tell apart.
    """
    from scipy.sparse import issparse, vstack
    from sklearn.linear_model import LogisticRegression, Ridge

    better, worse = _pairs(scores)
    flat = np.concatenate(scores)
    levels = len(np.unique(flat))
    if better:
        apart = vectors[better] - vectors[worse]
        both = vstack([apart, -apart]) if issparse(apart) else np.concatenate([apart, -apart])
        model = LogisticRegression(fit_intercept=False, max_iter=1000)
        return _decision(model.fit(both, np.repeat([1, -1], len(better))))
    if levels < 2 or any(len(of_row) > 1 for of_row in scores):
        return lambda found: np.zeros(found.shape[0])
    if levels == 2:
        return _decision(LogisticRegression(max_iter=1000).fit(vectors, flat == flat.max()))
    predict: Callable[[Any], Floats] = Ridge().fit(vectors, flat).predict
    return predict


def _pairs(scores: Sequence[NDArray[np.floating[Any]]]) -> tuple[list[int], list[int]]:
    """(better, worse): the places, among all completions, of each row's pairs of unequal scores."""
    better, worse = [], []
    start = 0
    for of_row in scores:
        places = range(start, start := start + len(of_row))
        for (i, a), (j, b) in itertools.combinations(zip(places, of_row, strict=True), 2):
            if a > b or b > a:  # neither where an answer is to another prompt, and has no score
                better.append(i if a > b else j)
                worse.append(j if a > b else i)
    return better, worse


def _decision(model: Any) -> Callable[[Any], Any]:
    function: Callable[[Any], Any] = model.decision_function
    return function
