"""Splits: shares, labels and times as asked, and nothing that belongs together on two sides."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.desk.test_dedup import sentences
from tests.desk.test_make import desk_of, quiet

from tunesmith.data.shares import Sharing
from tunesmith.desk.make import make
from tunesmith.desk.splitting import check_sides
from tunesmith.errors import ConfigError, DataError

ROWS = [
    {
        "text": text,
        "label": "rare" if at % 10 == 0 else "often",
        "customer": at % 40,
        "day": f"2026-0{1 + at // 100}-{1 + at % 28:02}",
    }
    for at, text in enumerate(sentences(400, 25, 0))
]


def sides(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> dict[str, list[dict[str, Any]]]:
    made = make(desk_of(folder, rows, split=settings), quiet, sharing=Sharing(1))
    assert made.version is not None
    files = {name: made.version.folder / f"{name}.jsonl" for name in ("train", "validation", "test")}
    return {
        name: [json.loads(line) for line in path.read_text().splitlines()] for name, path in files.items()
    }


def test_shares_and_labels(tmp_path: Path) -> None:
    found = sides(tmp_path, ROWS, validation=0.15, test=0.25)
    assert {name: len(rows) for name, rows in found.items()} == {"train": 240, "validation": 60, "test": 100}
    rare = {name: sum(row["label"] == "rare" for row in rows) for name, rows in found.items()}
    assert rare == {"train": 24, "validation": 6, "test": 10}


def test_groups_stay_together(tmp_path: Path) -> None:
    found = sides(tmp_path, ROWS, group="customer", validation=0.1, test=0.2)
    where = defaultdict(set)
    for name, rows in found.items():
        for row in rows:
            where[row["customer"]].add(name)
    assert all(len(names) == 1 for names in where.values())
    assert abs(len(found["test"]) - 80) <= 10


def test_rows_alike_stay_together(tmp_path: Path) -> None:
    rows = [*ROWS, *({**row, "text": row["text"].replace("e", "E", 3) + " please"} for row in ROWS[:100])]
    found = sides(tmp_path, rows, validation=0.2, test=0.2)
    where = {
        row["text"].casefold().removesuffix(" please"): name for name, rows in found.items() for row in rows
    }
    for name, of in found.items():
        assert all(where[row["text"].casefold().removesuffix(" please")] == name for row in of)
    apart = sides(tmp_path, rows, validation=0.2, test=0.2, near=None)
    twice = Counter(row["text"].casefold().removesuffix(" please") for row in apart["test"])
    assert 1 in {twice[row["text"].casefold()] for row in ROWS[:100]}, (
        "without near they are dealt out one by one"
    )


def test_by_time_the_last_rows_are_test(tmp_path: Path) -> None:
    found = sides(tmp_path, ROWS, time="day", validation=0.25, test=0.25, near=None)
    last = {
        name: (min(row["day"] for row in rows), max(row["day"] for row in rows))
        for name, rows in found.items()
    }
    assert last["train"][1] <= last["validation"][0] <= last["validation"][1] <= last["test"][0]
    assert len(found["test"]) == 100


def test_over_all_folds_each_row_is_test_once(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for fold in range(4):
        found = sides(tmp_path, ROWS, folds=4, fold=fold)
        assert {name: len(rows) for name, rows in found.items()} == {
            "train": 200,
            "validation": 100,
            "test": 100,
        }
        seen.update(row["text"] for row in found["test"])
    assert set(seen.values()) == {1}
    assert len(seen) == len(ROWS)


def test_a_split_without_a_share_gets_no_row(tmp_path: Path) -> None:
    for seed in range(20):
        draw = np.random.default_rng(seed)
        rows = [{**ROWS[at], "customer": int(draw.integers(9))} for at in range(int(draw.integers(20, 50)))]
        desk = desk_of(tmp_path, rows, split={"group": "customer", "validation": 0.3, "test": 0})
        assert set(make(desk, quiet, dry_run=True, sharing=Sharing(1)).rows) == {"train", "validation"}


def test_a_leak_fails_loudly() -> None:
    check_sides(np.array([0, 0, 2]), np.array(["train", "train", "test"], object))
    with pytest.raises(AssertionError, match="belong together"):
        check_sides(np.array([0, 0, 2]), np.array(["train", "test", "test"], object))


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"group": "shop"}, "field 'shop': nothing in it"),
        ({"time": "text"}, "is no time"),
        ({"validation": 0.001}, "the validation split has 0 of 400 rows"),
    ],
)
def test_what_cannot_be_split_says_why(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        sides(tmp_path, ROWS, **settings)


@pytest.mark.parametrize(
    "wrong", [{"folds": 5}, {"folds": 5, "fold": 5}, {"folds": 2, "fold": 0}, {"test": 0.95}]
)
def test_settings_that_make_no_split(tmp_path: Path, wrong: dict[str, Any]) -> None:
    from tunesmith.config.load import load_desk

    given = {f"split.{name}": (value, "test") for name, value in wrong.items()}
    with pytest.raises(ConfigError):
        load_desk(None, [], given)
