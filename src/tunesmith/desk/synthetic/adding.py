"""Rows that were made, checked and added to a data set: a new version of it.

What makers wrote is read like a file of each maker: rows that are none are refused with their reason, the others go
through the checks, each of which is a step of the desk. So every row that was made is in the version, or in its ledger
with why it is not.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tunesmith.config.synth import Synthetic
from tunesmith.data.shares import Sharing
from tunesmith.desk.held import held, version_of, whole
from tunesmith.desk.make import REFUSED, WORK, Made, Work, made_by
from tunesmith.desk.reading import CHUNK_ROWS, Chunk, FileRead, Read, packed, read
from tunesmith.desk.rows import Row
from tunesmith.desk.synthetic import questions
from tunesmith.desk.synthetic.answers import ANSWERS, Asked, Writer
from tunesmith.desk.synthetic.checks import Checking, Features, room_for
from tunesmith.desk.synthetic.questions import Ask, Told
from tunesmith.desk.synthetic.seeds import Candidate, Refused, Seeds, is_synthetic, seeds_of
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
        data = self.recipe.data
        version = version_of(data)
        if version is not None:
            data = data.model_copy(update=whole(version, data.train[0]))
        found = read(data, folder / WORK / "read", folder / REFUSED, self.sink)
        rows = [row for chunk in found.chunks for row in found.rows(chunk)]
        train = [row for row in rows if row.split == "train"]
        seeds = seeds_of(train, self.recipe.origin)
        real = [row for row in train if not is_synthetic(row, self.recipe.origin)]
        told = Told(f": {self.recipe.about}" if self.recipe.about else "", self.recipe.meanings)
        with (folder / REFUSED).open("a", encoding="utf-8", errors="replace") as refused:
            made = [self._made(maker, seeds, told, refused) for maker in self.makers]
        candidates = [one for of_maker in made for one in of_maker.candidates]
        new = self._rows(found, made)
        held_rows = self._held(rows)
        checking = Checking(
            config=self.recipe.checks,
            candidates=candidates,
            rows=new,
            seeds=seeds,
            real=real,
            held=held_rows,
            room=room_for(self.recipe.checks.max_share, len(real), seeds.synthetic),
            features=self.features,
            told=told,
            ask=None if self.asked is None else self._ask("critique"),
            seed=self.recipe.seed,
        )
        self.sink("phase", name="checks", text=f"{len(new):,} rows")
        steps = checking.steps()
        kept = len(new) - sum(len(step.rows) for step in steps)
        facts = {
            "seeds": len(seeds.rows),
            "no_seeds": dict(seeds.others.most_common()),
            "made": {one.file.file: self._counts(one) for one in made},
            "kept": kept,
            "before": seeds.synthetic,
            "share": round((kept + seeds.synthetic) / max(len(train) + kept, 1), 4),
            "evaluation_rows": len(held_rows),
            **({} if self.asked is None else self._counts_of(self.asked)),
            **checking.notes,
        }
        return Work(found, steps, more={"synthetic": facts, "notes": said_of(facts, self.recipe)})

    def _made(self, maker: Maker, seeds: Seeds, told: Told, refused: TextIO) -> _OfMaker:
        self.sink("phase", name=maker.name, text=f"{len(seeds.rows):,} seeds")
        file = FileRead(maker.name, "train", "")
        candidates, lines = [], []
        ask = None if self.asked is None else self._ask(maker.name)
        for line, one in enumerate(maker.make(seeds, told, ask), 1):
            file.rows += 1
            if isinstance(one, Candidate):
                candidates.append(one)
                lines.append(line)
            else:
                file.refused[one.reason] += 1
                refused.write(_listed(maker.name, line, one))
        return _OfMaker(maker, file, candidates, lines)

    def _ask(self, what: str) -> Ask:
        assert self.asked is not None
        asked = self.asked
        return lambda texts: asked.ask(what, texts)

    def _rows(self, found: Read, made: Sequence[_OfMaker]) -> list[Row]:
        """The candidates as rows of the data set, which are added to what was read."""
        out: list[Row] = []
        first = sum(one.used for one in found.files)
        writer = None if self.asked is None else self.asked.writer.name
        for of_maker in made:
            model = writer if of_maker.maker.asks else None
            digest = hashlib.sha256()
            lines: list[str] = []
            for one, line in zip(of_maker.candidates, of_maker.lines, strict=True):
                values = one.values(self.recipe.origin, of_maker.maker.name, model)
                ref = RowRef(of_maker.file.file, line)
                row = Row(first + len(out), "train", ref, values, one.like.row.shape)
                digest.update(json.dumps(values, sort_keys=True).encode())
                lines.append(packed(row, len(found.files)))
                out.append(row)
            of_maker.file.sha256 = digest.hexdigest()
            found.files.append(of_maker.file)
            found.shapes.append(of_maker.candidates[0].like.row.shape if lines else found.shapes[0])
            for at in range(0, len(lines), CHUNK_ROWS):
                path = found.chunks[0].path.with_name(f"{len(found.chunks):06d}.jsonl")
                path.write_text("".join(lines[at : at + CHUNK_ROWS]), encoding="utf-8")
                found.chunks.append(Chunk(path))
        return out

    def _held(self, rows: Sequence[Row]) -> list[Row]:
        """Evaluation rows. Raises DataError for one that is synthetic."""
        out = [row for row in rows if row.split != "train"]
        if self.recipe.against:
            files = {"train": self.recipe.against, "validation": [], "test": []}
            out += held(self.recipe.data.model_copy(update=files), self.sink).rows
        for row in out:
            if is_synthetic(row, self.recipe.origin):
                raise DataError(
                    f"{row.ref}: a synthetic row is among the evaluation rows ({row.split})",
                    "evaluation rows that somebody wrote",
                    "take it out: split rows before more are made",
                )
        if not out:
            self.sink("warning", text=UNCHECKED)
        return out

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
    """lines: of each candidate its place among all that the maker gave."""

    maker: Maker
    file: FileRead
    candidates: list[Candidate]
    lines: list[int]


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
