"""Balancing: whatever way, labels of training rows do not depend on the group afterwards; other rows stay."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.desk.test_make import desk_of, left, quiet

from tunesmith.desk.balance import augmented, gap_of, independent, largest_gap
from tunesmith.desk.make import make
from tunesmith.desk.originals import restored
from tunesmith.errors import ConfigError, DataError

LISTS = "team:\n  red: [Ada, Ben]\n  blue: [Cleo, Dov]\n"


def planted() -> list[dict[str, Any]]:
    """30 red rows of which 24 are late, 30 blue rows of which 6 are, 20 rows of nobody of which 10 are."""
    counts = {("Ada", "late"): 24, ("Ada", "fine"): 6, ("Dov", "late"): 6, ("Dov", "fine"): 24}
    counts |= {("Someone", "late"): 10, ("Someone", "fine"): 10}
    cells = [cell for cell, n in counts.items() for _ in range(n)]
    return [{"text": f"{name} wrote note {at}", "label": label} for at, (name, label) in enumerate(cells)]


def balanced(folder: Path, how: str, rows: list[dict[str, Any]] | None = None, **more: Any) -> Any:
    (folder / "lists.yaml").write_text(LISTS)
    section = {"how": how, "group": "team", "lists": str(folder / "lists.yaml"), **more}
    return make(desk_of(folder, rows or planted(), balance=section), quiet)


def counted(rows: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    out: Counter[tuple[str, str]] = Counter()
    for row in rows:
        out[row["text"].split()[0], row["label"]] += row.get("sample_weight", 1)
    return out


def test_the_gap_before_and_after_is_said(tmp_path: Path) -> None:
    made = balanced(tmp_path, "reweigh")
    said = "balance (reweigh by team: gap of 'fine' for blue +0.600 before, +0.000 after)"
    assert made.steps[-1].name == said
    assert said in (made.version.folder / "card.md").read_text().replace("\\", "")


def test_weights_make_the_labels_independent_of_the_group(tmp_path: Path) -> None:
    made = balanced(tmp_path, "reweigh")
    counts = counted(left(made))
    for name, n in (("Ada", 30), ("Dov", 30), ("Someone", 20)):
        assert counts[name, "late"] == pytest.approx(n / 2, abs=1e-3)
        assert counts[name, "fine"] == pytest.approx(n / 2, abs=1e-3)
    assert made.steps[-1].changed == {"reweighed": 80}
    assert [values for _, values in restored(made.version)] == planted()


def test_rows_are_repeated_until_each_cell_has_its_share(tmp_path: Path) -> None:
    """Of the largest cell 24 / 15 times its share is there, so that all grow to 1.6 times theirs and no row goes."""
    made = balanced(tmp_path, "sample")
    assert counted(left(made)) == {
        ("Ada", "late"): 24,
        ("Ada", "fine"): 24,
        ("Dov", "late"): 24,
        ("Dov", "fine"): 24,
        ("Someone", "late"): 16,
        ("Someone", "fine"): 16,
    }
    step = made.steps[-1]
    assert (step.dropped, step.added) == ({}, {"repeated": 48})
    assert [values for _, values in restored(made.version)] == planted()


def test_rows_go_where_a_cell_has_more_than_twice_its_share(tmp_path: Path) -> None:
    """All 9 rows of Ada are late, 9 of Dov's 81: their shares are 1.8 and 16.2, and 64.8 of Dov's fine ones."""
    cells = [("Ada", "late")] * 9 + [("Dov", "late")] * 9 + [("Dov", "fine")] * 72
    rows = [{"text": f"{name} wrote note {at}", "label": label} for at, (name, label) in enumerate(cells)]
    made = balanced(tmp_path, "sample", rows)
    assert counted(left(made)) == {("Ada", "late"): 4, ("Dov", "late"): 32, ("Dov", "fine"): 130}
    assert made.steps[-1].dropped == {"sampled_out": 5}
    assert [values for _, values in restored(made.version)] == rows


def test_every_row_of_a_group_stands_for_the_others_too(tmp_path: Path) -> None:
    made = balanced(tmp_path, "counterfactual")
    rows = left(made)
    assert counted(rows) == {
        ("Ada", "late"): 30 - 6,
        ("Cleo", "late"): 24,
        ("Dov", "late"): 6,
        ("Ben", "late"): 6,
        ("Ada", "fine"): 6,
        ("Cleo", "fine"): 6,
        ("Dov", "fine"): 24,
        ("Ben", "fine"): 24,
        ("Someone", "late"): 10,
        ("Someone", "fine"): 10,
    }
    assert rows[1] == {"text": "Cleo wrote note 0", "label": "late"}
    assert made.steps[-1].added == {"counterfactual": 60}
    assert [values for _, values in restored(made.version)] == planted()


def test_only_training_rows_are_made_even(tmp_path: Path) -> None:
    rows = [
        {**row, "text": f"{row['text']} about {at * 7919} other things"} for at, row in enumerate(planted())
    ]
    section = {"how": "sample", "group": "team", "lists": str(tmp_path / "lists.yaml")}
    (tmp_path / "lists.yaml").write_text(LISTS)
    split = {"validation": 0, "test": 0.25, "near": None}
    made = make(desk_of(tmp_path, rows, balance=section, split=split), quiet)
    before = make(desk_of(tmp_path, rows, split=split), quiet)
    assert made.version is not None
    assert before.version is not None
    test = [(one.version.folder / "test.jsonl").read_text() for one in (made, before)]  # type: ignore[union-attr]
    assert test[0] == test[1]


def test_a_column_names_groups_too(tmp_path: Path) -> None:
    rows = [{**row, "shop": row["text"].split()[0]} for row in planted()]
    made = balanced(tmp_path, "sample", rows, group="shop")
    assert counted(left(made))["Ada", "late"] == 24
    with pytest.raises(ConfigError, match="no word list has"):
        balanced(tmp_path, "counterfactual", rows, group="shop")


def test_what_cannot_be_balanced_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training rows are of 1 group"):
        balanced(tmp_path, "reweigh", [{"text": f"note {at}", "label": "late"} for at in range(9)])
    rows = [
        {"prompt": f"Ada {at}" if at % 2 else f"Dov {at}", "completion": f"answer {at}"} for at in range(9)
    ]
    with pytest.raises(DataError, match="an answer of their own"):
        balanced(tmp_path, "reweigh", rows)


def test_cells_by_hand() -> None:
    counts = Counter({("a", "x"): 8, ("a", "y"): 2, ("b", "x"): 2, ("b", "y"): 8})
    assert independent(counts) == {cell: 5.0 for cell in counts}
    assert gap_of(counts, ("a", "x")) == pytest.approx(0.8 - 0.2)
    assert largest_gap(independent(counts))[0] == 0
    assert augmented(counts, ("a", "b")) == {cell: 10 for cell in counts}
