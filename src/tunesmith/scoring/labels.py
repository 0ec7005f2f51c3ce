"""Answers that are class names: which class an answer names, and how well the classes are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError, near_miss
from tunesmith.scoring.counts import AVERAGES, MEASURES, Counts, averaged
from tunesmith.scoring.pooled import Array, Floats
from tunesmith.scoring.text import normalise


@dataclass(frozen=True, slots=True)
class Codes:
    """References and predictions as class numbers.

    reference: (N,) int64 in [0, L). predicted: (N,) int64 in [0, L]; L means 'no valid class'. classes: the L
    names. rows: (N,) int64, which row of the test set each entry is. As a `Pooled`, its value is macro-F1.
    """

    reference: NDArray[np.int64]
    predicted: NDArray[np.int64]
    classes: tuple[str, ...]
    rows: NDArray[np.int64]

    def value(self, reference: Array, predicted: Array, weights: Floats) -> Floats:
        return weighted_macro_f1(reference[:, 0], predicted[:, 0], weights, len(self.classes))


def match_label(text: str, labels: Sequence[str]) -> str | None:
    """The label this answer names: the same text, or the only one that is the same after `normalise`.

    None ('no valid label') otherwise: an answer that holds more than the label, or nothing, is wrong.
    """
    stripped = text.strip()
    if stripped in labels:
        return stripped
    wanted = normalise(text)
    same = [label for label in labels if normalise(label) == wanted]
    return same[0] if len(same) == 1 else None


def label_codes(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Codes:
    """Class numbers of references and predictions.

    Raises DataError when a reference is not one of the labels.
    """
    index = {label: number for number, label in enumerate(labels)}
    reference = []
    for row, text in enumerate(references):
        label = match_label(text, labels)
        if label is None:
            raise DataError(
                f"reference of row {row} is '{text}', which is none of the {len(labels)} labels",
                near_miss(text, labels) if labels else "at least one label",
                "give every class of the test rows in `labels`",
            )
        reference.append(index[label])
    memo = {text: match_label(text, labels) for text in set(predictions)}
    predicted = [len(labels) if memo[text] is None else index[str(memo[text])] for text in predictions]
    return Codes(
        np.asarray(reference, np.int64),
        np.asarray(predicted, np.int64),
        tuple(labels),
        np.arange(len(references)),
    )


def confusion(codes: Codes) -> NDArray[np.int64]:
    """(L, L + 1) counts: rows are references, columns predictions, the last column 'no valid class'."""
    size = len(codes.classes)
    table = np.zeros((size, size + 1), np.int64)
    np.add.at(table, (codes.reference, codes.predicted), 1)
    return table


def averages(codes: Codes) -> dict[str, float]:
    """Precision, recall and F1, averaged three ways; keys such as `macro_f1`. 0 / 0 counts as 0.

    macro and weighted: over the classes that occur in the references. micro: over all classes, so an answer
    that is no valid class lowers recall only.
    """
    counts = _counts(codes)
    counts.named[:, -1] = 0
    sums = (counts.support, counts.hits, counts.named)
    return {f"{a}_{m}": float(averaged(a, m, *sums)[0]) for a in AVERAGES for m in MEASURES}


def per_class(codes: Codes) -> dict[str, dict[str, float]]:
    """class -> precision, recall, f1, support (rows of that class) and predicted (answers naming it)."""
    return _counts(codes).per_class()


def _counts(codes: Codes) -> Counts:
    """Of all rows together."""
    table = confusion(codes).astype(np.float64)
    return Counts(table.sum(axis=1)[None], table.diagonal()[None], table.sum(axis=0)[None], codes.classes)


def weighted_macro_f1(
    reference: NDArray[np.int64], predicted: NDArray[np.int64], weights: NDArray[np.float64], num_classes: int
) -> NDArray[np.float64]:
    """macro-F1 of many reweighted samples at once; the bootstrap and the permutation test stand on it.

    reference, predicted: (U,) class numbers. weights: (B, U), how often each of the U rows counts in each
    sample. Returns (B,): F1 averaged over the classes with reference rows in that sample.
    """
    classes = np.arange(num_classes)
    of_class = (reference[:, None] == classes).astype(np.float64)  # (U, L)
    as_class = (predicted[:, None] == classes).astype(np.float64)
    support = weights @ of_class  # (B, L)
    both = support + weights @ as_class
    f1 = np.divide(2 * (weights @ (of_class * as_class)), both, out=np.zeros_like(both), where=both > 0)
    present = support > 0
    num_present = present.sum(axis=1)
    total = (f1 * present).sum(axis=1)
    out: NDArray[np.float64] = np.divide(total, num_present, out=np.zeros_like(total), where=num_present > 0)
    return out
