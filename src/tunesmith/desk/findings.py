"""What the numbers of all rows say: balance of labels, prompts that contradict each other, rows to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.desk.lengths import Measure
from tunesmith.desk.looks import (
    SIZES,
    Looks,
    Tables,
    asked_and_answered,
    classes_of,
    labels_of,
    sizes_of,
)
from tunesmith.desk.reading import Read
from tunesmith.desk.rows import CONTENT, SPLITS, Row
from tunesmith.desk.steps import excerpt
from tunesmith.desk.suspects import BITS, REASONS, mask_of, reasons_in, reasons_of
from tunesmith.errors import RowError

NUMBER_BINS = 24
"""Of a histogram of numbers; fewer where there are fewer numbers."""
RARE = 10
"""Rows below which a class is rare."""
SHOWN_LABELS = 40
FREE = 10
"""A field of a JSON answer that has more values than a tenth of the rows is free text, and no class."""
WORST, OF_ONE_REASON = 20, 5
"""Rows to look at that are shown, and of them at most so many whose worst reason is the same."""


# Labels --------------------------------------------------------------------------------------------------


def balance(labels: Mapping[str, int]) -> dict[str, Any]:
    """entropy in bits, and as a share of the most that so many classes can have; imbalance: of the commonest, how many
    times as many rows as of the rarest; rare: classes of fewer than ten rows."""
    rows = sum(labels.values())
    entropy = sum(n / rows * math.log2(rows / n) for n in labels.values())
    ordered = dict(sorted(labels.items(), key=lambda one: (-one[1], one[0])))
    rare = [label for label, count in ordered.items() if count < RARE]
    return {
        "classes": len(labels),
        "rows": rows,
        "entropy": round(entropy, 4),
        "evenness": round(entropy / math.log2(len(labels)), 4) if len(labels) > 1 else 1.0,
        "imbalance": round(max(labels.values()) / min(labels.values()), 2),
        "rare": len(rare),
        "rarest": rare[::-1][:SHOWN_LABELS],
        "counts": dict(list(ordered.items())[:SHOWN_LABELS]),
    }


def labels_facts(read: Read, tables: Tables, looks: Looks) -> dict[str, dict[str, Any]]:
    """column -> split -> balance, of columns that hold classes."""
    fields = {name for shape in read.shapes for name in shape.meaning.json_fields}
    out: dict[str, dict[str, Any]] = {}
    for column in dict.fromkeys(c for split in SPLITS for c in tables.labels[split]):
        found = {s: tables.labels[s][column] for s in SPLITS if column in tables.labels[s]}
        distinct = len({label for table in found.values() for label in table})
        if column in fields and distinct * FREE > len(looks.splits):
            continue
        out[column] = {s: balance({label: n for label, (n, _) in t.items()}) for s, t in found.items()}
    return out


def numbers_facts(read: Read, looks: Looks) -> dict[str, dict[str, Any]]:
    """column -> split -> how the numbers of a target lie; bins are of one width."""
    found: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    for file, shape in enumerate(read.shapes):
        for place, column in enumerate(shape.meaning.targets):
            for at, split in enumerate(SPLITS):
                values = looks.targets[(looks.files == file) & (looks.splits == at), place]
                if len(values := values[~np.isnan(values)]):
                    found.setdefault(column, {}).setdefault(split, []).append(values)
    return {
        column: {split: _spread(np.concatenate(parts)) for split, parts in splits.items()}
        for column, splits in found.items()
    }


def _spread(values: NDArray[np.float64]) -> dict[str, Any]:
    counts, edges = np.histogram(values, min(NUMBER_BINS, max(1, len(np.unique(values)))))
    quartiles = np.percentile(values, (25, 50, 75))
    return {
        "rows": len(values),
        "mean": float(values.mean()),
        "deviation": float(values.std()),
        **dict(
            zip(
                ("least", "p25", "p50", "p75", "most"),
                map(float, (values.min(), *quartiles, values.max())),
                strict=True,
            )
        ),
        "distinct": len(np.unique(values)),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def label_once(read: Read, tables: Tables) -> dict[int, str]:
    """Number of a row -> its label, which no other row of any split has."""
    columns = {
        shape.meaning.columns[part]
        for shape in read.shapes
        for part in ("label", "labels")
        if shape.meaning.kind == part
    }
    found: dict[tuple[str, str], list[int]] = {}
    for split in SPLITS:
        for column in columns & tables.labels[split].keys():
            for label, (count, first) in tables.labels[split][column].items():
                entry = found.setdefault((column, label), [0, first])
                entry[0] += count
    return {first: label for (_, label), (count, first) in found.items() if count == 1}


# Prompts with several answers ----------------------------------------------------------------------------


def conflicting(looks: Looks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of rows whose prompt stands elsewhere with another answer, by prompts, and where each prompt begins."""
    usable = np.flatnonzero((looks.keys[:, 1] != 0) & (looks.masks & BITS["unusable"] == 0))
    order = usable[np.lexsort((usable, looks.keys[usable, 1], looks.keys[usable, 0]))]
    asked, answered = looks.keys[order].T
    if not len(order):
        return order, order
    starts = np.flatnonzero(np.concatenate([[True], asked[1:] != asked[:-1]]))
    ends = np.concatenate([starts[1:], [len(order)]])
    differ = answered[starts] != answered[ends - 1]
    groups = [np.sort(order[a:b]) for a, b in zip(starts[differ], ends[differ], strict=True)]
    groups.sort(key=lambda group: int(group[0]))
    sizes = np.array([len(group) for group in groups], np.int64)
    rows = np.concatenate(groups) if groups else np.empty(0, np.int64)
    return rows, np.concatenate([[0], np.cumsum(sizes)[:-1]]) if groups else rows


def conflict_facts(looks: Looks, rows: NDArray[np.int64], starts: NDArray[np.int64]) -> dict[str, int]:
    """prompts and rows, and how many of the prompts stand so in several splits."""
    groups = np.split(rows, starts[1:]) if len(rows) else []
    across = sum(len(set(looks.splits[group].tolist())) > 1 for group in groups)
    return {"prompts": len(groups), "rows": len(rows), "prompts_across_splits": across}


def two_of_each(
    looks: Looks, rows: NDArray[np.int64], starts: NDArray[np.int64], most: int
) -> list[tuple[int, int]]:
    """Of the first prompts, the first row and the first one that answers otherwise."""
    groups = np.split(rows, starts[1:])[:most] if len(rows) else []
    out = []
    for group in groups:
        answers = looks.keys[group, 1]
        out.append((int(group[0]), int(group[np.flatnonzero(answers != answers[0])[0]])))
    return out


def shown_conflicts(rows: Mapping[int, Row], pairs: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Of each what is asked, and both places with what they answer."""
    out = []
    for pair in pairs:
        both = [asked_and_answered(rows[number]) for number in pair]
        answers = [
            {"place": str(rows[number].ref), "split": rows[number].split, "answer": excerpt(answer, 120)}
            for number, (_, answer) in zip(pair, both, strict=True)
        ]
        out.append({"prompt": excerpt(both[0][0], 200), "answers": answers})
    return out


# Rows to look at -----------------------------------------------------------------------------------------


def worst(masks: NDArray[np.int32]) -> list[int]:
    """Numbers of the rows with the worst reasons, and the most of them, first."""
    found: list[int] = []
    for reason in REASONS:
        bit = BITS[reason]
        led = np.flatnonzero((masks >= bit) & (masks < 2 * bit))
        found += led[np.argsort(-masks[led], kind="stable")][:OF_ONE_REASON].tolist()
    return found[:WORST]


def reason_counts(masks: NDArray[np.int32]) -> dict[str, int]:
    counts = {reason: int(np.count_nonzero(masks & bit)) for reason, bit in BITS.items()}
    return {reason: count for reason, count in counts.items() if count}


def why(row: Row, mask: int, measure: Measure, others: Mapping[str, str]) -> dict[str, str]:
    """Reason -> what was found in this row. others: what only all rows together tell."""
    size = sizes_of([row], measure)[0]
    labels = classes_of(row, labels_of(row))
    found = reasons_of(row, labels) | dict(others)
    if isinstance(size, RowError):
        found["unusable"] = f"{size.reason}: {size.got.removeprefix(f'{row.ref}: ')}"
    elif size.longest > measure.context:
        found["too_long"] = f"{size.longest:,} tokens; at most {measure.context:,}"
    assert mask_of(found) == mask, f"{row.ref}: {found} is not {reasons_in(mask)}"
    return {reason: found[reason] for reason in reasons_in(mask)}


def shown(row: Row, most: int = 160) -> str:
    texts = row.texts
    content = [text.text for text in texts if text.part in CONTENT or text.part == "label"]
    return excerpt(content or [text.text for text in texts], most)


def longest(looks: Looks, most: int) -> list[int]:
    """Numbers of the rows of most tokens."""
    whole = looks.sizes[:, SIZES.index("whole")]
    order = np.argsort(-whole, kind="stable")[:most]
    return [int(number) for number in order if whole[number] >= 0]
