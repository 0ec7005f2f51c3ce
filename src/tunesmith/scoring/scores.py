"""How one system did on N rows: the metrics, and what their intervals stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.scoring.labels import Codes
from tunesmith.scoring.metrics import Task
from tunesmith.scoring.pooled import Pooled
from tunesmith.scoring.probabilities import Calibration


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Pairs of completions of which one is longer by about `characters`: how often the system and how often people
    prefer the longer one (a tie counts half)."""

    characters: float
    prefers_longer: float
    people_prefer_longer: float
    count: int


@dataclass(frozen=True, slots=True)
class Scores:
    """How one system did on N rows.

    metrics: name -> value; the names are those of METRICS, and of parts, as in `accuracy.<field>`, `mae.<target>`.
    per_row: name -> (N,) float64, for the metrics that are means of rows; NaN where a row does not count;
    `<name>_by_row` is none of `metrics`, but says of single rows what a pooled metric cannot. pooled: name -> what
    the metric is made of, for the metrics that are not means of rows (`macro_f1`, `bleu`). labels: the classes; the
    names of the targets, where a row has several numbers. confusion: (L, L + 1) int64 for labels (last column: no
    valid label), else None. per_class: class -> precision, recall, f1, support, predicted. answers: what each
    prediction was read as: a label, canonical JSON, text; None if invalid. calibration: how far probabilities can
    be believed, where they were given. lengths: how preferences go with length, where completions of one prompt
    were judged.
    """

    task: Task
    metrics: dict[str, float]
    per_row: dict[str, NDArray[np.float64]]
    pooled: Mapping[str, Pooled] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    confusion: NDArray[np.int64] | None = None
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    answers: tuple[str | None, ...] = ()
    calibration: Calibration | None = None
    lengths: tuple[LengthBin, ...] = ()

    @property
    def num_rows(self) -> int:
        return len(self.answers)

    @property
    def codes(self) -> dict[str, Codes]:
        """The metrics that stand on class numbers: `macro_f1`, `macro_f1.<field>`."""
        return {name: pooled for name, pooled in self.pooled.items() if isinstance(pooled, Codes)}


def means(rows: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    return {name: float(np.nanmean(values)) for name, values in rows.items()}
