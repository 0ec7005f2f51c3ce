"""The table of quality: a line for each row, the worst first; and its summary, for people and programs.

    quality/0001/         beside versions/0001 of a data set (or wherever `--output` says)
      quality.jsonl       of each row its number, place, key of its content, scores and reasons
      summary.json        how it was made, from which files, and how many rows each reason has

| reason | says |
|---|---|
| `label_error` | confident learning takes the label for wrong |
| `misread` | the probe finds another label likelier, though not surely |
| `conflict`, `near_conflict` | a row with the same prompt, or nearly, has another answer |
| `rare_class` | its class has no second row that is not like it, so that nothing judges its label |
| `high_loss` | the model finds the answer far less likely than others (Tukey's outer fence) |
| `unscored` | the model cannot be shown the row |
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.desk.conflicts import answer_of
from tunesmith.desk.dedup import said
from tunesmith.desk.rows import Row
from tunesmith.desk.steps import excerpt
from tunesmith.errors import DataError

TABLE, SUMMARY, QUALITY = "quality.jsonl", "summary.json", "quality"
SHOWN = 8
Record = dict[str, Any]


@dataclass(frozen=True)
class QualityReport:
    """records: of each row, the worst first. rows: by number. folder: where it was written; None: nowhere."""

    files: Sequence[dict[str, Any]]
    meaning: str
    data: Mapping[str, Any]
    how: Mapping[str, Any]
    counts: Mapping[str, Any]
    records: Sequence[Record]
    rows: Mapping[int, Row]
    folder: str | None

    @property
    def reasons(self) -> Counter[str]:
        return Counter(reason for record in self.records for reason in record["reasons"])

    def as_dict(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "data": dict(self.data),
            "files": list(self.files),
            "meaning": self.meaning,
            "how": dict(self.how),
            **self.counts,
            "scored": len(self.records),
            "reasons": dict(self.reasons.most_common()),
            "mistaken_for": self._mistaken(),
            "worst": list(self.records[:SHOWN]),
        }

    def as_text(self) -> str:
        how = self.how
        unusable = "".join(f"; {count:,} x {reason}" for reason, count in self.counts["unusable"].items())
        lines = [self.meaning, f"{self.counts['rows']:,} rows read, {len(self.records):,} scored{unusable}"]
        if how["by"] == "probe":
            lines.append(
                f"a probe of {how['features']} over {how['classes']} classes is right on {how['accuracy']:.1%} of the "
                f"rows that it was not fitted on ({how['folds']} folds, {how['repeats']} times)"
            )
        else:
            lines.append(f"mean loss {how['mean_loss']:.3f} nats a token under {how['model']}")
        lines.append("")
        lines += [f"{count:>9,}  {reason}" for reason, count in self.reasons.most_common()]
        pairs = self._mistaken()[:5]
        if pairs:
            lines += ["", "labels that are most often doubtful:"]
            lines += [f"{one['rows']:>9,}  {one['label']} -> {one['suggested']}" for one in pairs]
        lines += ["", "the worst rows:"]
        for record in self.records[:SHOWN]:
            lines += shown(record, self.rows[record["row"]])
        lines += [
            "",
            f"written: {self.folder}"
            if self.folder
            else "nothing was written: --output FOLDER keeps the table",
        ]
        return "\n".join(lines)

    def as_html(self) -> str:
        from tunesmith.desk.quality_page import quality_page

        return quality_page(self)

    def _mistaken(self) -> list[dict[str, Any]]:
        """Pairs of given and suggested labels among the likely errors, the commonest first."""
        pairs = Counter(
            (record["label"], record["suggested"])
            for record in self.records
            if "label_error" in record["reasons"]
        )
        return [{"label": a, "suggested": b, "rows": count} for (a, b), count in pairs.most_common()]


def shown(record: Record, row: Row) -> list[str]:
    """A row and what is doubtful about it, in three lines."""
    reasons = ", ".join(record["reasons"]) or "nothing in particular"
    lines = [f"{record['place']}: {reasons}", f"    {excerpt(said(row, 'prompt'))}"]
    if "confidence" in record:
        says = f"'{record['suggested']}'" if record["suggested"] != record["label"] else "the same"
        lines.append(f"    label '{record['label']}' at {record['confidence']:.3f}; the probe says {says}")
    else:
        loss = f" ({record['loss']:.2f} nats a token)" if record.get("loss") is not None else ""
        lines.append(f"    {excerpt(answer_of(row))}{loss}")
    return lines


def table_of(folder: Path) -> tuple[list[Record], dict[str, Any]]:
    """The records and the summary that lie in a folder. Raises DataError where there are none."""
    table, summary = folder / TABLE, folder / SUMMARY
    for path in (table, summary):
        if not path.is_file():
            raise DataError(
                f"{path}: not there", "a folder that data quality wrote", "tunesmith data quality"
            )
    with table.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines], json.loads(summary.read_text(encoding="utf-8"))
