"""From scores to a report, and the report onto disk.

The evaluation calls, in this order: `system` for each system, `compare` for tuned against each other one,
`confusion_of`, `calibration_of`, `class_scores`, `flips_of`, `pick_examples`; puts the parts in a `Report`;
`write_report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError, RunError
from tunesmith.evaluate.report_html import to_html, to_markdown
from tunesmith.evaluate.report_model import (
    Calibration,
    ClassScore,
    Comparison,
    Confusion,
    Flips,
    Measured,
    ReliabilityBin,
    Report,
    Sample,
    System,
    Threshold,
)
from tunesmith.evaluate.stats import (
    DEFAULT,
    Interval,
    Settings,
    Test,
    difference,
    interval,
    perplexity_difference,
    perplexity_interval,
)
from tunesmith.evaluate.tasks import SHOWN
from tunesmith.evaluate.words import verdict
from tunesmith.scoring import PRIMARY, TASKS, Scores, Task, flips, goodness

COMPARED: dict[Task, tuple[str, ...]] = {task: kind.compared for task, kind in TASKS.items()}
"""Metrics on which systems are compared; the first is the primary one."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses of one system on the reference answers. nll: (N,) nats, summed over each row's supervised
    tokens; tokens: (N,) how many those are."""

    nll: NDArray[np.float64]
    tokens: NDArray[np.int64]


def system(
    name: str,
    scores: Scores,
    *,
    note: str = "",
    losses: Losses | None = None,
    settings: Settings = DEFAULT,
) -> System:
    """All metrics of one system, with intervals where they can be had."""
    metrics = {}
    for key, value in scores.metrics.items():
        found = interval(scores, key, settings)
        metrics[key] = Measured(value=value, n=scores.num_rows) if found is None else measured(found)
    if losses is not None:
        metrics["perplexity"] = measured(perplexity_interval(losses.nll, losses.tokens, settings))
    return System(name=name, note=note, metrics=metrics)


def compare(
    name: str,
    base: Scores,
    tuned: Scores,
    *,
    losses: tuple[Losses, Losses] | None = None,
    tuned_name: str = "tuned",
    settings: Settings = DEFAULT,
) -> list[Comparison]:
    """tuned against the system called `name` on the same rows: the metrics of COMPARED, and the perplexity
    where the `losses` of both (base, tuned) are given."""
    if base.task != tuned.task or base.num_rows != tuned.num_rows:
        raise DataError(
            f"{base.num_rows} rows scored as {base.task}, {tuned.num_rows} as {tuned.task}",
            "both systems scored on the same rows and for the same task",
        )
    found = {key: difference(base, tuned, key, settings) for key in COMPARED[base.task]}
    if losses is not None:
        before, after = losses
        found["perplexity"] = perplexity_difference(before.nll, after.nll, before.tokens, settings)
    return [comparison(key, name, tuned_name, *result, settings) for key, result in found.items() if result]


def confusion_of(name: str, scores: Scores) -> Confusion | None:
    """Which classes the system called `name` took for which; None where answers are not labels."""
    if scores.confusion is None:
        return None
    return Confusion(system=name, labels=list(scores.labels), counts=scores.confusion.tolist())


def calibration_of(name: str, scores: Scores) -> Calibration | None:
    """Whether the probabilities of the system called `name` can be believed; None where it gave none."""
    found = scores.calibration
    if found is None:
        return None
    return Calibration(
        system=name,
        ece=found.ece,
        bins=[ReliabilityBin(**asdict(b)) for b in found.bins],
        thresholds=[Threshold(**asdict(t)) for t in found.abstention],
    )


def class_scores(base: Scores, tuned: Scores) -> list[ClassScore]:
    """What `PartOf` names, before and after: F1 of each class or label, the commonest first; accuracy of each
    JSON field; error of each target. Empty where answers have no parts."""
    part = SHOWN[tuned.task].part
    if part is None:
        return []
    if tuned.per_class:
        found = [
            ClassScore(
                name=name,
                support=int(after["support"]),
                base=base.per_class[name]["f1"],
                tuned=after["f1"],
            )
            for name, after in tuned.per_class.items()
            if after["support"] or after["predicted"]
        ]
        return sorted(found, key=lambda c: -c.support)
    prefix = f"{part.metric}."
    return [
        ClassScore(
            name=key.removeprefix(prefix),
            support=int((~np.isnan(rows)).sum()),
            base=base.metrics[key],
            tuned=tuned.metrics[key],
        )
        for key, rows in tuned.per_row.items()
        if key.startswith(prefix)
    ]


def flips_of(base: Scores, tuned: Scores, samples: Sequence[Sample], most: int = 10) -> Flips:
    """Rows that became right and rows that became wrong (nearer and farther, for numbers); at most `most` of
    each are shown, in file order.

    samples: all N test rows, in the order they were scored in.
    """
    _one_each(samples, tuned)
    fixed, broken = flips(base, tuned)
    return Flips(
        fixed=len(fixed),
        broken=len(broken),
        fixed_examples=[samples[i] for i in fixed[:most]],
        broken_examples=[samples[i] for i in broken[:most]],
    )


def pick_examples(
    tuned: Scores, samples: Sequence[Sample], most: int = 5, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """(good, bad): a seeded choice among the rows the tuned model got wholly right, and its worst rows.

    Where answers are graded (text, numbers, several things a row), good rows are those of the best score and
    bad rows are those of lowest score; ties fall by the seed, never by hand.
    """
    _one_each(samples, tuned)
    order = np.random.default_rng(seed).permutation(len(samples))
    grades = goodness(tuned)
    value = grades[order]
    best = np.nanmax(value) if not np.isnan(value).all() else np.nan
    good = order[value == best][:most] if best > 0 else order[:0]
    ranked = order[np.argsort(value, kind="stable")]  # NaN last
    bad = [i for i in ranked if grades[i] < 1 and i not in set(good.tolist())][:most]
    return [samples[i] for i in sorted(good)], [samples[i] for i in bad]


def write_report(report: Report, folder: str | Path) -> Path:
    """Write report.html (self-contained), report.md and metrics.json into `folder`; returns report.html.

    metrics.json comes last and at once: where it is, the run is finished.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page, aside = folder / "report.html", folder / ".metrics.json.tmp"
    (folder / "report.md").write_text(to_markdown(report), encoding="utf-8")
    page.write_text(to_html(report), encoding="utf-8")
    aside.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    aside.rename(folder / "metrics.json")
    return page


def read_report(folder: str | Path) -> Report:
    """The report that `write_report` wrote. Raises RunError where there is none of this version."""
    path = Path(folder) / "metrics.json"
    if not path.is_file():
        raise RunError(f"no report at {path}", "a folder with metrics.json", "run the evaluation first")
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is not a report: {error}", "a metrics.json of this version") from error


def comparison(
    key: str, name: str, tuned_name: str, found: Interval, test: Test, settings: Settings
) -> Comparison:
    tone, words = verdict(key, found, test.p, settings.confidence)
    return Comparison(
        metric=key,
        base=name,
        tuned=tuned_name,
        difference=measured(found),
        p=test.p,
        test=test.name,
        tone=tone,
        words=words,
    )


def measured(found: Interval) -> Measured:
    return Measured(value=found.value, low=found.low, high=found.high, n=found.n, method=found.method)


def _one_each(samples: Sequence[Sample], scores: Scores) -> None:
    if len(samples) != scores.num_rows:
        raise DataError(f"{len(samples)} samples for {scores.num_rows} scored rows", "one for each")


__all__ = [
    "COMPARED",
    "PRIMARY",
    "Losses",
    "Report",
    "Sample",
    "calibration_of",
    "class_scores",
    "compare",
    "confusion_of",
    "flips_of",
    "pick_examples",
    "read_report",
    "system",
    "write_report",
]
