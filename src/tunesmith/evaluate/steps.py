"""Steps that people judged: what needs no language model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np

from tunesmith.evaluate.vectorizer import vectorizer_of
from tunesmith.scoring.steps import RIGHT
from tunesmith.types import Example

RIGHT_NOTE = "Says of every step that it is right."
WORDS_NOTE = (
    "scikit-learn, on TF-IDF of a step alone (TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)): "
    "LogisticRegression(max_iter=1000) on whether the training rows' judged steps are right, everything else at its "
    "default, nothing tuned."
)


def all_right(test: Sequence[Example]) -> list[str]:
    return [json.dumps([1.0] * len(e.completions)) for e in test]


def bag_of_words(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """What words of a step teach; the training rows' share of right steps where there is nothing to learn."""
    from sklearn.linear_model import LogisticRegression

    judged = [c for e in train for c in e.completions if not math.isnan(c.score)]
    texts, right = [c.message.content for c in judged], np.array([c.score >= RIGHT for c in judged])
    asked = [c.message.content for e in test for c in e.completions]
    vectorizer = vectorizer_of(texts)
    found = np.full(len(asked), right.mean())
    if vectorizer is not None and 0 < right.mean() < 1 and asked:
        model = LogisticRegression(max_iter=1000).fit(vectorizer.fit_transform(texts), right)
        found = model.predict_proba(vectorizer.transform(asked))[:, 1]
    ends = np.cumsum([len(e.completions) for e in test])
    return [json.dumps(part.tolist()) for part in np.split(found, ends[:-1])] if len(test) else []
