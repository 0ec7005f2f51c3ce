"""What is said of rows as they were read: a plan, carried out beside others on the same walks over the rows."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.desk import findings, found
from tunesmith.desk.lengths import Measure, binned, figures
from tunesmith.desk.looks import SIZES, UNTOLD, Looks, asked_and_answered, looking
from tunesmith.desk.plans import Plan
from tunesmith.desk.reading import Read
from tunesmith.desk.rows import SPLITS, Row
from tunesmith.desk.scrub import Veil
from tunesmith.desk.steps import excerpt
from tunesmith.desk.suspects import BITS

LANGUAGES = 2_000
"""Rows whose language is looked at: enough to know a share to two hundredths."""
COUNTED = 10_000
"""Rows whose tokens are counted, where nothing else is said: their mean is within a hundredth of that of all."""
EXAMPLES, LONGEST = 3, 5
TRIED, TRIED_LONGEST = 256, 64
"""Training rows by which the cost is measured: so many at random, and so many of the longest."""


@dataclass(frozen=True)
class Trained:
    """What the cost of training is worked out from. rows: a sample of those that training uses, the longest among
    them, whose columns mean the same; count and tokens: of all of them."""

    rows: Sequence[Row]
    count: int
    tokens: int


Cost = Callable[[], dict[str, Any]]
Costing = Callable[[Trained], Cost]
"""Gets ready to measure, and returns what measures."""
Told = tuple[dict[str, Any], Cost | None]


@dataclass(frozen=True)
class Inspection:
    """facts: as `--json` prints them."""

    facts: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return self.facts

    def as_text(self) -> str:
        from tunesmith.desk.screen import as_text

        return as_text(self.facts)

    def as_html(self) -> str:
        from tunesmith.desk.pages import inspection_page

        return inspection_page(self.facts)


@dataclass(frozen=True)
class Inspecting:
    """cost: works out what training would cost (None: that is not said). counted: rows at most whose tokens are counted
    (0: all); of more rows, the figures of tokens are those of a sample."""

    measure: Measure
    cost: Costing | None = None
    counted: int = COUNTED

    def plan(self, rows: Read, refused: Path) -> Plan[Told]:
        """What is said of the rows, and what the cost is worked out from. refused: the list of what was not read.
        Chunks are read again when the walk has ended: a plan that does away with them comes after this one."""
        looks = yield from looking(rows, self.measure, LANGUAGES, self.counted or sys.maxsize)
        facts = _facts(rows, looks, self.measure, refused)
        trained = None if self.cost is None else _trained(rows, looks)
        return facts, None if self.cost is None or trained is None else self.cost(trained)

    def whole(self, told: Told, veil: Veil | None) -> dict[str, Any]:
        """With the cost, which is worked out only now: a step that is measured needs the memory of the walk. veil: over
        what is shown of rows."""
        facts, cost = told
        facts["cost"] = None if cost is None else cost()
        if veil is not None:
            _hide(facts, veil)
        return facts


def _facts(rows: Read, looks: Looks, measure: Measure, refused: Path) -> dict[str, Any]:
    once = findings.label_once(rows, looks.tables)
    conflicts, starts = findings.conflicting(looks)
    masks = looks.masks.copy()
    masks[list(once)] |= BITS["label_once"]
    masks[conflicts] |= BITS["conflict"]
    worst, longest = findings.worst(masks), findings.longest(looks, LONGEST)
    pairs = findings.two_of_each(looks, conflicts, starts, EXAMPLES)
    others = _told_by_all(looks, worst, masks, once)
    wanted = {*worst, *longest, *(number for pair in pairs for number in pair), *_places(others)}
    fetched = fetch(rows, wanted)
    return {
        "files": _files(rows, looks, refused),
        "rows": _by_split(looks.splits),
        "tokens": _tokens(looks, measure, fetched, longest),
        "languages": _languages(looks),
        "labels": findings.labels_facts(rows, looks.tables, looks),
        "numbers": findings.numbers_facts(rows, looks),
        "conflicts": findings.conflict_facts(looks, conflicts, starts)
        | {"examples": findings.shown_conflicts(fetched, pairs)},
        "suspicious": {
            "rows": int(np.count_nonzero(masks)),
            "reasons": findings.reason_counts(masks),
            "of_each": findings.OF_ONE_REASON,
            "worst": [_suspicious(fetched[n], int(masks[n]), measure, others[n], fetched) for n in worst],
        },
        "left_out": dict(looks.tables.left_out),
    }


def _told_by_all(
    looks: Looks, worst: Sequence[int], masks: NDArray[np.int32], once: Mapping[int, str]
) -> dict[int, dict[str, Any]]:
    """Of each of these rows what no row tells by itself; of a conflict the number of another row."""
    out: dict[int, dict[str, Any]] = {}
    for number in worst:
        out[number] = {}
        if masks[number] & BITS["label_once"]:
            out[number]["label_once"] = once[number]
        if masks[number] & BITS["conflict"]:
            usable = looks.masks & BITS["unusable"] == 0
            same = looks.keys[:, 0] == looks.keys[number, 0]
            other = same & usable & (looks.keys[:, 1] != 0) & (looks.keys[:, 1] != looks.keys[number, 1])
            out[number]["conflict"] = int(np.flatnonzero(other)[0])
    return out


def _places(others: Mapping[int, Mapping[str, Any]]) -> Iterator[int]:
    return (told["conflict"] for told in others.values() if "conflict" in told)


def _suspicious(
    row: Row, mask: int, measure: Measure, told: Mapping[str, Any], fetched: Mapping[int, Row]
) -> dict[str, Any]:
    others = dict(told)
    if "conflict" in others:
        other = fetched[others["conflict"]]
        answers = [excerpt(asked_and_answered(one)[1], 40) for one in (row, other)]
        others["conflict"] = f"'{answers[0]}', but {other.ref} says '{answers[1]}'"
    return {
        "place": str(row.ref),
        "split": row.split,
        "reasons": findings.why(row, mask, measure, others),
        "text": findings.shown(row),
    }


def fetch(rows: Read, numbers: set[int]) -> dict[int, Row]:
    """Rows by their numbers. Lines of other rows are passed over without being parsed."""
    out: dict[int, Row] = {}
    for chunk in rows.chunks:
        if not numbers.isdisjoint(chunk.numbers()):
            out |= {row.number: row for row in rows.rows(chunk) if row.number in numbers}
    return out


# What each part of the facts is --------------------------------------------------------------------------


def _by_split(splits: NDArray[np.int8]) -> dict[str, int]:
    counts = {split: int(np.count_nonzero(splits == place)) for place, split in enumerate(SPLITS)}
    return {split: count for split, count in counts.items() if count}


def _files(rows: Read, looks: Looks, refused: Path) -> list[dict[str, Any]]:
    first: dict[tuple[str, str], dict[str, Any]] = {}
    with refused.open(encoding="utf-8") as listed:
        for line in listed:
            entry = json.loads(line)
            first.setdefault((entry["file"], entry["reason"]), entry)
    out = []
    for place, (one, shape) in enumerate(zip(rows.files, rows.shapes, strict=True)):
        columns = looks.tables.columns[place]
        out.append(
            {
                "file": one.file,
                "split": one.split,
                **found.format_of(one.file),
                "sha256": one.sha256,
                "rows": one.rows,
                "used": one.used,
                "repaired": dict(one.repaired.most_common()),
                "refused": {
                    reason: {"rows": count, "first": _first(first[one.file, reason])}
                    for reason, count in one.refused.most_common()
                },
                "kind": shape.meaning.kind,
                "meaning": shape.meaning.describe(),
                "columns": found.columns_of(shape, columns, one.used),
                "otherwise": found.otherwise(shape.meaning),
            }
        )
    return out


def _first(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"line": entry["line"], "message": entry["message"], "row": entry["row"][:160]}


def _tokens(
    looks: Looks, measure: Measure, fetched: Mapping[int, Row], longest: Sequence[int]
) -> dict[str, Any]:
    usable = looks.masks & BITS["unusable"] == 0
    counted = looks.sizes[:, 0] >= 0
    sample = counted & looks.sampled
    parts = {name: looks.sizes[:, place].astype(np.int64) for place, name in enumerate(SIZES[:3])}
    splits = {}
    for place, split in enumerate(SPLITS):
        chosen = usable & (looks.splits == place)
        if chosen.any():
            splits[split] = {
                name: _of_sample(tokens, chosen, counted, sample) for name, tokens in parts.items()
            }
    return {
        "as": measure.describe(),
        "context": measure.context,
        "rows": int(usable.sum()),
        "counted": int(sample.sum()),
        "too_long": int(np.count_nonzero(looks.masks & BITS["too_long"])),
        "splits": splits,
        "histograms": {name: binned(tokens[sample]) for name, tokens in parts.items() if sample.any()},
        "longest": [
            {
                "place": str(fetched[n].ref),
                "split": fetched[n].split,
                "tokens": int(looks.sizes[n, SIZES.index("whole")]),
                "text": findings.shown(fetched[n], 100),
            }
            for n in longest
        ],
    }


def _of_sample(
    tokens: NDArray[np.int64],
    rows: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    sample: NDArray[np.bool_],
) -> dict[str, Any]:
    """The figures of these rows' sample; most: of all that were counted; all: of as many rows as there are."""
    found = figures(tokens[rows & sample])
    most = int(tokens[rows & counted].max(initial=0))
    return found | {"most": most, "all": _all(tokens, rows, sample if (rows & sample).any() else counted)}


def _all(tokens: NDArray[np.int64], rows: NDArray[np.bool_], sample: NDArray[np.bool_]) -> int:
    """Tokens of these rows, as many as those of the sample have."""
    here = tokens[rows & sample]
    return int(here.sum()) * int(rows.sum()) // len(here) if len(here) else 0


def _languages(looks: Looks) -> dict[str, Any]:
    counts = {s: dict(looks.tables.languages[s].most_common()) for s in SPLITS if looks.tables.languages[s]}
    every: Counter[str] = Counter()
    for of in counts.values():
        every.update(of)
    return {
        "looked_at": every.total(),
        "of": len(looks.splits),
        "untold": every[UNTOLD],
        "all": dict(every.most_common()),
        "splits": counts,
    }


def _trained(rows: Read, looks: Looks) -> Trained | None:
    """Of the training rows that training uses; of files whose columns mean several things those of the commonest."""
    described = [shape.meaning.describe() for shape in rows.shapes]
    meanings = np.array([described.index(one) for one in described])[looks.files]
    usable = (looks.masks & (BITS["unusable"] | BITS["too_long"]) == 0) & (looks.splits == 0)
    if not usable.any():
        return None
    alike = usable & (meanings == np.bincount(meanings[usable]).argmax())
    numbers = np.flatnonzero(alike)
    whole = looks.sizes[:, SIZES.index("whole")].astype(np.int64)
    longest = numbers[np.argsort(-whole[numbers], kind="stable")[:TRIED_LONGEST]]
    chosen = np.random.default_rng(0).permutation(numbers)[:TRIED]
    sample = fetch(rows, {*longest.tolist(), *chosen.tolist()})
    return Trained([sample[n] for n in sorted(sample)], len(numbers), _all(whole, alike, looks.sampled))


def _hide(facts: dict[str, Any], veil: Veil) -> None:
    """What is shown of rows, behind the veil."""
    for file in facts["files"]:
        file["columns"] = [one | {"example": veil.over(one["example"])} for one in file["columns"]]
    facts["tokens"]["longest"] = veil.over(facts["tokens"]["longest"])
    for part, shown in (("conflicts", "examples"), ("suspicious", "worst")):
        facts[part][shown] = veil.over(facts[part][shown])
