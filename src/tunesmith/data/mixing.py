"""Files mixed by weight: `rows.jsonl*0.5` trains on half of its rows, `rows.jsonl*2` on each row twice.

A weight w is the number of times that a row is expected in an epoch: each row stands floor(w) times, and a seeded
choice of the rest, round((w - floor(w)) * rows) of them, once more. Training rows are weighted after the splits are
made, so that validation and test rows are never repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tunesmith.data.account import Account
from tunesmith.errors import DataError
from tunesmith.types import Example

_WEIGHTED = re.compile(r"(.+?)\s*\*\s*(\d+\.?\d*|\.\d+)", re.ASCII | re.DOTALL)
_SEEMS_WEIGHTED = re.compile(r".*\.\w+\s*\*[^/*]*", re.DOTALL)


def parse_weight(entry: str) -> tuple[str, float]:
    """('rows.jsonl', 0.5) of 'rows.jsonl*0.5'; the weight is 1 where none is written. A file of that very name wins."""
    found = _WEIGHTED.fullmatch(entry)
    if Path(entry).exists() or (found is None and not _SEEMS_WEIGHTED.fullmatch(entry)):
        return entry, 1.0
    if found is None or float(found[2]) == 0:
        raise DataError(
            f"{entry}: no weight",
            "a number above 0 after the *, such as rows.jsonl*0.5",
            "or leave the file out",
        )
    return found[1], float(found[2])


def mix(
    rows: Sequence[Example], weights: Mapping[str, float], seed: int, account: Account
) -> tuple[list[Example], list[str]]:
    """The rows as often as the weights of their files say, and a line for each file whose weight is not 1.

    weights: file -> weight; a file that is not named has 1. Rows that are not drawn are withdrawn (`not_drawn`),
    copies are noted (`repeated`). The passes over a file follow one another. Raises DataError where a weight
    leaves none of a file's rows.
    """
    files: dict[str, list[Example]] = {}
    for row in rows:
        files.setdefault(row.ref.file, []).append(row)
    mixed: list[Example] = []
    said: list[str] = []
    for index, (file, group) in enumerate(files.items()):
        weight = weights.get(file, 1.0)
        whole = int(weight)
        more = round((weight - whole) * len(group))
        drawn = set(np.random.default_rng([seed, index]).permutation(len(group))[:more].tolist())
        passes = [group] * whole + [[row for i, row in enumerate(group) if i in drawn]]
        before = len(mixed)
        mixed += [row for rows_of_pass in passes for row in rows_of_pass]
        if len(mixed) == before:
            raise DataError(
                f"{file}: of {len(group)} training rows the weight {weight:g} leaves none",
                "at least one",
                "write a larger weight, or leave the file out",
            )
        for i, row in enumerate(group):
            times = whole + (i in drawn)
            if times == 0:
                account.withdraw(row.ref, "not_drawn", f"the weight of {file} is {weight:g}")
            elif times > 1:
                account.repeat(row.ref, times - 1)
        if weight != 1:
            said.append(
                f"{file} * {weight:g}: {len(group):,} training rows stand {len(mixed) - before:,} times"
            )
    return mixed, said
