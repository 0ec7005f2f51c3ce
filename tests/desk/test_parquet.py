"""A version in Parquet holds what the same one in JSON Lines does, block by block, or says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.data.readers import read_rows
from tunesmith.desk import parquet
from tunesmith.errors import DataError

Rows = list[dict[str, Any]]
COLUMNS = {
    "text": st.text(st.characters(exclude_categories=["Cs"])) | st.dates().map(str) | st.datetimes().map(str),
    "count": st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    "turns": st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.dates().map(str)})),
}
ROWS = st.lists(st.fixed_dictionaries({}, optional=COLUMNS).filter(bool), min_size=1, max_size=8)


def written(folder: Path, rows: Rows) -> Rows:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    parquet.as_parquet(path)
    assert not path.exists()
    found = [row for _, row in read_rows(folder / "train.parquet") if isinstance(row, dict)]
    return [{column: value for column, value in row.items() if value is not None} for row in found]


@given(rows=ROWS, block=st.integers(1, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_rows_come_back_as_they_were(
    rows: Rows, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BLOCK_ROWS", block)
    assert written(tmp_path, rows) == rows


def test_text_that_is_a_date_is_text(tmp_path: Path) -> None:
    rows = [{"text": "2026-03-01", "label": "2026-03-01T10:00:00"}]
    assert written(tmp_path, rows) == rows


@pytest.mark.parametrize(
    "values, said",
    [
        ((1, "one"), "int64"),
        ((True, 1), "bool"),
        ((2**53 + 1, 0.5), "9007199254740993"),
        ((10**20, 1), "too large"),
        (({}, {}), "no child field"),
    ],
)
@pytest.mark.parametrize("block", [1, 2])
def test_what_has_no_place_in_a_column_is_an_error(
    values: tuple[Any, ...], said: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BLOCK_ROWS", block)
    with pytest.raises(DataError, match=said) as caught:
        written(tmp_path, [{"text": "a", "value": value} for value in values])
    assert caught.value.fix == "write format: jsonl"
