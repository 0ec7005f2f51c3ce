"""Free text: scores row by row, and BLEU and chrF of all answers together, from counts that rows add up to.

Shapes: N rows, U distinct rows, B samples, K counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from tunesmith.scoring import text
from tunesmith.scoring.pooled import Array, Columns, Floats, wholes
from tunesmith.scoring.scores import Scores, means


def score_text(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Scores:
    """Scores of free text; `labels` play no part."""
    measures: dict[str, Callable[[str, str], float]] = {
        "rouge_l": text.rouge_l,
        "token_f1": text.token_f1,
        "exact_match": text.exact_match,
        "rouge_1": partial(text.rouge_n, n=1),
        "rouge_2": partial(text.rouge_n, n=2),
    }
    rows = {
        name: np.array([float(measure(r, p)) for r, p in zip(references, predictions, strict=True)])
        for name, measure in measures.items()
    }
    pooled = {"bleu": bleu(references, predictions), "chrf": chrf(references, predictions)}
    return Scores("text", means(rows) | wholes(pooled), rows, pooled, answers=tuple(predictions))


def bleu(references: Sequence[str], predictions: Sequence[str]) -> Columns:
    """sacrebleu's corpus BLEU (0 to 100) with its defaults: one reference, 13a words, up to four words in a
    run, exponential smoothing."""
    from sacrebleu import BLEU

    metric = BLEU(
        effective_order=True
    )  # for the counts of a row; the corpus score below has it off, as sacrebleu
    rows = [metric.sentence_score(p, [r]) for r, p in zip(references, predictions, strict=True)]
    counts = np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in rows], dtype=np.float64)
    return Columns(np.empty((len(rows), 0)), counts, _bleu)


def _bleu(reference: Array, counts: Array, weights: Floats) -> Floats:
    """counts: (U, 10) length of the answer and of the reference, then right and all runs of 1 to 4 words."""
    from sacrebleu import BLEU

    order = (counts.shape[1] - 2) // 2
    return np.array(
        [
            BLEU.compute_bleu(
                correct=sums[2 : 2 + order].tolist(),
                total=sums[2 + order :].tolist(),
                sys_len=int(sums[0]),
                ref_len=int(sums[1]),
                smooth_method="exp",
            ).score
            for sums in weights @ counts
        ]
    )


def chrf(references: Sequence[str], predictions: Sequence[str]) -> Columns:
    """chrF2 (0 to 100) of the corpus, as sacrebleu's default (WMT 2015, W15-3049): runs of 1 to 6 characters
    without white space, recall weighted twice."""
    from sacrebleu import CHRF, extract_char_ngrams

    orders = range(1, CHRF.CHAR_ORDER + 1)
    counts = np.empty((len(references), 3 * len(orders)))
    for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        for i, n in enumerate(orders):
            wanted, got = (extract_char_ngrams(text, n) for text in (reference, prediction))
            # as sacrebleu: runs of an order that the reference is too short for do not count against the answer
            counts[row, 3 * i : 3 * i + 3] = (
                got.total() if wanted else 0,
                wanted.total(),
                (wanted & got).total(),
            )
    return Columns(np.empty((len(counts), 0)), counts, _chrf)


def _chrf(reference: Array, counts: Array, weights: Floats) -> Floats:
    """counts: (U, 18), for each order the runs of the answer, of the reference, and shared ones."""
    from sacrebleu import CHRF

    got, wanted, shared = np.moveaxis((weights @ counts).reshape(len(weights), -1, 3), 2, 0)
    used = (got > 0) & (wanted > 0)
    orders = np.maximum(used.sum(axis=1), 1)
    precision, recall = (
        np.divide(shared, all_runs, out=np.zeros_like(shared), where=used).sum(axis=1) / orders
        for all_runs in (got, wanted)
    )
    beta2 = CHRF.BETA**2
    below = beta2 * precision + recall
    out: Floats = np.divide(
        (1 + beta2) * precision * recall, below, out=np.zeros_like(below), where=below > 0
    )
    return 100 * out
