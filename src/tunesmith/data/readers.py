"""Files of rows -> (line, row), one at a time, with bounded memory.

A record that cannot be read is yielded as a RowError and reading goes on; a file that cannot be trusted from
some point on raises DataError there. Nothing here imports torch or transformers.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tunesmith.data.addresses import file_named, sha256
from tunesmith.data.chat_logs import conversations, is_log, unlogged
from tunesmith.data.endings import ENDINGS, ending_of, is_packed
from tunesmith.data.json_arrays import array_rows, begins_array
from tunesmith.data.sources import (
    MAX_LINE,
    UnreadableRow,
    byte_chunks,
    decode,
    lines,
    open_regular,
    too_long,
)
from tunesmith.data.stretches import Stretch
from tunesmith.data.strict_json import parse_object
from tunesmith.data.tables import read_arrow, read_csv, read_parquet, read_tsv
from tunesmith.errors import DataError, RowError

__all__ = [
    "ENDINGS",
    "LOOK_AT",
    "MAX_LINE",
    "Row",
    "UnreadableRow",
    "ending_of",
    "head_of",
    "read_rows",
    "read_stretch",
    "sha256",
]

LOOK_AT, LOOK_BYTES = 100, 32 * 2**20

Row = tuple[int, dict[str, Any] | RowError]
Reader = Callable[[str, IO[bytes], bool, Counter[str] | None], Iterator[Row]]


def read_rows(address: str | Path, notes: Counter[str] | None = None) -> Iterator[Row]:
    """Rows of a .jsonl, .json (an array, or one object a line), .csv, .tsv, .parquet or .arrow file, plain, .gz or
    .zst, wherever it lies (`addresses`). Logs of chats become conversations (`chat_logs`).

    Yields (line, row): the physical line (1-based) on which the record starts, or the row's number in Parquet,
    Arrow and JSON arrays. Blank lines are passed over. notes: counts what was repaired (byte_order_mark,
    mixed_line_ends). Raises DataError for what concerns the whole file.
    """
    name = str(address)
    path = file_named(name)
    zipped = is_packed(path)
    ending = ending_of(path)
    reader = READERS.get(ending)
    if reader is None:
        what = f"'{ending}' files" if ending else "files without an ending"
        raise DataError(
            f"{name}: {what} are not read",
            f"one of {', '.join(READERS)}, plain, .gz or .zst",
            "convert the file",
        )
    count = 0
    with open_regular(path, name) as stream:
        for row in unlogged(reader(name, stream, zipped, notes), name):
            count += 1
            yield row
    if count == 0:
        raise DataError(f"{name}: there is not one row in it", "at least one row")


def read_stretch(address: str, stretch: Stretch, notes: Counter[str] | None = None) -> Iterator[Row]:
    """Those of `read_rows` whose lines are in this stretch of a .jsonl file."""
    with open_regular(file_named(address), address) as stream:
        whole = (row for _, row in read_jsonl(address, stream, False))
        first = next((row for row in whole if not isinstance(row, RowError)), {})
        rows = _rows_of_lines(address, stretch.chunks(stream), notes, stretch.line)
        yield from conversations(rows, address) if is_log(first) else rows


def head_of(rows: Iterator[Row]) -> list[Row]:
    """The first rows, by which it is decided what columns mean: up to LOOK_AT, fewer where they are large."""
    head: list[Row] = []
    size = 0
    for row in itertools.islice(rows, LOOK_AT):
        head.append(row)
        size += 0 if isinstance(row[1], RowError) else _bulk(row[1])
        if size > LOOK_BYTES:
            break
    return head


def _bulk(value: object) -> int:
    """About how many bytes a value takes in memory."""
    if isinstance(value, dict):
        return 64 + sum(64 + len(key) + _bulk(item) for key, item in value.items())
    if isinstance(value, list):
        return 64 + sum(map(_bulk, value))
    return 64 + (len(value) if isinstance(value, str | bytes) else 0)


def read_json(path: str, stream: IO[bytes], zipped: bool, notes: Counter[str] | None = None) -> Iterator[Row]:
    """The objects of a JSON array, or JSON objects one a line."""
    chunks = byte_chunks(path, stream, zipped)
    is_array, read = begins_array(path, chunks, notes)
    whole = itertools.chain(read, chunks)
    return array_rows(path, whole) if is_array else _rows_of_lines(path, whole, notes)


def read_jsonl(
    path: str, stream: IO[bytes], zipped: bool, notes: Counter[str] | None = None
) -> Iterator[Row]:
    """JSON objects, one a line."""
    return _rows_of_lines(path, byte_chunks(path, stream, zipped), notes)


def _rows_of_lines(
    path: str, chunks: Iterator[bytes], notes: Counter[str] | None, begin: int = 1
) -> Iterator[Row]:
    first = begin == 1
    for number, line in lines(path, chunks, notes, begin):
        if line is None:
            yield number, UnreadableRow(too_long(), path, number, "")
            continue
        if line.isspace():
            continue
        if first:
            _refuse_documents(path, line)
            first = False
        try:
            yield number, parse_object(decode(line), cut_off=not line.endswith((b"\n", b"\r")))
        except RowError as error:
            raw = line[:2048].decode("utf-8", errors="replace")
            yield number, UnreadableRow(error, path, number, raw)


def _refuse_documents(path: str, line: bytes) -> None:
    """One JSON document over the whole file is another format; it would only give one error a line."""
    start = line.strip()
    if start.startswith(b"["):
        raise DataError(
            f"{path}: one JSON array",
            "JSON Lines: one object on each line",
            f"give it the ending .json, or jq -c '.[]' {Path(path).name} > rows.jsonl",
        )
    if start == b"{":
        raise DataError(
            f"{path}: a JSON object spread over several lines",
            "JSON Lines: one object on each line",
            f"jq -c . {Path(path).name} > rows.jsonl",
        )


READERS: dict[str, Reader] = dict(
    zip(ENDINGS, (read_jsonl, read_json, read_csv, read_tsv, read_parquet, read_arrow), strict=True)
)
