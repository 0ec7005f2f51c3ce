"""The page of quality: how scores lie, which labels are doubtful, what is taken for what, and the worst rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from tunesmith.desk.conflicts import answer_of
from tunesmith.desk.dedup import said
from tunesmith.desk.pages import Bars, linear, page_environment
from tunesmith.desk.screen import many, percent
from tunesmith.desk.steps import excerpt

if TYPE_CHECKING:
    from tunesmith.desk.quality import QualityReport, Record

BINS = 24
MIXED = 10
"""Labels that the table of mistaken ones has."""
WORST = 50
SCORES = {
    "confidence": "rows by confidence in their own label",
    "loss": "rows by loss, in nats",
    "difficulty": "rows by difficulty",
}


def quality_page(report: QualityReport) -> str:
    """One file, no script, nothing loaded from anywhere."""
    records, facts = report.records, report.as_dict()
    doubtful = sum(bool(record["reasons"]) for record in records)
    return (
        page_environment()
        .get_template("quality.html.j2")
        .render(
            facts=facts,
            title=", ".join(Path(one["file"]).name for one in report.files),
            version=version("tunesmith"),
            doubtful=doubtful,
            judged=len(records),
            percent=percent,
            many=many,
            scores=histograms(records),
            reasons=by_reason(facts["reasons"]) + label_errors(records),
            mixed=mixed_up(records),
            worst=[_shown(report, record) for record in records[:WORST]],
        )
    )


def histograms(records: Sequence[Record]) -> list[tuple[str, Markup]]:
    """(caption, svg) of each score that the rows have and that differs between them."""
    out = []
    for name, caption in SCORES.items():
        values = np.array([one[name] for one in records if one.get(name) is not None], float)
        if len(values) and values.min() < values.max():
            counts, edges = np.histogram(values, BINS)
            out.append((caption, linear(f"score-{name}", edges.tolist(), counts.tolist(), name, caption)))
    return out


def by_reason(reasons: Mapping[str, int]) -> list[Bars]:
    return [Bars.of("doubtful rows, by reason", reasons)] if reasons else []


def label_errors(records: Sequence[Record]) -> list[Bars]:
    """Of each label its rows that confident learning takes for wrong, the most first."""
    found = Counter(one["label"] for one in records if "label_error" in one["reasons"])
    return [Bars.of("labels that are likely wrong, by label", dict(found.most_common()))] if found else []


def mixed_up(records: Sequence[Record]) -> dict[str, Any] | None:
    """labels: those that are most often taken for others, or others for them. rows: of each, as a given label, how many
    rows the probe takes for each; most: the largest number off the diagonal. None where nothing is mixed up."""
    pairs = Counter((one["label"], one["suggested"]) for one in records if one.get("suggested") is not None)
    weight: Counter[str] = Counter()
    for (given, suggested), count in pairs.items():
        if given != suggested:
            weight.update({given: count, suggested: count})
    if not weight:
        return None
    labels = sorted(sorted(weight), key=lambda label: -weight[label])[:MIXED]
    rows = {given: [pairs[given, other] for other in labels] for given in labels}
    most = max(pairs[a, b] for a in labels for b in labels if a != b)
    return {"labels": labels, "rows": rows, "most": max(most, 1), "more": len(weight) - len(labels)}


def _shown(report: QualityReport, record: Record) -> dict[str, Any]:
    row = report.rows[record["row"]]
    return {
        "place": record["place"],
        "reasons": record["reasons"],
        "text": excerpt(said(row, "prompt") or said(row, "row")),
        "answer": record.get("label") or excerpt(answer_of(row)),
        "suggested": record.get("suggested"),
        "confidence": record.get("confidence"),
        "loss": record.get("loss"),
    }
