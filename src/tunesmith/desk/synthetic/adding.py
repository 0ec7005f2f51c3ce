"""Rows that were made, checked and added to a data set: a new version of it.

What makers wrote is read like a file of each maker: rows that are none are refused with their reason, the others go
through the checks, each of which is a step of the desk. So every row that was made is in the version, or in its ledger
with why it is not.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tunesmith.config.desk import DeskData
from tunesmith.config.synth import Synthetic
from tunesmith.data.shares import Sharing
from tunesmith.desk.held import spread
from tunesmith.desk.make import WORK, Made, Work, made_by
from tunesmith.desk.reading import CHUNK_ROWS, Chunk, FileRead, Read, packed, read
from tunesmith.desk.rows import Row
from tunesmith.desk.synthetic import questions
from tunesmith.desk.synthetic.answers import ANSWERS, Asked, Writer
from tunesmith.desk.synthetic.checks import Checking, Features, room_for
from tunesmith.desk.synthetic.made import MadeRows
from tunesmith.desk.synthetic.questions import Ask, Told
from tunesmith.desk.synthetic.seeds import Candidate, Refused, Seeds, is_synthetic, seeds_of
from tunesmith.desk.synthetic.spool import blocks
from tunesmith.desk.versions import REFUSED
from tunesmith.errors import DataError
from tunesmith.types import EventSink, RowRef


@dataclass(frozen=True)
class Maker:
    """asks: a model. wanted: rows that the recipe asks for; None: one or more of each seed. make: seeds, what is told
    of them, and who is asked (None: nobody) -> rows, and what is none."""

    name: str
    asks: bool
    wanted: int | None
    make: Callable[[Seeds, Told, Ask | None], questions.Made]


def added(
    recipe: Synthetic,
    makers: Sequence[Maker],
    writer: Writer | None,
    features: Features,
    sink: EventSink,
    *,
    dry_run: bool = False,
) -> Made:
    """A version with the rows as they are read and those that makers made and checks let through. Replies of the writer
    are kept in the data set's folder; a dry run asks nothing.

    Raises DataError for rows that are no seeds, ModelError where the writer leaves questions open.
    """
    asked = None if writer is None else Asked(writer, Path(recipe.output) / ANSWERS, sink, dry_run)
    adding = _Adding(recipe, makers, asked, features, sink)
    return made_by(recipe, adding.work, sink, Sharing.by_cores(), dry_run=dry_run)


@dataclass
class _Adding:
    recipe: Synthetic
    makers: Sequence[Maker]
    asked: Asked | None
    features: Features
    sink: EventSink

    def work(self, folder: Path) -> Work:
        found = self._read(self.recipe.data, folder / WORK / "read", folder / REFUSED)
        base = _Base(found, list(found.chunks), self._against(folder / WORK), self.recipe.origin)
        num_held = base.num_held()
        if not num_held:
            self.sink("warning", text=UNCHECKED)
        seeds = seeds_of(base.train(), self.recipe.origin, folder / WORK / "seeds")
        told = Told(f": {self.recipe.about}" if self.recipe.about else "", self.recipe.meanings)
        rows = MadeRows(folder / WORK / "made", sum(one.used for one in found.files))
        with (folder / REFUSED).open("a", encoding="utf-8", errors="replace") as refused:
            made = [self._made(maker, seeds, told, refused, found, rows) for maker in self.makers]
        checking = Checking(
            config=self.recipe.checks,
            rows=rows,
            seeds=seeds,
            real=base.real,
            held=base.held,
            any_held=num_held > 0,
            room=room_for(self.recipe.checks.max_share, seeds.real, seeds.synthetic),
            features=self.features,
            told=told,
            ask=None if self.asked is None else self._ask("critique"),
            seed=self.recipe.seed,
        )
        self.sink("phase", name="checks", text=f"{len(rows):,} rows")
        steps = checking.steps()
        kept = len(rows) - sum(len(step.rows) for step in steps)
        before = seeds.real + seeds.synthetic
        facts = {
            "seeds": len(seeds.rows),
            "no_seeds": dict(seeds.others.most_common()),
            "made": {one.file.file: self._counts(one) for one in made},
            "kept": kept,
            "before": seeds.synthetic,
            "share": round((kept + seeds.synthetic) / max(kept + before, 1), 4),
            "evaluation_rows": num_held,
            **({} if self.asked is None else self._counts_of(self.asked)),
            **checking.notes,
        }
        return Work(found, steps, more={"synthetic": facts, "notes": said_of(facts, self.recipe)})

    def _read(self, data: DeskData, folder: Path, refused: Path) -> Read:
        return read(spread(data), folder, refused, self.sink)

    def _against(self, folder: Path) -> Read | None:
        """Evaluation rows that are no part of the data set."""
        if not self.recipe.against:
            return None
        files = {"train": self.recipe.against, "validation": [], "test": []}
        return self._read(
            self.recipe.data.model_copy(update=files), folder / "against", folder / "against-refused"
        )

    def _made(
        self, maker: Maker, seeds: Seeds, told: Told, refused: TextIO, found: Read, rows: MadeRows
    ) -> _OfMaker:
        """What a maker makes, as a file of the data set: its rows are added to what was read, and to `rows`."""
        self.sink("phase", name=maker.name, text=f"{len(seeds.rows):,} seeds")
        file = FileRead(maker.name, "train", "")
        digest = hashlib.sha256()
        ask = None if self.asked is None else self._ask(maker.name)
        model = self.asked.writer.name if self.asked is not None and maker.asks else None
        shape = None

        def candidates() -> Iterator[tuple[Candidate, int]]:
            for one in maker.make(seeds, told, ask):
                file.rows += 1
                if isinstance(one, Candidate):
                    yield one, file.rows
                else:
                    file.refused[one.reason] += 1
                    refused.write(_listed(maker.name, file.rows, one))

        for block in blocks(candidates(), CHUNK_ROWS):
            new: list[tuple[Candidate, Row]] = []
            for one, line in block:
                values = one.values(self.recipe.origin, maker.name, model)
                digest.update(json.dumps(values, sort_keys=True).encode())
                number = rows.number(len(rows) + len(new))
                new.append((one, Row(number, "train", RowRef(maker.name, line), values, one.like.row.shape)))
            shape = shape or block[0][0].like.row.shape
            rows.extend(new)
            path = found.chunks[0].path.with_name(f"{len(found.chunks):06d}.jsonl")
            path.write_text("".join(packed(row, len(found.files)) for _, row in new), encoding="utf-8")
            found.chunks.append(Chunk(path))
        file.sha256 = digest.hexdigest()
        found.files.append(file)
        found.shapes.append(shape or found.shapes[0])
        return _OfMaker(maker, file)

    def _ask(self, what: str) -> Ask:
        assert self.asked is not None
        asked = self.asked
        return lambda texts: asked.ask(what, texts)

    def _counts(self, one: _OfMaker) -> dict[str, Any]:
        return {
            "wanted": one.maker.wanted,
            "rows": one.file.used,
            "refused": dict(one.file.refused.most_common()),
        }

    def _counts_of(self, asked: Asked) -> dict[str, Any]:
        return {
            "model": asked.writer.name,
            "questions": {"asked": asked.asked, "known": asked.known, "waiting": asked.waiting},
        }


UNCHECKED = "no evaluation rows are named (data.validation, data.test, against): leakage is not looked for"


@dataclass(frozen=True)
class _OfMaker:
    maker: Maker
    file: FileRead


@dataclass(frozen=True)
class _Base:
    """Rows as they were read, before others are added to them: read from disk again as often as they are asked for.
    others: evaluation rows that are no part of the data set."""

    read: Read
    chunks: Sequence[Chunk]
    others: Read | None
    origin: str

    def train(self) -> Iterator[Row]:
        return (row for row in self._rows() if row.split == "train")

    def real(self) -> Iterator[Row]:
        """Training rows that nobody made up."""
        return (row for row in self.train() if not is_synthetic(row, self.origin))

    def held(self) -> Iterator[Row]:
        """Evaluation rows."""
        yield from (row for row in self._rows() if row.split != "train")
        if self.others is not None:
            yield from (row for chunk in self.others.chunks for row in self.others.rows(chunk))

    def num_held(self) -> int:
        """Raises DataError for an evaluation row that is synthetic."""
        count = 0
        for row in self.held():
            count += 1
            if is_synthetic(row, self.origin):
                raise DataError(
                    f"{row.ref}: a synthetic row is among the evaluation rows ({row.split})",
                    "evaluation rows that somebody wrote",
                    "take it out: split rows before more are made",
                )
        return count

    def _rows(self) -> Iterator[Row]:
        return (row for chunk in self.chunks for row in self.read.rows(chunk))


def named(names: Sequence[str]) -> list[str]:
    """Names that tell makers of one kind apart."""
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return out


def said_of(facts: dict[str, Any], recipe: Synthetic) -> list[str]:
    """For the screen and the card."""
    out = [f"{facts['seeds']:,} seeds" + _reasons(facts["no_seeds"], "; no seeds: ")]
    for name, one in facts["made"].items():
        wanted = f" of {one['wanted']:,} asked for" if one["wanted"] is not None else ""
        out.append(f"{name}: {one['rows']:,} rows{wanted}" + _reasons(one["refused"], "; refused: "))
    if "questions" in facts:
        counts = facts["questions"]
        said = f"{counts['asked']:,} asked, {counts['known']:,} known before"
        waiting = f", {counts['waiting']:,} to be asked (at least)" if counts["waiting"] else ""
        out.append(f"questions to {facts['model']}: {said}{waiting}")
    if "probe_accuracy" in facts:
        few = facts["probe_accuracy"] < recipe.checks.probe_least
        out.append(
            f"the probe of labels knows {facts['probe_accuracy']:.0%} of the seeds that it was not fitted on"
            + (": too few to judge labels by, so none was" if few else "")
        )
    if "seeds_compared" in facts:
        out.append(
            f"relevance is told by {facts['seeds_compared']:,} of the seeds, drawn by the seed of the recipe"
        )
    if not facts["evaluation_rows"]:
        out.append(UNCHECKED)
    out.append(
        f"{facts['kept']:,} synthetic rows kept, marked in column '{recipe.origin}': "
        f"{facts['share']:.1%} of the training rows are synthetic"
    )
    return out


def _reasons(counts: dict[str, int], before: str) -> str:
    return before + ", ".join(f"{n:,} x {reason}" for reason, n in counts.items()) if counts else ""


def _listed(maker: str, line: int, one: Refused) -> str:
    entry = {"file": maker, "line": line, "reason": one.reason, "message": one.message, "row": one.raw}
    return json.dumps(entry, ensure_ascii=False) + "\n"
