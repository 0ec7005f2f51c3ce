"""Ranking: of all texts that the test rows hold beside their anchors, which lie nearest to each anchor."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.embed_rows import texts_in
from tunesmith.scoring.ranking import DEPTH
from tunesmith.types import Example

ANCHORS_AT_ONCE = 512
TFIDF_NOTE = (
    "scikit-learn: TfidfVectorizer(sublinear_tf=True), everything else at its default, fitted on the training rows' "
    "anchors and positives and on the candidates; the candidates by their cosine with the anchor"
)


@dataclass(frozen=True)
class Offered:
    """What N anchors may be answered with. texts: M different candidates. barred: for each anchor the numbers of
    those that are not offered to it: its own text, and what belongs to another row with the same anchor or of the same
    class."""

    texts: tuple[str, ...]
    barred: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Offered:
        rows = [texts_in(e) for e in examples]
        number: dict[str, int] = {}
        belongs: dict[str, set[int]] = {}
        for anchor, positive, *negatives in rows:
            for text in (positive, *negatives):
                number.setdefault(text, len(number))
            belongs.setdefault(anchor, set()).add(number[positive])
        classes: dict[str, set[int]] = {}
        for example, (anchor, positive, *_) in zip(examples, rows, strict=True):
            if example.label is not None:
                texts = {number[positive], *([number[anchor]] if anchor in number else [])}
                classes.setdefault(example.label, set()).update(texts)
        barred = []
        for example, (anchor, positive, *_) in zip(examples, rows, strict=True):
            others = belongs[anchor] | classes.get(example.label or "", set())
            others |= {number[anchor]} if anchor in number else set()
            barred.append(tuple(sorted(others - {number[positive]})))
        return cls(tuple(number), tuple(barred))

    def ranked(self, likeness: Callable[[slice], NDArray[np.float64]]) -> list[str]:
        """For each anchor the JSON list of its DEPTH best candidates. likeness(anchors) -> (n, M)."""
        out: list[str] = []
        for start in range(0, len(self.barred), ANCHORS_AT_ONCE):
            found = np.array(likeness(slice(start, start + ANCHORS_AT_ONCE)), np.float64)
            for row, values in enumerate(found):
                values[list(self.barred[start + row])] = -np.inf
                best = np.argsort(-values, kind="stable")[:DEPTH]
                names = [self.texts[i] for i in best if np.isfinite(values[i])]
                out.append(json.dumps(names, ensure_ascii=False))
        return out


def tfidf_ranking(
    train_texts: Sequence[str], train_answers: Sequence[str], test_texts: Sequence[str], offered: Offered
) -> list[str]:
    """What TF-IDF ranks first; see TFIDF_NOTE. Without a word in any text: the order of the file."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True)
    has_words = vectorizer.build_analyzer()
    texts = [*train_texts, *train_answers, *offered.texts]
    if not any(has_words(text) for text in texts):
        return offered.ranked(lambda rows: np.zeros((len(test_texts[rows]), len(offered.texts))))
    vectorizer.fit(texts)
    anchors, candidates = vectorizer.transform(test_texts), vectorizer.transform(offered.texts)
    return offered.ranked(lambda rows: (anchors[rows] @ candidates.T).toarray())
