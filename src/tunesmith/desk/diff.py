"""What became of rows between two versions: came, went, changed, moved; and in which settings the recipes differ.

Rows are the same row where they are from the same line of the same file (by its hash, whatever its name), or where the
one version was made of the other. Rows of files that only one version has are matched by what they hold. Of each row
32 bytes are kept, whatever its size.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.desk.originals import rows_of_split
from tunesmith.desk.rows import SPLITS
from tunesmith.desk.steps import excerpt
from tunesmith.desk.versions import CHANGES, ORIGINS, DataSet, Version
from tunesmith.errors import DataError

EXAMPLES = 3
FILE, TURN = 36, 46
"""Bits of a key above which a file's number stands, and how many rows of the same line stand before."""
BY_CONTENT = 1 << 62
"""Set in keys that are made of what a row holds: no file has as many lines."""
ADDED = "added beside a row by balance"
NEW, GONE = "not in the older version's files", "not in the newer version's files"


@dataclass(frozen=True)
class Diff:
    """facts: as `--json` prints them."""

    facts: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return self.facts

    def as_text(self) -> str:
        return as_text(self.facts)


@dataclass
class Rows:
    """Of one version, ordered by keys (N,), which are unique: splits (N,) as places in SPLITS, contents (N,) hashes of
    what rows hold, places (N,) of rows within the version (all splits, in their order)."""

    keys: NDArray[np.uint64]
    splits: NDArray[np.int8]
    contents: NDArray[np.uint64]
    places: NDArray[np.int64]


def diff(folder: Path, older: int | None = None, newer: int | None = None) -> Diff:
    """newer: default the current version. older: default the one before it. Raises DataError where one is not there."""
    data_set = DataSet(folder)
    after = data_set.version(newer)
    before = data_set.version(_before(data_set, after) if older is None else older)
    shared = _same_files(before, after)
    plain = any("parquet" in version.manifest["recipe"].get("format", "") for version in (before, after))
    old, new = (_rows(version, shared, plain) for version in (before, after))
    in_both, at_old, at_new = np.intersect1d(old.keys, new.keys, assume_unique=True, return_indices=True)
    went = np.setdiff1d(np.arange(len(old.keys)), at_old)
    came = np.setdiff1d(np.arange(len(new.keys)), at_new)
    differ = old.contents[at_old] != new.contents[at_new]
    moved = old.splits[at_old] != new.splits[at_new]
    why_came = _reasons(new.keys[came], before, shared, plain)
    why_went = _reasons(old.keys[went], after, shared, plain)
    facts = {
        "from": before.number,
        "to": after.number,
        "rows": {"from": before.manifest["rows"], "to": after.manifest["rows"]},
        "same": int(np.count_nonzero(~differ & ~moved)),
        "came": why_came.counts(NEW),
        "went": why_went.counts(GONE),
        "rows_changed": int(differ.sum()),
        "changed": _by_rule(before, after, shared, in_both[differ]),
        "moved": _moved(old.splits[at_old][moved], new.splits[at_new][moved]),
        "settings": settings(before.manifest["recipe"], after.manifest["recipe"]),
    }
    some = slice(EXAMPLES)
    facts["examples"] = {
        "came": why_came.told(shown(after, new.places[came[some]]), new.keys[came[some]], NEW),
        "went": why_went.told(shown(before, old.places[went[some]]), old.keys[went[some]], GONE),
        "changed": [
            {"place": one["place"], "before": one["text"], "after": other["text"]}
            for one, other in zip(
                shown(before, old.places[at_old[differ][some]]),
                shown(after, new.places[at_new[differ][some]]),
                strict=True,
            )
        ],
    }
    return Diff(facts)


def _before(data_set: DataSet, after: Version) -> int:
    numbers = [one.number for one in data_set.versions() if one.number < after.number]
    if not numbers:
        raise DataError(
            f"{data_set.folder}: version {after.number} is the first",
            "two versions to compare",
            "make another, or name both: --from N --to M",
        )
    return numbers[-1]


# Rows of a version ---------------------------------------------------------------------------------------


def _same_files(before: Version, after: Version) -> dict[str, int]:
    """SHA-256 of a file -> its number, of the files that both versions were made of, and of those of the one version
    that the other was made of."""
    read = [{one["sha256"] for one in version.manifest["sources"]} for version in (before, after)]
    made = [set(_files(version).values()) for version in (before, after)]
    shared = read[0] & read[1] | made[0] & read[1] | made[1] & read[0]
    return {sha256: number for number, sha256 in enumerate(sorted(shared), 1)}


def _files(version: Version) -> dict[str, str]:
    """Split -> SHA-256 of the file with its rows."""
    files = version.manifest["files"]
    return {
        split: files[name]["sha256"]
        for split in version.manifest["rows"]
        for name in (f"{split}.jsonl", f"{split}.parquet")
        if name in files
    }


def _numbers(version: Version, shared: Mapping[str, int]) -> dict[str, int]:
    """File -> its number among those that both versions have."""
    found = ((one["file"], one["sha256"]) for one in version.manifest["sources"])
    return {file: shared[sha256] for file, sha256 in found if sha256 in shared}


def _rows(version: Version, shared: Mapping[str, int], plain: bool) -> Rows:
    numbers = _numbers(version, shared)
    count = sum(version.manifest["rows"].values())
    found = Rows(
        np.zeros(count, np.uint64), np.zeros(count, np.int8), np.zeros(count, np.uint64), np.arange(count)
    )
    starts = dict(
        zip(version.manifest["rows"], np.cumsum([0, *version.manifest["rows"].values()]), strict=False)
    )
    for split in version.manifest["rows"]:
        for place, values in enumerate(rows_of_split(version, split), int(starts[split])):
            found.contents[place] = content_of(values, plain)
            found.splits[place] = SPLITS.index(split)
    own = {split: shared[sha256] for split, sha256 in _files(version).items() if sha256 in shared}
    for split, at, file, line in _origins(version):
        place = int(starts[split]) + at - 1
        if split in own:
            found.keys[place] = _line(own[split], at)
        else:
            found.keys[place] = _line(numbers[file], line) if file in numbers else 0
    # A row that balance repeats stands after the one that it is of.
    found.keys += turns_of(found.keys) << np.uint64(TURN)
    unplaced = np.flatnonzero(found.keys & np.uint64(2**TURN - 1) == 0)
    found.keys[unplaced] = _with_turns(found.contents[unplaced])
    order = np.argsort(found.keys)
    return Rows(found.keys[order], found.splits[order], found.contents[order], found.places[order])


def _origins(version: Version) -> Iterator[tuple[str, int, str, int]]:
    """(split, place in it from 1, file, line) of every row, with the file as the manifest names it."""
    places: Counter[str] = Counter()
    with (version.folder / ORIGINS).open(encoding="utf-8") as lines:
        for entry in lines:
            _, split, file, line = json.loads(entry)
            places[split] += 1
            yield split, places[split], file, line


def _line(file: int, line: int) -> int:
    return file << FILE | line


def _with_turns(contents: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Keys of what rows hold; the second row that holds the same has a key of its own, and so on."""
    keys = contents + turns_of(contents) * np.uint64(0x9E3779B97F4A7C15)
    return keys % np.uint64(BY_CONTENT) + np.uint64(BY_CONTENT)


def turns_of(contents: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Of each how many equal ones stand before it."""
    order = np.argsort(contents, kind="stable")
    ordered = contents[order]
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(order) else np.empty(0, bool)
    first = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    turns = np.empty(len(order), np.uint64)
    turns[order] = (np.arange(len(order)) - first).astype(np.uint64)
    return turns


def content_of(values: Mapping[str, Any], plain: bool = False) -> int:
    """A hash of a row. plain: a field that is null counts as one that is not there, since Parquet knows no other."""
    text = json.dumps(_without_nulls(values) if plain else values, ensure_ascii=False, sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


# Why -----------------------------------------------------------------------------------------------------


@dataclass
class Reasons:
    """Why a version lacks rows of these keys: key -> the step that dropped it and by which rule, and what it said. Of
    rows that it never had, nothing."""

    keys: NDArray[np.uint64]
    found: dict[int, tuple[str, str]]

    def counts(self, absent: str) -> dict[str, int]:
        told = (self.found.get(key, (_absent(key, absent), ""))[0] for key in self.keys.tolist())
        return dict(Counter(told).most_common())

    def told(
        self, examples: list[dict[str, str]], keys: NDArray[np.uint64], absent: str
    ) -> list[dict[str, str]]:
        """The examples, each with its reason. keys: of these."""
        told = (self.found.get(key, (_absent(key, absent), "")) for key in keys.tolist())
        return [
            one | {"reason": reason, "message": message}
            for one, (reason, message) in zip(examples, told, strict=True)
        ]


def _absent(key: int, absent: str) -> str:
    """Why the other version never had a row: its line is in no file of it, or it was added beside the one that it is
    of."""
    return ADDED if key < BY_CONTENT and key >> TURN else absent


def _reasons(keys: NDArray[np.uint64], other: Version, shared: Mapping[str, int], plain: bool) -> Reasons:
    wanted, numbers = set(keys.tolist()), _numbers(other, shared)
    found: dict[int, tuple[str, str]] = {}
    contents: list[int] = []
    said: list[tuple[str, str]] = []
    for entry in _changes(other):
        if not entry.get("dropped"):
            continue
        reason = f"{entry['step']}: {entry['rules'][-1]}", entry["message"]
        if entry["file"] in numbers:
            key = _line(numbers[entry["file"]], entry["line"])
            if key in wanted:
                found[key] = reason
        else:
            contents.append(content_of(entry["before"], plain))
            said.append(reason)
    # As rows are: the second one that holds the same has a key of its own.
    turned = _with_turns(np.array(contents, np.uint64)).tolist()
    found |= {key: reason for key, reason in zip(turned, said, strict=True) if key in wanted}
    return Reasons(keys, found)


def _changes(version: Version) -> Iterator[dict[str, Any]]:
    with (version.folder / CHANGES).open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _by_rule(
    before: Version, after: Version, shared: Mapping[str, int], keys: NDArray[np.uint64]
) -> dict[str, int]:
    """Rows that a rule of the newer version changed and no such rule before, and the other way round. A row that the
    same rules changed otherwise counts under them."""
    wanted = set(keys.tolist())
    old, new = (_rules(version, shared, wanted) for version in (before, after))
    found: Counter[str] = Counter()
    for key in wanted:
        was, now = old.get(key, frozenset()), new.get(key, frozenset())
        found.update(f"now by {rule}" for rule in now - was)
        found.update(f"no longer by {rule}" for rule in was - now)
        if was == now:
            found.update(f"otherwise by {rule}" for rule in now)
    return dict(found.most_common())


def _rules(version: Version, shared: Mapping[str, int], wanted: set[int]) -> dict[int, frozenset[str]]:
    numbers = _numbers(version, shared)
    found: dict[int, frozenset[str]] = {}
    for entry in _changes(version):
        key = _line(numbers[entry["file"]], entry["line"]) if entry["file"] in numbers else 0
        if key in wanted and not entry.get("dropped"):
            named = frozenset(f"{entry['step']}: {rule}" for rule in entry["rules"])
            found[key] = found.get(key, frozenset()) | named
    return found


def _moved(was: NDArray[np.int8], now: NDArray[np.int8]) -> dict[str, int]:
    found = Counter(zip(was.tolist(), now.tolist(), strict=True))
    return {f"{SPLITS[a]} to {SPLITS[b]}": count for (a, b), count in found.most_common()}


def settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Dotted key -> [what it was, what it is] of settings that differ; null where there is none."""
    was, now = _flat(old), _flat(new)
    keys = dict.fromkeys([*was, *now])
    return {key: [was.get(key), now.get(key)] for key in keys if was.get(key) != now.get(key)}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in tree.items():
        inner = isinstance(value, Mapping)
        out |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return out


def shown(version: Version, places: Sequence[int] | NDArray[np.int64]) -> list[dict[str, str]]:
    """Place and beginning of rows, in the order of `places`."""
    wanted = {int(place) for place in places}
    if not wanted:
        return []
    starts = dict(
        zip(version.manifest["rows"], np.cumsum([0, *version.manifest["rows"].values()]), strict=False)
    )
    named = {
        int(starts[split]) + at - 1: f"{file}:{line} ({split})"
        for split, at, file, line in _origins(version)
        if int(starts[split]) + at - 1 in wanted
    }
    texts: dict[int, str] = {}
    for split, start in starts.items():
        for place, values in enumerate(rows_of_split(version, split), int(start)):
            if place in wanted:
                said = (
                    v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values.values()
                )
                texts[place] = excerpt(said, 120).replace("\n", "⏎")  # blanks stay: they may be what changed
    return [{"place": named[int(place)], "text": texts[int(place)]} for place in places]


# For a person --------------------------------------------------------------------------------------------


def _example(one: Mapping[str, str]) -> list[str]:
    message = f": {one['message']}" if one["message"] else ""
    return [f"             {one['place']}: {one['text']}", f"               {one['reason']}{message}"]


def as_text(facts: Mapping[str, Any]) -> str:
    lines = [f"version {facts['from']} -> {facts['to']}"]
    for name in ("from", "to"):
        counts = ", ".join(f"{split} {count:,}" for split, count in facts["rows"][name].items())
        lines.append(f"  {name:<5} {counts}")
    lines += ["", f"{facts['same']:>9,}  the same"]
    examples = facts["examples"]
    for what in ("came", "went"):
        lines.append(f"{sum(facts[what].values()):>9,}  {what}")
        verb = "dropped before by" if what == "came" else "dropped by"
        lines += [
            f"  {count:>9,}  {reason if reason in (NEW, GONE, ADDED) else f'{verb} {reason}'}"
            for reason, count in facts[what].items()
        ]
        lines += [line for one in examples[what] for line in _example(one)]
    lines.append(f"{facts['rows_changed']:>9,}  changed")
    lines += [f"  {count:>9,}  {rule}" for rule, count in facts["changed"].items()]
    for one in examples["changed"]:
        lines += [
            f"             {one['place']}",
            f"               was {one['before']}",
            f"               is  {one['after']}",
        ]
    lines.append(f"{sum(facts['moved'].values()):>9,}  moved")
    lines += [f"  {count:>9,}  {way}" for way, count in facts["moved"].items()]
    if facts["settings"]:
        lines += ["", "settings"]
        lines += [f"  {key}: {json.dumps(a)} -> {json.dumps(b)}" for key, (a, b) in facts["settings"].items()]
    return "\n".join(lines)
