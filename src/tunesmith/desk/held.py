"""Rows of files or of a data set, all in memory: for what must see them together, and for people."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.config.desk import DeskData
from tunesmith.data.folders import CURRENT
from tunesmith.desk.reading import FileRead, read
from tunesmith.desk.rows import SPLITS, Row, Values
from tunesmith.desk.versions import DataSet, Version
from tunesmith.types import EventSink


@dataclass(frozen=True)
class Held:
    """version: of the data set that the rows are of, if they are of one."""

    rows: list[Row]
    files: list[FileRead]
    meaning: str
    version: Version | None

    @property
    def refused(self) -> int:
        return sum(one.refused.total() for one in self.files)


def held(data: DeskData, sink: EventSink) -> Held:
    """Every row that `data` names, as `spread` reads it. Raises DataError as `reading.read` does."""
    version = version_of(data)
    data = spread(data)
    with tempfile.TemporaryDirectory(prefix="tunesmith-desk-") as name:
        found = read(data, Path(name) / "read", Path(name) / "refused.jsonl", sink)
        rows = [row for chunk in found.chunks for row in found.rows(chunk)]
    return Held(rows, found.files, found.meaning, version)


def version_of(data: DeskData) -> Version | None:
    """The current version of the data set that is all that `data` names; else None."""
    if len(data.train) != 1 or data.validation or data.test:
        return None
    folder = Path(data.train[0])
    return DataSet(folder).version() if (folder / CURRENT).is_file() else None


def spread(data: DeskData) -> DeskData:
    """With all splits of the data sets of the desk that `data.train` names, where it names no other evaluation rows:
    else those of a version would be gone from the next one, and nothing would say so."""
    if data.validation or data.test:
        return data
    named: dict[str, list[str]] = {split: [] for split in SPLITS}
    for entry in data.train:
        folder = Path(entry)
        is_data_set = (folder / CURRENT).is_file()
        rows = DataSet(folder).version().manifest["rows"] if is_data_set else {"train": 1}
        for split in (split for split, count in rows.items() if count):
            named[split].append(entry)
    return data.model_copy(update=named)


def content_key(values: Values) -> str:
    """32 hexadecimal digits, equal for rows with equal columns."""
    text = json.dumps(values, ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def kinds_of(rows: Sequence[Row]) -> set[str]:
    """The kinds of rows that there are; see `tunesmith.data.columns`."""
    return {row.shape.meaning.kind for row in rows}
