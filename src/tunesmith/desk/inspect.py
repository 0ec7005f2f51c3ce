"""Files of rows -> what a person should know of them before a model sees them. Nothing is changed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tunesmith.config.desk import STEPS, Desk
from tunesmith.data.load import few_collections
from tunesmith.data.shares import Sharing
from tunesmith.desk.facts import Inspecting, Inspection
from tunesmith.desk.finding import Names
from tunesmith.desk.make import steps_of
from tunesmith.desk.meaning import Embed
from tunesmith.desk.passes import Passes
from tunesmith.desk.plans import Once, Plan, by_processes, side_by_side
from tunesmith.desk.reading import Read, read
from tunesmith.desk.scrub import Scrubbing, Veil
from tunesmith.desk.versions import REFUSED
from tunesmith.types import EventSink


def inspect(
    desk: Desk,
    inspecting: Callable[[], Inspecting],
    sink: EventSink,
    *,
    sharing: Sharing | None = None,
    names: Names | None = None,
    embed: Embed | None = None,
) -> Inspection:
    """Looks at every row that `desk.data` names, and tries each step that the recipe names by itself, on the rows as
    they were read. inspecting: loads what looks at them, while they are read. names and embed: as of `make`; where the
    recipe scrubs, rows are shown with the kinds of personal data in their place.

    Raises DataError for files that cannot be read.
    """
    sharing = sharing or (Sharing.by_cores() if names is None else Sharing(1))
    scrubbing = None if desk.scrub is None else Scrubbing.of(desk.scrub, names)
    veil = None if scrubbing is None else Veil(scrubbing.finder, keeps=False)
    with few_collections(), tempfile.TemporaryDirectory(prefix="tunesmith-desk-") as name:
        folder = Path(name)
        told = str if veil is None else veil.over
        loaded = cache(inspecting)
        rows = Once(**vars(read(desk.data, folder / "read", folder / REFUSED, sink, told, sharing, loaded)))
        sink("phase", name="looking", text=f"{len(rows.chunks):,} chunks")
        trial = _Trial(rows, folder, sharing, sink, veil, scrubbing, embed)
        seen, *tried = side_by_side(
            [
                loaded().plan(rows, folder / REFUSED),
                *(trial.of(desk, name) for name in desk.steps()),
            ],
            by_processes(len(rows.chunks), sharing),
        )
        facts = loaded().whole(seen, veil)
        return Inspection(facts | {"steps": [step for steps in tried for step in steps]})


@dataclass(frozen=True)
class _Trial:
    """What a step would do to the rows as they were read."""

    rows: Read
    folder: Path
    sharing: Sharing
    sink: EventSink
    veil: Veil | None
    scrubbing: Scrubbing | None
    embed: Embed | None

    def of(self, desk: Desk, name: str) -> Plan[list[dict[str, Any]]]:
        """Of the step of this name, and no other."""
        alone = desk.model_copy(update={other: None for other in STEPS if other != name})
        work = self.folder / f"try-{name}"
        work.mkdir()
        passes = Passes(self.rows, work, self.sharing, self.sink, self.veil, kept=False)
        scrubbing = self.scrubbing if name == "scrub" else None
        yield from passes.plan(steps_of(alone, self.rows, work, scrubbing, self.embed))
        return [step.with_example() for step in passes.counts]
