"""What is left after all steps: of each split its rows, their lengths and their labels, counted as they are written."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith.desk.findings import SHOWN_LABELS, balance
from tunesmith.desk.lengths import binned, figures
from tunesmith.desk.looks import LABELS
from tunesmith.desk.rows import CONTENT, Row


@dataclass
class Left:
    """Of one split. lengths: characters of each row's texts. labels: rows with each; unnamed: rows whose labels there
    was no room for."""

    lengths: array[int] = field(default_factory=lambda: array("l"))
    labels: Counter[str] = field(default_factory=Counter)
    unnamed: int = 0

    def add(self, row: Row) -> None:
        texts = row.texts
        content = [len(text.text) for text in texts if text.part in CONTENT]
        self.lengths.append(sum(content) or sum(len(text.text) for text in texts if text.part == "fixed"))
        if labels := named(row):
            self._count(Counter(labels))

    def join(self, lengths: Iterable[int], labels: Mapping[str, int], unnamed: int) -> None:
        """Rows that another process added."""
        self.lengths.extend(lengths)
        self._count(labels)
        self.unnamed += unnamed

    def _count(self, labels: Mapping[str, int]) -> None:
        for label, count in labels.items():
            if label in self.labels or len(self.labels) < LABELS:
                self.labels[label] += count
            else:
                self.unnamed += count

    def as_dict(self) -> dict[str, Any]:
        characters = np.array(self.lengths, np.int64)
        out: dict[str, Any] = {
            "rows": len(characters),
            "characters": figures(characters),
            "histogram": binned(characters),
        }
        if self.labels:
            out["labels"] = balance(self.labels) | {"unnamed": self.unnamed}
        return out


def named(row: Row) -> list[str]:
    """The labels of a row as the file spells them: a class, or each of several."""
    columns = row.shape.meaning.columns
    if row.shape.meaning.kind not in ("label", "labels", "unpaired"):
        return []
    value = row.values.get(columns.get("labels", columns.get("label", "")))
    values = value if isinstance(value, list) else [value]
    return [str(one)[:200] for one in values if isinstance(one, str | int) and one != ""]


def labels_line(labels: dict[str, Any]) -> str:
    """The commonest, for a table."""
    said = ", ".join(f"{label} {count:,}" for label, count in list(labels["counts"].items())[:SHOWN_LABELS])
    more = labels["classes"] - min(labels["classes"], SHOWN_LABELS)
    return said + (f", {more:,} more" if more else "")
