"""What a person decided about rows, and the step that carries it out.

A decision is of one row, known by the key of its content (all columns) and its place. A row whose content is another
by now is not the one that was looked at: its decision is stale, and is refused, or counted and left out.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.desk import Review
from tunesmith.data.strict_json import parse_object
from tunesmith.desk.held import content_key
from tunesmith.desk.rows import Row, with_texts
from tunesmith.desk.steps import Outcome, Seen
from tunesmith.errors import DataError, RowError
from tunesmith.storage import write_whole

Verdict = Literal["keep", "drop", "relabel", "skip"]
DECISIONS = "decisions.jsonl"


@dataclass(frozen=True)
class Decision:
    """key: of the content of the row. given: its label as it was; label: the one that it gets. skip: undecided."""

    key: str
    place: str
    verdict: Verdict
    given: str | None = None
    label: str | None = None


def read_decisions(path: Path) -> list[Decision]:
    """Raises DataError for a file that is not there, or a line that is no decision."""
    if not path.is_file():
        raise DataError(f"{path}: not there", "a file that data review wrote", "correct review.decisions")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            values = parse_object(line)
        except RowError as error:
            raise DataError(f"{path}:{number}: {error.got}", "a decision of data review") from None
        found.append(_decision(values, f"{path}:{number}"))
    return found


def _decision(values: dict[str, Any], where: str) -> Decision:
    texts = {name: values.get(name) for name in ("key", "place", "verdict")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise DataError(f"{where}: field '{name}': {value!r}", "text", "write it as data review does")
    if values["verdict"] not in get_args(Verdict):
        raise DataError(
            f"{where}: field 'verdict': '{values['verdict']}'", f"one of {', '.join(get_args(Verdict))}"
        )
    if values["verdict"] == "relabel" and not (isinstance(values.get("label"), str) and values["label"]):
        raise DataError(f"{where}: field 'label': {values.get('label')!r}", "the label that the row gets")
    return Decision(**texts, given=values.get("given"), label=values.get("label"))  # type: ignore[arg-type]


def write_decisions(path: Path, decisions: Sequence[Decision]) -> None:
    write_whole(path, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in decisions))


@dataclass(frozen=True)
class Reviewed:
    """Looks for the rows that were decided about."""

    decisions: Sequence[Decision]
    config: Review
    name: str = "review"

    @classmethod
    def of(cls, config: Review) -> Reviewed:
        return cls(read_decisions(Path(config.decisions)), config)

    def look(self, rows: Sequence[Row]) -> NDArray[Any]:
        """(n, 16) the key of each row's content."""
        keys = b"".join(bytes.fromhex(content_key(row.values)) for row in rows)
        return np.frombuffer(keys, np.uint8).reshape(len(rows), 16)

    def decide(self, seen: Seen) -> Applying:
        rows: dict[str, dict[str, int]] = defaultdict(dict)
        wanted = {decision.key for decision in self.decisions}
        for number, look in zip(seen.numbers.tolist(), seen.looks, strict=True):
            key = look.tobytes().hex()
            if key in wanted:
                rows[key][seen.place(number)] = number
        table: dict[int, Decision] = {}
        stale: list[Decision] = []
        # Rows may be equal in all columns: each decision first takes the row at its own place.
        for decision in sorted(self.decisions, key=lambda one: one.place not in rows[one.key]):
            places = rows[decision.key]
            if not places:
                stale.append(decision)
                continue
            place = decision.place if decision.place in places else min(places, key=places.__getitem__)
            table[places.pop(place)] = decision
        if stale and self.config.stale == "refuse":
            raise DataError(
                f"{self.config.decisions}: {len(stale):,} of {len(self.decisions):,} decisions are of rows that are "
                f"not there, such as {stale[0].place}",
                "decisions on rows as they are now",
                "review the rows again, or write review.stale=skip to leave these decisions out",
            )
        said = f"{self.name} ({len(stale):,} stale decisions left out)" if stale else self.name
        return Applying(said, table)


@dataclass(frozen=True)
class Applying:
    name: str
    table: Mapping[int, Decision]

    def apply(self, row: Row) -> Outcome | None:
        decision = self.table.get(row.number)
        if decision is None or decision.verdict in ("keep", "skip"):
            return None
        if decision.verdict == "drop":
            return Outcome(None, ("reviewed_dropped",), "a person dropped it")
        labels = [text for text in row.texts if text.part == "label"]
        if len(labels) != 1:
            raise DataError(
                f"{row.ref}: {len(labels)} labels, and the decision is to relabel it",
                "a row with one label",
                "drop or keep such rows",
            )
        assert decision.label is not None
        values = with_texts(row.values, {labels[0].path: decision.label})
        return Outcome(values, ("reviewed_relabelled",), f"'{labels[0].text}' is '{decision.label}'")
