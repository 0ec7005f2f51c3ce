"""Files -> rows in chunks on disk, each row checked as it is read; what cannot be read is counted and kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from tunesmith.config.desk import DeskData
from tunesmith.config.run import DataConfig
from tunesmith.data.addresses import unchanged
from tunesmith.data.columns import Mapping
from tunesmith.data.detect import detect
from tunesmith.data.folders import Source, sources_of
from tunesmith.data.readers import head_of, read_rows, sha256
from tunesmith.data.sources import UnreadableRow
from tunesmith.desk.rows import SPLITS, Row, Shape, Split
from tunesmith.errors import DataError, RowError
from tunesmith.types import EventSink, RowRef

CHUNK_ROWS, CHUNK_BYTES = 5_000, 16 * 2**20
"""Rows that a process works on at a time: at most so many, and so many bytes of JSON."""


PLAIN = frozenset((str, int, bool, type(None)))
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass
class FileRead:
    """A file of rows as it was read: rows = used + refused. repaired: what was set right in reading."""

    file: str
    split: Split
    sha256: str
    rows: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)

    @property
    def used(self) -> int:
        return self.rows - self.refused.total()


@dataclass
class Read:
    """All that was read. chunks: files of rows, in order. shapes: of each file, by its place in `files`."""

    files: list[FileRead]
    shapes: list[Shape]
    chunks: list[Path]
    meaning: str

    def rows(self, chunk: Path) -> Iterator[Row]:
        return rows_of(chunk, self.files, self.shapes)


def rows_of(chunk: Path, files: Sequence[FileRead], shapes: Sequence[Shape]) -> Iterator[Row]:
    refs = [one.file for one in files]
    with chunk.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            number, split, file, at, values = json.loads(line)
            yield Row(number, SPLITS[split], RowRef(refs[file], at), values, shapes[file])


def packed(row: Row, file: int) -> str:
    """The line of a row in a chunk."""
    fields = [row.number, SPLITS.index(row.split), file, row.ref.line, row.values]
    return _ENCODE(fields) + "\n"


def read(
    data: DeskData, folder: Path, refused: Path, sink: EventSink, told: Callable[[str], str] = str
) -> Read:
    """Everything that `data` names, as chunks in `folder`. refused: rows that cannot be read are listed there. told:
    what may be kept of the text of such a row.

    Raises DataError for what concerns a whole file, and where not one row can be read.
    """
    folder.mkdir(parents=True)
    writer = _Chunks(folder)
    files: list[FileRead] = []
    shapes: list[Shape] = []
    with refused.open("w", encoding="utf-8", errors="replace") as listed:
        for split in SPLITS:
            for source in sources_of(data.files(split), split):
                if source.weight != 1:
                    raise DataError(
                        f"{source.file} has a weight",
                        "rows once each; weights are of training",
                        "leave it out",
                    )
                with unchanged(source.file):
                    one = FileRead(source.file, split, sha256(source.file))
                    rows = read_rows(source.file, one.repaired)
                    head = head_of(rows)
                    files.append(one)
                    shapes.append(_shape(data, source, head))
                    refuse = partial(_refuse, one, listed, told)
                    _keep(chain(head, rows), one, shapes, writer, refuse, sink)
    chunks = writer.close()
    if not writer.count:
        reasons = sum((one.refused for one in files), Counter[str]())
        said = ", ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(5))
        raise DataError(f"not one row could be read: {said}", "rows that JSON can hold", "correct the files")
    return Read(files, shapes, chunks, shapes[0].meaning.describe())


def _keep(
    rows: Iterable[tuple[int, Any]],
    one: FileRead,
    shapes: Sequence[Shape],
    writer: _Chunks,
    refuse: Callable[[RowError, int], None],
    sink: EventSink,
) -> None:
    """The rows of the last file of those that are read."""
    for line, values in rows:
        one.rows += 1
        found = values if isinstance(values, RowError) else plain(values)
        if isinstance(found, RowError):
            refuse(found, line)
        else:
            ref = RowRef(one.file, line)
            writer.add(Row(writer.count, one.split, ref, found, shapes[-1]), len(shapes) - 1)
        if one.rows % CHUNK_ROWS == 0:
            sink("progress", name="rows read", done=writer.count, total=None)


def _shape(data: DeskData, source: Source, head: Sequence[tuple[int, Any]]) -> Shape:
    rows = [row for _, row in head if not isinstance(row, RowError)]
    if not rows:
        raise head[0][1]
    return Shape(source.mapping or _meaning(rows, data.as_data_config(), source.file))


def _meaning(rows: Sequence[dict[str, Any]], config: DataConfig, file: str) -> Mapping:
    """Rows that people judged need not be called so: the desk, unlike a method of training, takes any."""
    try:
        return detect(rows, config, file)
    except DataError as error:
        if config.format != "auto":
            raise
        try:
            return detect(rows, config.model_copy(update={"format": "judged"}), file)
        except DataError:
            raise error from None


def _refuse(one: FileRead, listed: TextIO, told: Callable[[str], str], error: RowError, line: int) -> None:
    one.refused[error.reason] += 1
    raw = error.raw if isinstance(error, UnreadableRow) else ""
    entry = {
        "file": one.file,
        "line": line,
        "reason": error.reason,
        "message": told(error.got),
        "row": told(raw),
    }
    listed.write(json.dumps(entry, ensure_ascii=False) + "\n")


def plain(values: dict[str, Any]) -> dict[str, Any] | RowError:
    """The row as JSON can hold it: dates as ISO 8601, decimals as they are written."""
    if PLAIN.issuperset(map(type, values.values())):
        return values
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False, default=_as_text)
    except (TypeError, ValueError) as error:
        fix = "write it as text, number, list or object"
        return RowError("not_json", f"a value that JSON cannot hold ({error})", fix=fix)
    found: dict[str, Any] = json.loads(text)
    return found


def _as_text(value: Any) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)


class _Chunks:
    """Writes rows into files of about the same size."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.paths: list[Path] = []
        self._lines: list[str] = []
        self._bytes = 0

    def add(self, row: Row, file: int) -> None:
        line = packed(row, file)
        self._lines.append(line)
        self._bytes += len(line)
        self.count += 1
        if len(self._lines) >= CHUNK_ROWS or self._bytes >= CHUNK_BYTES:
            self._write()

    def close(self) -> list[Path]:
        if self._lines:
            self._write()
        return self.paths

    def _write(self) -> None:
        path = self.folder / f"{len(self.paths):06d}.jsonl"
        path.write_text("".join(self._lines), encoding="utf-8")
        self.paths.append(path)
        self._lines, self._bytes = [], 0
