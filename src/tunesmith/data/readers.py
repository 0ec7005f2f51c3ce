"""Files of rows -> (line, row), one at a time, with bounded memory.

A record that cannot be read is yielded as a RowError and reading goes on; a file that cannot be trusted from
some point on raises DataError there. Nothing here imports torch or transformers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tunesmith.data.json_arrays import array_rows, begins_array
from tunesmith.data.sources import (
    MAX_LINE,
    UnreadableRow,
    byte_chunks,
    decode,
    lines,
    open_regular,
    sha256,
    too_long,
)
from tunesmith.data.strict_json import parse_object
from tunesmith.data.tables import read_arrow, read_csv, read_parquet, read_tsv
from tunesmith.errors import DataError, RowError

__all__ = ["ENDINGS", "MAX_LINE", "Row", "UnreadableRow", "ending_of", "read_rows", "sha256"]

Row = tuple[int, dict[str, Any] | RowError]


def read_rows(path: str | Path) -> Iterator[Row]:
    """Rows of a .jsonl, .json (an array, or one object a line), .csv, .tsv, .parquet or .arrow file, plain or .gz.

    Yields (line, row): the physical line (1-based) on which the record starts, or the row's number in Parquet,
    Arrow and JSON arrays. Blank lines are passed over. Raises DataError for what concerns the whole file.
    """
    path = Path(path)
    zipped = path.suffix.lower() == ".gz"
    ending = ending_of(path)
    reader = _READERS.get(ending)
    if reader is None:
        what = f"'{ending}' files" if ending else "files without an ending"
        raise DataError(
            f"{path}: {what} are not read", f"one of {', '.join(_READERS)}, plain or .gz", "convert the file"
        )
    count = 0
    with open_regular(path) as stream:
        for row in reader(path, stream, zipped):
            count += 1
            yield row
    if count == 0:
        raise DataError(f"{path}: there is not one row in it", "at least one row")


def ending_of(path: Path) -> str:
    """'.csv' of rows.csv and of rows.CSV.gz."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def read_json(path: Path, stream: IO[bytes], zipped: bool) -> Iterator[Row]:
    """The objects of a JSON array, or JSON objects one a line."""
    chunks = byte_chunks(path, stream, zipped)
    is_array, read = begins_array(path, chunks)
    whole = itertools.chain(read, chunks)
    return array_rows(path, whole) if is_array else _rows_of_lines(path, whole)


def read_jsonl(path: Path, stream: IO[bytes], zipped: bool) -> Iterator[Row]:
    """JSON objects, one a line."""
    return _rows_of_lines(path, byte_chunks(path, stream, zipped))


def _rows_of_lines(path: Path, chunks: Iterator[bytes]) -> Iterator[Row]:
    first = True
    for number, line in lines(path, chunks):
        if line is None:
            yield number, UnreadableRow(too_long(), str(path), number, "")
            continue
        if not line.strip():
            continue
        if first:
            _refuse_documents(path, line)
            first = False
        try:
            yield number, parse_object(decode(line), cut_off=not line.endswith((b"\n", b"\r")))
        except RowError as error:
            raw = line[:2048].decode("utf-8", errors="replace")
            yield number, UnreadableRow(error, str(path), number, raw)


def _refuse_documents(path: Path, line: bytes) -> None:
    """One JSON document over the whole file is another format; it would only give one error a line."""
    start = line.strip()
    if start.startswith(b"["):
        raise DataError(
            f"{path}: one JSON array",
            "JSON Lines: one object on each line",
            f"give it the ending .json, or jq -c '.[]' {path.name} > rows.jsonl",
        )
    if start == b"{":
        raise DataError(
            f"{path}: a JSON object spread over several lines",
            "JSON Lines: one object on each line",
            f"jq -c . {path.name} > rows.jsonl",
        )


_READERS: dict[str, Callable[[Path, IO[bytes], bool], Iterator[Row]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}
ENDINGS = tuple(_READERS)
