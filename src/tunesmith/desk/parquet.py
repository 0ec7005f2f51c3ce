"""Rows of a version as Parquet. A column has one type there: that in which the values of all its rows have room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_ROWS, BLOCK_BYTES = 10_000, 16 * 2**20
"""Rows that are held at a time, and make a row group: at most so many, and so many bytes of JSON."""


def as_parquet(path: Path) -> None:
    """The rows of a file of JSON Lines as Parquet, in its place. Text stays text, whatever it looks like.

    Raises DataError where a column holds values of several kinds, numbers that Parquet would round, or nothing but
    empty objects.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = _schema(path)
        with pq.ParquetWriter(path.with_suffix(".parquet"), schema) as writer:
            for rows in _blocks(path):
                writer.write_table(pa.Table.from_pylist(rows, schema))
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(
            f"{path.name}: the rows do not fit one table ({str(error).splitlines()[0]})",
            "the same kind of value in every row of a column",
            "write format: jsonl",
        ) from None
    path.unlink()


def _schema(path: Path) -> pa.Schema:
    """Of all rows: a number that is whole in some rows alone has room for fractions, an object the keys of all."""
    import pyarrow as pa

    found = pa.schema([])
    for rows in _blocks(path):
        columns = dict.fromkeys(column for row in rows for column in row)
        types = {column: pa.array([row.get(column) for row in rows]).type for column in columns}
        found = pa.unify_schemas([found, pa.schema(types.items())], promote_options="permissive")
    return found


def _blocks(path: Path) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            rows.append(json.loads(line))
            size += len(line)
            if len(rows) >= BLOCK_ROWS or size >= BLOCK_BYTES:
                yield rows
                rows, size = [], 0
    if rows:
        yield rows
