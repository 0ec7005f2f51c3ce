"""What became of rows between two versions, against a comparison row by row in a few lines."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.desk.test_make import ROWS, TICKETS, quiet, written

from tunesmith.config.desk import Desk
from tunesmith.data.shares import Sharing
from tunesmith.desk.diff import ADDED, GONE, NEW, diff
from tunesmith.desk.diff import settings as settings_that_differ
from tunesmith.desk.make import make
from tunesmith.errors import DataError


def made(folder: Path, *files: str, **steps: Any) -> None:
    document = {"output": str(folder / "out"), "data": {"train": list(files)}, **steps}
    make(Desk.model_validate(document), quiet, sharing=Sharing(1))


def rows_of(folder: Path, number: int) -> dict[tuple[str, int], tuple[str, dict[str, Any]]]:
    """(file, line) -> split and columns."""
    version = folder / "out" / "versions" / f"{number:04d}"
    at = [json.loads(line) for line in (version / "origins.jsonl").read_text().splitlines()]
    rows = {
        (split, place): json.loads(line)
        for split in ("train", "validation", "test")
        if (path := version / f"{split}.jsonl").exists()
        for place, line in enumerate(path.read_text().splitlines(), 1)
    }
    places: Counter[str] = Counter()
    out = {}
    for _, split, file, line in at:
        places[split] += 1
        out[file, line] = split, rows[split, places[split]]
    return out


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, html=st.booleans())
def test_it_says_what_a_comparison_row_by_row_says(
    tmp_path: Path, rows: list[dict[str, Any]], html: bool
) -> None:
    file = written(tmp_path, [{"text": "one good row", "label": "a"}, *rows])
    made(tmp_path, file, clean={"labels": False, "html": html, "usable": False})
    first = max(int(path.name) for path in (tmp_path / "out" / "versions").iterdir())
    made(tmp_path, file, clean={"usable": False}, dedup={"near": None})
    old, new = rows_of(tmp_path, first), rows_of(tmp_path, first + 1)
    facts = diff(tmp_path / "out", first).facts
    both = old.keys() & new.keys()
    assert sum(facts["went"].values()) == len(old.keys() - new.keys())
    assert sum(facts["came"].values()) == len(new.keys() - old.keys())
    assert facts["rows_changed"] == sum(old[key][1] != new[key][1] for key in both)
    assert facts["same"] == sum(old[key] == new[key] for key in both)
    assert GONE not in facts["went"]


def test_rows_that_went_say_why_and_changed_ones_by_which_rule(tmp_path: Path) -> None:
    mail = {"text": "<p>Where is&nbsp;my order?</p>", "label": "order"}
    file = written(tmp_path, [*TICKETS, TICKETS[0], {"text": " ", "label": "order"}, mail])
    made(tmp_path, file)
    made(tmp_path, file, clean={}, dedup={"near": None})
    found = diff(tmp_path / "out")
    facts = found.facts
    assert facts["went"] == {"clean: empty_text": 1, "dedup: exact": 1}
    assert (facts["came"], facts["moved"]) == ({}, {})
    assert facts["changed"] == {"now by clean: html": 1}
    assert facts["examples"]["changed"] == [
        {
            "place": f"{file}:{len(TICKETS) + 3} (train)",
            "before": "<p>Where is&nbsp;my order?</p> | order",
            "after": "Where is my order? | order",
        }
    ]
    told = {one["place"].removeprefix(file): one["message"] for one in facts["examples"]["went"]}
    assert told[f":{len(TICKETS) + 1} (train)"] == f"is {file}:1"
    assert facts["settings"]["dedup.exact"] == [None, True]
    assert "dropped by clean: empty_text" in found.as_text()


def test_back_the_other_way_what_went_comes(tmp_path: Path) -> None:
    file = written(tmp_path, [*TICKETS, TICKETS[0]])
    made(tmp_path, file, dedup={"near": None})
    made(tmp_path, file)
    assert diff(tmp_path / "out").facts["came"] == {"dedup: exact": 1}
    assert diff(tmp_path / "out", 2, 1).facts["went"] == {"dedup: exact": 1}


def test_rows_of_a_file_that_grew_are_known_by_what_they_hold(tmp_path: Path) -> None:
    made(tmp_path, written(tmp_path, [*TICKETS, TICKETS[3]]))
    new = {"text": "a wholly new matter", "label": "billing"}
    made(tmp_path, written(tmp_path, [new, *TICKETS[1:], TICKETS[3]]))
    facts = diff(tmp_path / "out").facts
    assert (facts["came"], facts["went"]) == ({NEW: 1}, {GONE: 1})
    assert facts["same"] == len(TICKETS)


def test_rows_that_change_sides_are_counted_by_their_way(tmp_path: Path) -> None:
    file = written(tmp_path, TICKETS)
    split = {"validation": 0.2, "test": 0.2, "near": None}
    for seed in (0, 1):
        made(tmp_path, file, split=split, seed=seed)
    old, new = rows_of(tmp_path, 1), rows_of(tmp_path, 2)
    ways = Counter(f"{old[key][0]} to {new[key][0]}" for key in old if old[key][0] != new[key][0])
    facts = diff(tmp_path / "out").facts
    assert facts["moved"] == dict(ways)
    assert facts["settings"] == {"seed": [0, 1]}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_version_made_of_the_one_before_says_what_changed(tmp_path: Path, form: str) -> None:
    rows = [*TICKETS, {"text": "my  card", "label": "card"}, {"text": " ", "label": "card"}]
    file = written(tmp_path, rows)
    made(tmp_path, file, split={"validation": 0.2, "test": 0.2, "near": None}, format=form)
    made(tmp_path, str(tmp_path / "out"), clean={}, format=form)
    facts = diff(tmp_path / "out").facts
    assert facts["changed"] == {"now by clean: whitespace": 1}
    assert (facts["came"], facts["went"]) == ({}, {"clean: empty_text": 1})
    assert (facts["same"], facts["moved"]) == (len(TICKETS), {})
    shown = facts["examples"]["changed"][0]
    assert shown["before"].startswith("my  card | card")
    assert shown["after"].startswith("my card | card")
    back = diff(tmp_path / "out", 2, 1).facts
    assert (sum(back["came"].values()), back["went"], back["rows_changed"]) == (1, {}, 1)


def test_a_version_in_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    rows = [{**row, "note": None} if at % 2 else row for at, row in enumerate(TICKETS)]
    file = written(tmp_path, rows)
    made(tmp_path, file)
    made(tmp_path, file, format="parquet")
    assert diff(tmp_path / "out").facts["same"] == len(rows)


def test_a_first_version_has_none_before_it(tmp_path: Path) -> None:
    made(tmp_path, written(tmp_path, TICKETS))
    with pytest.raises(DataError, match="version 1 is the first"):
        diff(tmp_path / "out")


def test_settings_that_differ_are_named_by_their_keys() -> None:
    old = {"seed": 0, "clean": {"html": True, "min_words": 3}}
    assert settings_that_differ(old, {"seed": 0, "clean": {"html": False}}) == {
        "clean.html": [True, False],
        "clean.min_words": [3, None],
    }


def test_rows_that_balance_repeats_came(tmp_path: Path) -> None:
    shop = [{**row, "shop": "north" if row["label"] == "billing" else "south"} for row in TICKETS]
    file = written(
        tmp_path, [*shop, *({**row, "label": "hardware"} for row in shop if row["shop"] == "north")]
    )
    made(tmp_path, file)
    made(tmp_path, file, balance={"how": "sample", "group": "shop"})
    facts = diff(tmp_path / "out").facts
    old, new = (sum(facts["rows"][name].values()) for name in ("from", "to"))
    assert old + sum(facts["came"].values()) - sum(facts["went"].values()) == new
    assert facts["came"].keys() == {ADDED}
