"""A recipe of the desk -> a new version of a data set, or what it would be."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith.config.desk import Clean, Desk, Making
from tunesmith.data.folders import sources_of
from tunesmith.data.load import few_collections
from tunesmith.data.readers import LOOK_AT
from tunesmith.data.shares import Sharing
from tunesmith.desk import card, language
from tunesmith.desk.alike import Sketches
from tunesmith.desk.balance import Balancing
from tunesmith.desk.clean import Cleaning
from tunesmith.desk.cluster import connected
from tunesmith.desk.decisions import Reviewed
from tunesmith.desk.dedup import Repeats, SameId, contamination, said
from tunesmith.desk.facts import Inspecting, Inspection, Told
from tunesmith.desk.finding import Names
from tunesmith.desk.held import spread
from tunesmith.desk.labels import Labels
from tunesmith.desk.left import Left
from tunesmith.desk.meaning import Embed, Meanings
from tunesmith.desk.pages import card_page
from tunesmith.desk.parquet import as_parquet
from tunesmith.desk.passes import Counted, Passes
from tunesmith.desk.plans import Once
from tunesmith.desk.reading import FileRead, Read, read
from tunesmith.desk.rows import SPLITS
from tunesmith.desk.scrub import Scrubbing, Veil
from tunesmith.desk.splitting import Splitting
from tunesmith.desk.stated import Stated
from tunesmith.desk.steps import Step
from tunesmith.desk.versions import (
    CHANGES,
    MANIFEST,
    ORIGINS,
    REFUSED,
    DataSet,
    Version,
    manifest_text,
)
from tunesmith.storage import digest
from tunesmith.types import EventSink

INSPECTION = "inspection"
"""Of the rows as they were read: a page (.html), and the same as JSON."""
WORK = "work"
"""In the folder of a version while it is made."""


@dataclass(frozen=True)
class Made:
    """What a run of the desk did. version: None where it was only to be shown. more: what else is to be known of it,
    by name; it stands in the manifest. inspection: of the rows as they were read, where it was asked for."""

    recipe: Making
    files: Sequence[FileRead]
    meaning: str
    steps: Sequence[Counted]
    rows: dict[str, int]
    version: Version | None
    seconds: float
    more: Mapping[str, Any]
    inspection: Inspection | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "version": None if self.version is None else str(self.version.folder),
            "meaning": self.meaning,
            "files": [file_facts(one) for one in self.files],
            "steps": [step.as_dict() for step in self.steps],
            "rows": self.rows,
            "seconds": round(self.seconds, 2),
            **self.more,
            **({} if self.inspection is None else {"inspection": self.inspection.facts}),
        }

    def as_text(self) -> str:
        made = card.as_text(self.as_dict(), {step.name: step.examples for step in self.steps})
        return made if self.inspection is None else f"{self.inspection.as_text()}\n\n{made}"


def make(
    desk: Desk,
    sink: EventSink,
    *,
    dry_run: bool = False,
    sharing: Sharing | None = None,
    names: Names | None = None,
    embed: Embed | None = None,
    inspecting: Callable[[], Inspecting] | None = None,
) -> Made:
    """Reads, carries out every step that is named, and adds a version to `desk.output`; of a dry run, only counts.
    names: finds those of people, for scrubbing; then one process does all, which has the model. embed: tells what texts
    mean, for de-duplication by meaning. inspecting: also look at the rows as they were read, on the same walk, by what
    it loads while they are read; what was seen lies in the version, as a page and as JSON.

    Raises DataError for files or rows that stop the work; then nothing is left behind.
    """
    sharing = sharing or (Sharing.by_cores() if names is None else Sharing(1))
    scrubbing = None if desk.scrub is None else Scrubbing.of(desk.scrub, names)
    loaded = None if inspecting is None else cache(inspecting)

    def work(folder: Path) -> Work:
        veil = None
        if desk.scrub is not None and scrubbing is not None:
            veil = Veil(scrubbing.finder, desk.scrub.keep_originals)
        told = str if veil is None or veil.keeps else veil.over
        data = spread(desk.data)
        found = read(data, folder / WORK / "read", folder / REFUSED, sink, told, sharing, loaded)
        steps = steps_of(desk, found, folder / WORK, scrubbing, embed)
        return Work(found, steps, veil, ray=desk.ray, inspecting=loaded and loaded())

    return made_by(desk, work, sink, sharing, dry_run=dry_run)


@dataclass(frozen=True)
class Work:
    """Rows that were read, and the steps that they are to go through. veil, more: as of `Passes` and `Made`. ray: the
    address of a cluster that takes part. inspecting: what looks at the rows beside, if anything does."""

    found: Read
    steps: Sequence[Step]
    veil: Veil | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    ray: str | None = None
    inspecting: Inspecting | None = None


def made_by(
    recipe: Making, work: Callable[[Path], Work], sink: EventSink, sharing: Sharing, *, dry_run: bool
) -> Made:
    """A version of what `work` reads, after its steps. work: is given the version's folder, and reads into `work/read`
    in it."""
    started = datetime.now(UTC)
    with few_collections():
        if dry_run:
            with tempfile.TemporaryDirectory(prefix="tunesmith-desk-") as name:
                return _made(recipe, work, Path(name), sink, sharing, started)
        with DataSet(Path(recipe.output)).making() as draft:
            made = _made(recipe, work, draft.folder, sink, sharing, started)
        return replace(made, version=draft.version)


def _made(
    recipe: Making,
    work: Callable[[Path], Work],
    folder: Path,
    sink: EventSink,
    sharing: Sharing,
    started: datetime,
) -> Made:
    (folder / WORK).mkdir()
    given = work(folder)
    with nullcontext() if given.ray is None else connected(given.ray) as cluster:
        rows = given.found if given.inspecting is None else Once(**vars(given.found))
        passes = Passes(rows, folder / WORK, sharing, sink, given.veil, cluster)
        beside = [] if given.inspecting is None else [given.inspecting.plan(rows, folder / REFUSED)]
        *told, pieces = passes.run(given.steps, beside)
    inspection = None if given.inspecting is None else _inspected(given.inspecting, told[0], passes, folder)
    sink("phase", name="writing", text=str(recipe.output))
    written = _written(recipe, pieces, folder)
    _joined(passes.ledgers, folder / CHANGES)
    shutil.rmtree(folder / WORK)
    seconds = (datetime.now(UTC) - started).total_seconds()
    found = given.found
    made = Made(
        recipe, found.files, found.meaning, passes.counts, written, None, seconds, given.more, inspection
    )
    _described(made, passes.left, folder, started)
    return made


def _inspected(inspecting: Inspecting, told: Told, passes: Passes, folder: Path) -> Inspection:
    """What is said of the rows as they were read, also put down. Repeats are those of the rows that came so far."""
    steps = [step.with_example() for step in passes.counts if step.name.startswith("dedup")]
    found = Inspection(inspecting.whole(told, passes.veil) | {"steps": steps})
    (folder / INSPECTION).with_suffix(".json").write_text(
        json.dumps(found.facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    (folder / INSPECTION).with_suffix(".html").write_text(found.as_html(), encoding="utf-8")
    return found


def steps_of(
    desk: Desk, found: Read, work: Path, scrubbing: Scrubbing | None = None, embed: Embed | None = None
) -> list[Step]:
    """The steps that the recipe names, in their order, without those of which such rows have nothing. work: a folder
    for what they put down meanwhile."""
    steps: list[Step] = []
    if desk.review is not None:
        steps.append(Reviewed.of(desk.review))
    if desk.clean is not None:
        steps += _cleaning(desk.clean, found)
    if scrubbing is not None:
        scrubbing.check_kept(row for chunk in found.chunks for row in islice(found.rows(chunk), LOOK_AT))
        steps.append(scrubbing)
    if desk.dedup is not None:
        if desk.dedup.id is not None:
            steps.append(SameId(desk.dedup.id))
        near = desk.dedup.near
        sketches = None if near is None else Sketches(near, desk.dedup.permutations)
        steps.append(Repeats(desk.dedup.exact, sketches, desk.dedup.by))
        if desk.dedup.meaning is not None:
            assert embed is not None, "the caller loads the encoder"
            least = desk.dedup.meaning.similarity
            steps.append(Meanings(embed, least, desk.dedup.by, work / "meanings"))
        if desk.dedup.against:
            steps.append(contamination(_benchmarks(desk).items(), desk.dedup.ngram))
    if desk.split is not None:
        steps.append(Splitting(desk.split, desk.seed))
    if desk.balance is not None:
        steps.append(Balancing.of(desk.balance, desk.seed))
    return steps


def _cleaning(clean: Clean, found: Read) -> Iterator[Step]:
    if clean.languages:
        language.check(clean.languages)
    yield Cleaning(clean)
    if clean.labels and any("label" in shape.parts.values() for shape in found.shapes):
        yield Labels()
    if clean.label_in_text:
        yield Stated()


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


def _written(recipe: Making, pieces: Path, folder: Path) -> dict[str, int]:
    """The rows of each split, and where they are from; how many there are of each."""
    rows: dict[str, int] = {}
    for split in SPLITS:
        parts = sorted(pieces.glob(f"*.{split}"))
        if parts:
            rows[split] = _joined(parts, folder / f"{split}.jsonl")
            if recipe.format == "parquet":
                as_parquet(folder / f"{split}.jsonl")
    _joined(sorted(pieces.glob("*.origins")), folder / ORIGINS)
    return rows


def _joined(parts: Sequence[Path], target: Path) -> int:
    """One file of several; how many lines it has."""
    count = 0
    with target.open("wb") as out:
        for part in parts:
            content = part.read_bytes()
            count += content.count(b"\n")
            out.write(content)
    return count


def _described(made: Made, left: Mapping[str, Left], folder: Path, started: datetime) -> None:
    facts = made.as_dict()
    manifest = {
        "tunesmith": version("tunesmith"),
        "made": started.isoformat(timespec="seconds"),
        "recipe": made.recipe.model_dump(exclude_none=True),
        "meaning": made.meaning,
        "sources": facts["files"],
        "steps": facts["steps"],
        "rows": made.rows,
        "left": {split: left[split].as_dict() for split in made.rows},
        **made.more,
    }
    examples = {step.name: step.examples for step in made.steps}
    (folder / "card.md").write_text(card.as_markdown(manifest, examples), encoding="utf-8")
    name = Path(made.recipe.output).name
    (folder / "card.html").write_text(card_page(manifest, examples, name), encoding="utf-8")
    files = {
        path.name: {"sha256": digest(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    (folder / MANIFEST).write_text(manifest_text(manifest | {"files": files}), encoding="utf-8")


def file_facts(one: FileRead) -> dict[str, Any]:
    return {
        "file": one.file,
        "split": one.split,
        "sha256": one.sha256,
        "rows": one.rows,
        "used": one.used,
        "refused": dict(one.refused.most_common()),
        "repaired": dict(one.repaired.most_common()),
    }
