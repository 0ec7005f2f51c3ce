"""Labels that are another one mistyped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.desk.rows import Row, with_texts
from tunesmith.desk.steps import Outcome, Seen

LONGEST = 64
"""Bytes of a label; a longer one is no class name, and is left alone."""
COUNTED = [("label", f"S{LONGEST + 1}"), ("count", np.int64)]
MORE = 10
"""Times as frequent as the mistyped one that the right one must be, where more than case and blanks differ."""


@dataclass(frozen=True)
class Labels:
    """Counts the first label of each row; labels of one class in several spellings become the commonest."""

    name: str = "clean: labels"

    def look(self, rows: Sequence[Row]) -> NDArray[Any]:
        """(labels of these rows): each with how often it stands there, so that it does not matter how many rows."""
        found = Counter(_label(row).encode()[: LONGEST + 1] for row in rows)
        return np.array(list(found.items()), COUNTED)

    def decide(self, seen: Seen) -> Relabelling:
        found: Counter[bytes] = Counter()
        for raw, count in seen.looks.tolist():
            found[raw] += count
        counts = {raw.decode(): n for raw, n in found.items() if raw and len(raw) <= LONGEST}
        return Relabelling(self.name, mistyped(counts))


@dataclass(frozen=True)
class Relabelling:
    name: str
    table: Mapping[str, str]

    def apply(self, row: Row) -> Outcome | None:
        if not self.table:
            return None
        texts = [text for text in row.texts if text.part == "label" and text.text in self.table]
        if not texts:
            return None
        changed = {text.path: self.table[text.text] for text in texts}
        said = ", ".join(f"'{text.text}' is '{self.table[text.text]}'" for text in texts)
        return Outcome(with_texts(row.values, changed), ("labels",), said)


def _label(row: Row) -> str:
    return next((text.text for text in row.texts if text.part == "label"), "")


def mistyped(counts: Mapping[str, int]) -> dict[str, str]:
    """wrong -> right: labels alike but for case, blanks, `_` and `-` become the commonest of them (the first in the
    alphabet of equals); one a single letter away from a label ten times as frequent, and at least 5 long, becomes that
    one. Digits never count as mistyped: `tier1` and `tier2` are two classes."""
    table: dict[str, str] = {}
    alike: dict[str, list[str]] = {}
    for label in sorted(counts):
        alike.setdefault("".join(label.casefold().replace("_", " ").replace("-", " ").split()), []).append(
            label
        )
    kept: dict[str, tuple[str, int]] = {}
    for key, labels in alike.items():
        best = min(labels, key=lambda label: (-counts[label], label))
        table |= {label: best for label in labels if label != best}
        kept[key] = (best, sum(counts[label] for label in labels))
    for key, (label, count) in kept.items():
        right = [b for k, (b, n) in kept.items() if n >= MORE * count and _one_letter(key, k)]
        if right:
            target = min(right, key=lambda b: (-counts[b], b))
            table = {wrong: target if to == label else to for wrong, to in table.items()} | {label: target}
    return table


def _one_letter(one: str, other: str) -> bool:
    """Whether one letter inserted, left out, changed, or two neighbours exchanged, make one the other."""
    if min(len(one), len(other)) < 5 or abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    a, b = one[start:], other[start:]
    ways: Iterable[tuple[str, str, str]] = (
        (a[1:], b[1:], a[:1] + b[:1]),
        (a[1:], b, a[:1]),
        (a, b[1:], b[:1]),
        (a[2:], b[2:], a[:2]) if a[:2] == b[1::-1] else ("x", "y", ""),
    )
    return any(x == y and not any(c.isdigit() for c in letters) for x, y, letters in ways)
