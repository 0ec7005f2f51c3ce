"""Metrics that are no means of row scores: what their value needs of each row.

Macro-F1, corpus BLEU, r² or AUROC belong to a set of rows, not to a row. Each can be had again for any
reweighted sample of the same rows, and that is all that an interval or a test asks of it. Shapes: N rows, U
distinct rows, B samples, R and A columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Value = Callable[[Array, Array, Floats], Floats]
"""(reference (U, R), predicted (U, A), weights (B, U): how often each row counts) -> (B,) values.

NaN where a sample leaves the metric undefined (AUROC of rows that are all of one class)."""


class Pooled(Protocol):
    """What one metric needs of the N rows of one system.

    reference: (N,) or (N, R), what the row's reference says: the same for every system. predicted: (N,) or
    (N, A), what the system's answer adds. classes: the names that numbers stand for, if any.
    """

    @property
    def reference(self) -> Array: ...

    @property
    def predicted(self) -> Array: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    def value(self, reference: Array, predicted: Array, weights: Floats) -> Floats:
        """See `Value`."""
        ...


@dataclass(frozen=True, slots=True)
class Columns:
    """A Pooled made of two tables and a function."""

    reference: Array
    predicted: Array
    function: Value
    classes: tuple[str, ...] = ()

    def value(self, reference: Array, predicted: Array, weights: Floats) -> Floats:
        return self.function(reference, predicted, weights)


def table(values: Array) -> Array:
    """(N,) as one column; (N, K) as it is."""
    return values[:, None] if values.ndim == 1 else values


def whole(pooled: Pooled) -> float:
    """The metric over all rows, each counted once."""
    ones = np.ones((1, len(pooled.predicted)))
    return float(pooled.value(table(pooled.reference), table(pooled.predicted), ones)[0])


def wholes(pooled: dict[str, Columns]) -> dict[str, float]:
    return {name: whole(columns) for name, columns in pooled.items()}
