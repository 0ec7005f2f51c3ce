"""BLEU and chrF against sacrebleu on whole corpora; ROUGE-N against its definition."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import BLEU, CHRF

from tunesmith.scoring import corpus, score, text
from tunesmith.scoring.pooled import Columns, whole

REFERENCES = [
    "The cat sat on the mat near the door.",
    "I would like my money back, please!",
    "yes",
    "Straße nach Köln",
    "",
    "我要退款 now",
]
ANSWERS = [
    "The cat sat on a mat by the door.",
    "I want my money back please",
    "no",
    "Strasse nach Köln und weiter",
    "words for nothing",
    "我想退款",
]
METRICS = {"bleu": (corpus.bleu, BLEU(force=True)), "chrf": (corpus.chrf, CHRF())}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [0], [2], [4], [0, 1, 1, 3, 3, 3]])
def test_a_corpus_scores_as_in_sacrebleu(name: str, rows: list[int]) -> None:
    ours, theirs = METRICS[name]
    references, answers = [REFERENCES[i] for i in rows], [ANSWERS[i] for i in rows]
    wanted = theirs.corpus_score(answers, [references]).score
    assert whole(ours(references, answers)) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_a_reweighted_sample_is_a_corpus_with_repeated_rows(name: str) -> None:
    ours, theirs = METRICS[name]
    pooled: Columns = ours(REFERENCES, ANSWERS)
    weights = np.random.default_rng(0).integers(0, 4, (20, len(ANSWERS))).astype(float)
    found = pooled.value(pooled.reference, pooled.predicted, weights)
    for row, value in zip(weights, found, strict=True):
        repeated = np.repeat(np.arange(len(ANSWERS)), row.astype(int))
        wanted = theirs.corpus_score([ANSWERS[i] for i in repeated], [[REFERENCES[i] for i in repeated]])
        assert value == pytest.approx(wanted.score, abs=1e-9)


def test_a_perfect_answer_scores_100() -> None:
    found = score("text", REFERENCES[:2], REFERENCES[:2]).metrics
    assert found["bleu"] == pytest.approx(100)
    assert found["chrf"] == pytest.approx(100)
    assert found["rouge_1"] == found["rouge_2"] == 1


WORDS = st.lists(st.sampled_from("abc"), max_size=7)


@given(WORDS, WORDS, st.integers(1, 3))
def test_rouge_n_counts_shared_runs_of_n_words(a: list[str], b: list[str], n: int) -> None:
    runs = [Counter(" ".join(x[i : i + n]) for i in range(len(x) - n + 1)) for x in (a, b)]
    found = text.rouge_n(" ".join(a), " ".join(b), n)
    if not runs[0] and not runs[1]:
        assert found == (a == b)
        return
    shared = sum(min(count, runs[1][run]) for run, count in runs[0].items())
    precision, recall = shared / max(sum(runs[1].values()), 1), shared / max(sum(runs[0].values()), 1)
    assert found == pytest.approx(2 * precision * recall / (precision + recall) if shared else 0)


def test_rouge_n_of_the_textbook_example() -> None:
    # Lin 2004, section 3.1: both candidates share one pair of words
    for candidate in ("police kill the gunman", "the gunman kill police"):
        assert text.rouge_n("police killed the gunman", candidate, 2) == pytest.approx(1 / 3)
    assert text.rouge_n("police killed the gunman", "the gunman kill police", 1) == pytest.approx(3 / 4)
    assert text.rouge_n("yes", "no", 2) == 0
    assert text.rouge_n("Yes", "yes", 2) == 1
