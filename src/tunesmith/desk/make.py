"""A recipe of the desk -> a new version of a data set, or what it would be."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from tunesmith.config.desk import Desk
from tunesmith.data.folders import sources_of
from tunesmith.data.load import few_collections
from tunesmith.data.shares import Sharing
from tunesmith.desk import card
from tunesmith.desk.balance import Balancing
from tunesmith.desk.clean import Cleaning
from tunesmith.desk.decisions import Reviewed
from tunesmith.desk.dedup import Exact, Near, contamination, said
from tunesmith.desk.labels import Labels
from tunesmith.desk.passes import Counted, Passes
from tunesmith.desk.reading import FileRead, Read, read
from tunesmith.desk.rows import SPLITS
from tunesmith.desk.splitting import Splitting
from tunesmith.desk.steps import Step
from tunesmith.desk.versions import MANIFEST, DataSet, Version, digest, manifest_text
from tunesmith.types import EventSink

ROWS, ORIGINS, CHANGES, REFUSED = "jsonl", "origins.jsonl", "changes.jsonl", "refused.jsonl"


@dataclass(frozen=True)
class Made:
    """What a run of the desk did. version: None where it was only to be shown."""

    desk: Desk
    files: Sequence[FileRead]
    meaning: str
    steps: Sequence[Counted]
    rows: dict[str, int]
    version: Version | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "version": None if self.version is None else str(self.version.folder),
            "meaning": self.meaning,
            "files": [file_facts(one) for one in self.files],
            "steps": [step.as_dict() for step in self.steps],
            "rows": self.rows,
            "seconds": round(self.seconds, 2),
        }

    def as_text(self) -> str:
        return card.as_text(self.as_dict(), {step.name: step.examples for step in self.steps})


def make(desk: Desk, sink: EventSink, *, dry_run: bool = False, sharing: Sharing | None = None) -> Made:
    """Reads, carries out every step that is named, and adds a version to `desk.output`; of a dry run, only counts.

    Raises DataError for files or rows that stop the work; then nothing is left behind.
    """
    started = datetime.now(UTC)
    sharing = sharing or Sharing.by_cores()
    with few_collections():
        if dry_run:
            with tempfile.TemporaryDirectory(prefix="tunesmith-desk-") as name:
                return _made(desk, Path(name), sink, sharing, started)
        data_set = DataSet(Path(desk.output))
        with data_set.making() as folder:
            made = _made(desk, folder, sink, sharing, started)
        return Made(**{**made.__dict__, "version": data_set.version()})


def _made(desk: Desk, folder: Path, sink: EventSink, sharing: Sharing, started: datetime) -> Made:
    work = folder / "work"
    work.mkdir()
    found = read(desk.data, work / "read", folder / REFUSED, sink)
    passes = Passes(found, work, Sharing(sharing.processes, least=2, part=1), sink)
    chunks = passes.run(steps_of(desk))
    sink("phase", name="writing", text=str(desk.output))
    rows = _written(desk, found, chunks, folder)
    _joined(passes.ledgers, folder / CHANGES)
    shutil.rmtree(work)
    seconds = (datetime.now(UTC) - started).total_seconds()
    made = Made(desk, found.files, found.meaning, passes.counts, rows, None, seconds)
    _described(made, folder, started)
    return made


def steps_of(desk: Desk) -> list[Step]:
    """The steps that the recipe names, in their order."""
    steps: list[Step] = []
    if desk.review is not None:
        steps.append(Reviewed.of(desk.review))
    if desk.clean is not None:
        steps.append(Cleaning(desk.clean))
        if desk.clean.labels:
            steps.append(Labels())
    if desk.dedup is not None:
        if desk.dedup.exact:
            steps.append(Exact(desk.dedup.by))
        if desk.dedup.near is not None:
            steps.append(Near(desk.dedup.near, desk.dedup.permutations, desk.dedup.by))
        if desk.dedup.against:
            steps.append(contamination(_benchmarks(desk), desk.dedup.ngram))
    if desk.split is not None:
        steps.append(Splitting(desk.split, desk.seed))
    if desk.balance is not None:
        steps.append(Balancing.of(desk.balance, desk.seed))
    return steps


def _benchmarks(desk: Desk) -> dict[str, list[list[str]]]:
    """Of every file of evaluation rows the texts of each row."""
    assert desk.dedup is not None
    out: dict[str, list[list[str]]] = {}
    quiet: EventSink = lambda kind, /, **fields: None  # noqa: E731
    for source in sources_of(desk.dedup.against):
        data = desk.data.model_copy(update={"train": [source.file], "validation": [], "test": []})
        with tempfile.TemporaryDirectory(prefix="tunesmith-desk-") as name:
            found = read(data, Path(name) / "read", Path(name) / REFUSED, quiet)
            out[source.file] = [said(row, "row") for chunk in found.chunks for row in found.rows(chunk)]
    return out


# What is written -----------------------------------------------------------------------------------------


def _written(desk: Desk, found: Read, chunks: Sequence[Path], folder: Path) -> dict[str, int]:
    """The rows of each split, and where they are from; how many there are of each."""
    rows: Counter[str] = Counter()
    out: dict[str, TextIO] = {}
    try:
        with (folder / ORIGINS).open("w", encoding="utf-8") as origins:
            for chunk in chunks:
                for row in found.rows(chunk):
                    if row.split not in out:
                        out[row.split] = (folder / f"{row.split}.jsonl").open("w", encoding="utf-8")
                    out[row.split].write(json.dumps(row.values, ensure_ascii=False) + "\n")
                    rows[row.split] += 1
                    at = [row.number, row.split, rows[row.split], row.ref.file, row.ref.line]
                    origins.write(json.dumps(at, ensure_ascii=False) + "\n")
    finally:
        for file in out.values():
            file.close()
    if desk.format == "parquet":
        for split in rows:
            as_parquet(folder / f"{split}.jsonl")
    return {split: rows[split] for split in SPLITS if rows[split]}


def as_parquet(path: Path) -> None:
    """The same rows as Parquet, in its place. Raises DataError where a column holds values of several kinds."""
    import pyarrow as pa
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    from tunesmith.errors import DataError

    try:
        table = pj.read_json(path, read_options=pj.ReadOptions(block_size=64 * 2**20))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path.name}: the rows do not fit one table ({error})",
            "the same kind of value in every row of a column",
            "write format: jsonl",
        ) from None
    pq.write_table(table, path.with_suffix(".parquet"), row_group_size=10_000)
    path.unlink()


def _joined(parts: Sequence[Path], target: Path) -> None:
    with target.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, out)


def _described(made: Made, folder: Path, started: datetime) -> None:
    facts = made.as_dict()
    manifest = {
        "tunesmith": version("tunesmith"),
        "made": started.isoformat(timespec="seconds"),
        "recipe": made.desk.model_dump(exclude_none=True),
        "meaning": made.meaning,
        "sources": facts["files"],
        "steps": facts["steps"],
        "rows": made.rows,
    }
    examples = {step.name: step.examples for step in made.steps}
    (folder / "card.md").write_text(card.as_markdown(manifest, examples), encoding="utf-8")
    files = {
        path.name: {"sha256": digest(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    (folder / MANIFEST).write_text(manifest_text(manifest | {"files": files}), encoding="utf-8")


def file_facts(one: FileRead) -> dict[str, Any]:
    return {
        "file": os.path.relpath(one.file) if not one.file.startswith("/") else one.file,
        "split": one.split,
        "sha256": one.sha256,
        "rows": one.rows,
        "used": one.used,
        "refused": dict(one.refused.most_common()),
    }


# And back ------------------------------------------------------------------------------------------------


def restored(made: Version) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, columns) of every row that was read, in order, as it was before any step."""
    rows: dict[int, dict[str, Any]] = {}
    with (made.folder / ORIGINS).open(encoding="utf-8") as origins:
        at = [json.loads(line) for line in origins]
    for split in SPLITS:
        numbers = [number for number, of, *_ in at if of == split]
        for number, values in zip(numbers, rows_of_split(made, split), strict=True):
            rows.setdefault(number, values)  # a row that was added stands after the one that it is of
    with (made.folder / CHANGES).open(encoding="utf-8") as changes:
        undone: dict[int, list[dict[str, Any]]] = {}
        for line in changes:
            entry = json.loads(line)
            undone.setdefault(entry["row"], []).append(entry)
    for number, entries in undone.items():
        values = rows.get(number, {})
        for entry in reversed(entries):
            if entry.get("dropped"):
                values = entry["before"]
                continue
            values = {**values, **entry["before"]}
            for column in entry.get("added", ()):
                del values[column]
        rows[number] = values
    yield from sorted(rows.items())


def rows_of_split(made: Version, split: str) -> Iterator[dict[str, Any]]:
    from tunesmith.data.readers import read_rows

    for ending in ("jsonl", "parquet"):
        path = made.folder / f"{split}.{ending}"
        if path.is_file():
            yield from (row for _, row in read_rows(path) if isinstance(row, dict))
