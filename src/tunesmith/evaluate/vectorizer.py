"""The bag of words that baselines stand on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer


def vectorizer_of(texts: Sequence[str]) -> TfidfVectorizer | None:
    """TF-IDF of words and pairs of words, not yet fitted; None where the texts have no word."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    has_words = vectorizer.build_analyzer()
    return vectorizer if any(has_words(text) for text in texts) else None
