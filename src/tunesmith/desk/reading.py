"""Files -> rows in chunks on disk, each row checked as it is read; what cannot be read is counted and kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from tunesmith.config.desk import DeskData
from tunesmith.config.run import DataConfig
from tunesmith.data.addresses import unchanged
from tunesmith.data.columns import Mapping
from tunesmith.data.detect import detect
from tunesmith.data.folders import Source, sources_of
from tunesmith.data.readers import head_of, read_rows, read_stretch, sha256
from tunesmith.data.shares import ALONE, Made, Sharing, shared_out
from tunesmith.data.sources import UnreadableRow
from tunesmith.data.stretches import Stretch, stretches
from tunesmith.desk.rows import SPLITS, Row, Shape, Split, Values, Written, written
from tunesmith.errors import DataError, RowError
from tunesmith.types import EventSink, RowRef, silent

CHUNK_ROWS, CHUNK_BYTES = 5_000, 16 * 2**20
"""Rows that a process works on at a time: at most so many, and so many bytes of JSON."""
STRETCH = 8 * 2**20
"""Bytes of a large file that a process reads at a time."""

PLAIN = frozenset((str, int, bool, type(None)))


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


@dataclass(frozen=True)
class Chunk:
    """Rows in a file, each with its number, which counts from `first`: what is read by several processes is numbered
    when all of it is there."""

    path: Path
    first: int = 0

    def numbers(self) -> Iterator[int]:
        """Without a row being parsed."""
        with self.path.open("rb") as lines:
            for line in lines:
                yield self.first + int(line[1 : line.index(b",")])


@dataclass
class Read:
    """All that was read. chunks: in order. shapes: of each file, by its place in `files`."""

    files: list[FileRead]
    shapes: list[Shape]
    chunks: list[Chunk]
    meaning: str

    def rows(self, chunk: Chunk) -> Iterator[Row]:
        refs = [one.file for one in self.files]
        with chunk.path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                number, split, place, at, values = line[1:-2].split(",", 4)
                file = int(place)
                ref = RowRef(refs[file], int(at))
                yield Written(chunk.first + int(number), SPLITS[int(split)], ref, self.shapes[file], values)


def packed(row: Row, file: int) -> str:
    """The line of a row in a chunk."""
    return _line(row.number, row.split, file, row.ref.line, row.json)


def _line(number: int, split: Split, file: int, line: int, values: str) -> str:
    return f"[{number},{SPLITS.index(split)},{file},{line},{values}]\n"


def read(
    data: DeskData,
    folder: Path,
    refused: Path,
    sink: EventSink,
    told: Callable[[str], str] = str,
    sharing: Sharing = ALONE,
    meanwhile: Callable[[], object] | None = None,
) -> Read:
    """Everything that `data` names, as chunks in `folder`. refused: rows that cannot be read are listed there. told:
    what may be kept of the text of such a row. sharing: processes that read a large file together. meanwhile: what this
    process may do while they read; it is done for each of such files.

    Raises DataError for what concerns a whole file, and where not one row can be read.
    """
    folder.mkdir(parents=True)
    found = Read([], [], [], "")
    writer = _Chunks(folder, found.chunks)
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
                    found.files.append(one)
                    _read(data, source, found, _Keeping(writer, listed, told, sink), sharing, meanwhile)
    writer.close()
    if not writer.count:
        reasons = sum((one.refused for one in found.files), Counter[str]())
        said = ", ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(5))
        raise DataError(f"not one row could be read: {said}", "rows that JSON can hold", "correct the files")
    found.meaning = found.shapes[0].meaning.describe()
    return found


def _read(
    data: DeskData,
    source: Source,
    found: Read,
    keeping: _Keeping,
    sharing: Sharing,
    meanwhile: Callable[[], object] | None,
) -> None:
    """The last of the files that are read."""
    one, cut = found.files[-1], stretches(source.file, STRETCH) if sharing.processes > 1 else []
    rows = read_rows(source.file, Counter() if cut else one.repaired)
    head = head_of(rows)
    found.shapes.append(_shape(data, source, head))
    if not cut:
        keeping.of(one, chain(head, rows), found.shapes)
        return
    writer, folder = keeping.writer, keeping.writer.folder
    writer.close()
    work = _Stretches(one, cut, found.shapes, folder, keeping.told)
    for place, (_, said) in enumerate(
        shared_out(len(cut), work, Sharing(sharing.processes, least=2, part=1), meanwhile)
    ):
        one.rows += said["rows"]
        one.refused.update(said["refused"])
        one.repaired.update(said["repaired"])
        listed = work.listed(place)
        keeping.listed.write(listed.read_text(encoding="utf-8"))
        listed.unlink()
        writer.paths += [Chunk(folder / name, writer.count) for name in said["chunks"]]
        writer.count += said["rows"] - sum(said["refused"].values())
    keeping.sink("progress", name="rows read", done=writer.count, total=None)


@dataclass(frozen=True)
class _Keeping:
    """Where rows go that are read, and those that cannot be."""

    writer: _Chunks
    listed: TextIO
    told: Callable[[str], str]
    sink: EventSink

    def of(self, one: FileRead, rows: Iterable[tuple[int, Any]], shapes: Sequence[Shape]) -> None:
        """The rows of the last file of those that are read, or of a stretch of it."""
        for line, values in rows:
            one.rows += 1
            found = values if isinstance(values, RowError) else plain(values)
            if isinstance(found, RowError):
                _refuse(one, self.listed, self.told, found, line)
            else:
                self.writer.add(one.split, len(shapes) - 1, line, found)
            if one.rows % CHUNK_ROWS == 0:
                self.sink("progress", name="rows read", done=self.writer.count, total=None)


@dataclass(frozen=True)
class _Stretches:
    """The work on stretches of one file, each of which is numbered for itself."""

    one: FileRead
    cut: Sequence[Stretch]
    shapes: Sequence[Shape]
    folder: Path
    told: Callable[[str], str]

    def listed(self, place: int) -> Path:
        return self.folder / f"{len(self.shapes):06d}-{place:06d}.refused"

    def __call__(self, part: range) -> Made:
        (place,) = part
        here = FileRead(self.one.file, self.one.split, self.one.sha256)
        writer = _Chunks(self.folder, [], f"{len(self.shapes):06d}-{place:06d}-")
        with self.listed(place).open("w", encoding="utf-8", errors="replace") as listed:
            rows = read_stretch(here.file, self.cut[place], here.repaired)
            _Keeping(writer, listed, self.told, silent).of(here, rows, self.shapes)
        writer.close()
        chunks = [chunk.path.name for chunk in writer.paths]
        return {}, {
            "rows": here.rows,
            "refused": here.refused,
            "repaired": here.repaired,
            "chunks": chunks,
        }


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
    """Writes rows into files of about the same size, which are added to `paths`."""

    def __init__(self, folder: Path, paths: list[Chunk], name: str = "") -> None:
        self.folder, self.paths, self.name, self.count = folder, paths, name, 0
        self._lines: list[str] = []
        self._bytes = 0

    def add(self, split: Split, file: int, at: int, values: Values) -> None:
        line = _line(self.count, split, file, at, written(values))
        self._lines.append(line)
        self._bytes += len(line)
        self.count += 1
        if len(self._lines) >= CHUNK_ROWS or self._bytes >= CHUNK_BYTES:
            self.close()

    def close(self) -> None:
        """What is added from here on comes into another file."""
        if self._lines:
            path = self.folder / f"{self.name}{len(self.paths):06d}.jsonl"
            path.write_text("".join(self._lines), encoding="utf-8")
            self.paths.append(Chunk(path))
            self._lines, self._bytes = [], 0
