"""Answers that name several things in a row: classes of a text, or spans of it. Counted by class.

Shapes: N rows, L classes, U distinct rows, B samples.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from tunesmith.scoring.pooled import Array, Columns, Floats

Average = Literal["micro", "macro", "weighted"]
Measure = Literal["precision", "recall", "f1"]
AVERAGES: tuple[Average, ...] = ("macro", "micro", "weighted")
MEASURES: tuple[Measure, ...] = ("precision", "recall", "f1")
Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many things of each class each row's reference has and answer names.

    support: (N, L), in the reference. hits: (N, L), named and right. named: (N, L + 1), in the answer; the
    last column counts things of no known class.
    """

    support: Floats
    hits: Floats
    named: Floats
    classes: tuple[str, ...]

    def pooled(self, average: Average, measure: Measure) -> Columns:
        """Precision, recall or F1, averaged over the classes; `averaged` says how."""
        size = len(self.classes)

        def value(reference: Array, predicted: Array, weights: Floats) -> Floats:
            sums = (weights @ reference, weights @ predicted[:, :size], weights @ predicted[:, size:])
            return averaged(average, measure, *sums)

        return Columns(self.support, np.hstack([self.hits, self.named]), value, self.classes)

    def per_class(self) -> dict[str, dict[str, float]]:
        """class -> precision, recall, f1, support (how many there are) and predicted (how many are named)."""
        support, hits, named = (x.sum(axis=0) for x in (self.support, self.hits, self.named))
        every = {measure: ratio(measure, support, hits, named[:-1]) for measure in MEASURES}
        return {
            name: {
                **{measure: float(values[i]) for measure, values in every.items()},
                "support": float(support[i]),
                "predicted": float(named[i]),
            }
            for i, name in enumerate(self.classes)
        }


def count(
    references: Sequence[Set[Item]],
    answers: Sequence[Set[Item]],
    classes: Sequence[str],
    class_of: Callable[[Item], str],
) -> Counts:
    """Counts of sets of things. class_of: the class of a thing; one that is not among `classes` is
    unknown."""
    index = {name: number for number, name in enumerate(classes)}
    shape = (len(references), len(classes) + 1)
    support, hits, named = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for row, (wanted, got) in enumerate(zip(references, answers, strict=True)):
        for counted, things in ((support, wanted), (hits, wanted & got), (named, got)):
            for thing in things:
                counted[row, index.get(class_of(thing), -1)] += 1
    return Counts(support[:, :-1], hits[:, :-1], named, tuple(classes))


def averaged(average: Average, measure: Measure, support: Floats, hits: Floats, named: Floats) -> Floats:
    """(B,) from sums over rows: support, hits (B, L), named (B, L + 1). 0 / 0 counts as 0.

    micro: of the sums over all classes, so that a thing of no known class lowers precision. macro and
    weighted: of each class that the references have, with equal weight, or weighted by how often they have
    it.
    """
    if average == "micro":
        return ratio(measure, support.sum(axis=1), hits.sum(axis=1), named.sum(axis=1))
    each = ratio(measure, support, hits, named[:, :-1])
    weights = (support > 0).astype(np.float64) if average == "macro" else support
    return _divide((each * weights).sum(axis=1), weights.sum(axis=1))


def ratio(measure: Measure, support: Floats, hits: Floats, named: Floats) -> Floats:
    """Elementwise hits / named, hits / support, or their harmonic mean; 0 / 0 counts as 0."""
    if measure == "precision":
        return _divide(hits, named)
    return _divide(hits, support) if measure == "recall" else _divide(2 * hits, support + named)


def _divide(above: Floats, below: Floats) -> Floats:
    out: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return out
