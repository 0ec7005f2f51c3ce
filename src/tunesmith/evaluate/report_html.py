"""A report as a page and as Markdown: the same facts, laid out by the templates beside this file.

The page is HTML and CSS alone. Every text is escaped by Jinja2's autoescape; the only markup let through
is the SVG drawn by `plots`, whose texts matplotlib escapes.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tunesmith.evaluate import plots
from tunesmith.evaluate.baselines import TITLES
from tunesmith.evaluate.report_model import Comparison, Confusion, Measured, Report, System
from tunesmith.evaluate.tasks import SHOWN
from tunesmith.evaluate.words import Tone, amount, p_words
from tunesmith.scoring import digits, metric, show

MATRIX_LABELS = 30
"""A confusion matrix with more labels than this is shown as its commonest confusions only."""

ABSENT = {
    "systems": "Nothing was scored: there were no test rows, so there is no proof.",
    "confusions": "No confusion matrix: answers are not one label each.",
    "calibrations": "No reliability plot: no system gave probabilities.",
    "classes": "No table by class or field: answers have no such parts.",
    "flips": "No comparison row by row: base and tuned model were not both scored on test rows.",
    "examples": "No examples: no test rows were answered.",
    "suspects": "Training rows were not searched for errors.",
    "fit": "There are no validation rows, so overfitting was not measured.",
    "forgetting": "Forgetting was not measured.",
    "seeds": "One run only: how much another seed would change is not known.",
}
"""Why a part is missing, where the report itself gives no reason."""


@dataclass(frozen=True, slots=True)
class Headline:
    """What the report says first."""

    tone: Tone
    title: str
    sentences: list[str]


@dataclass(frozen=True, slots=True)
class Bar:
    """One system on the primary metric, drawn on an axis from `ends[0]` to `ends[1]`."""

    system: System
    measured: Measured
    text: str
    interval: str
    comparison: Comparison | None
    ends: tuple[float, float]

    def at(self, value: float) -> float:
        """Where on the axis a value lies, in per cent."""
        low, high = self.ends
        return 100 * min(max((value - low) / (high - low), 0.0), 1.0)


def to_html(report: Report) -> str:
    """The page: one file, no script, nothing loaded from anywhere."""
    figures = [(caption, Markup(svg)) for caption, svg in plots.figures(report)]
    reliability = {
        c.system: Markup(plots.reliability(f"reliability-{i}", c.bins))
        for i, c in enumerate(report.calibrations)
    }
    page = environment(True).get_template("report.html.j2")
    profile = report.cost.profile
    parts = "" if profile is None else Markup(plots.shares("profile", profile.parts))
    lengths = Markup(plots.preferred_by_length("lengths", report.judgements))
    return page.render(
        view(report), figures=figures, reliability=reliability, profile_figure=parts, lengths=lengths
    )


def to_markdown(report: Report) -> str:
    """The same facts in Markdown."""
    return environment(False).get_template("report.md.j2").render(view(report))


def headline(report: Report) -> Headline:
    """The claim on the primary metric against the base model, then against the strongest other system."""
    found = _against(report, "base")
    if found is None:
        why = report.absent.get("systems", ABSENT["systems"])
        return Headline("none", "Not proven", [why])
    name = report.primary
    values = {s.name: s.metrics[name].value for s in report.systems if name in s.metrics}
    title = metric(name).title
    moved = f"{title} {show(name, values['base'])} → {show(name, values['tuned'])}"
    heads = {
        "better": f"Better than the base model: {moved}",
        "worse": f"Worse than the base model: {moved}",
        "none": f"No difference from the base model can be claimed: {moved}",
    }
    sentences = [f"The difference on {found.difference.n} test rows is {_facts(found)}."]
    others = [c for c in report.comparisons if c.metric == name and c.base != "base" and c.base in values]
    if others:
        sign = 1 if metric(name).higher_is_better else -1
        sentences.append(_strongest(max(others, key=lambda c: sign * values[c.base]), values, name))
    if report.flips is not None:
        f = report.flips
        better, worse = SHOWN[report.task].turned
        sentences.append(f"{f.fixed} rows {better}, {f.broken} {worse}.")
    if report.forgetting is not None:
        sentences.append(report.forgetting.words)
    return Headline(found.tone, heads[found.tone], sentences)


def confused_pairs(table: Confusion, most: int = 10) -> list[tuple[str, str, int, int]]:
    """(reference, answer, rows, rows of that reference), the commonest mistakes first."""
    columns = [*table.labels, "no valid label"]
    found = [
        (table.labels[i], columns[j], count, sum(row))
        for i, row in enumerate(table.counts)
        for j, count in enumerate(row)
        if count and i != j
    ]
    return sorted(found, key=lambda pair: -pair[2])[:most]


def _strongest(other: Comparison, values: dict[str, float], name: str) -> str:
    what = f"{system_title(other.base)} ({show(name, values[other.base])})"
    if other.tone == "better":
        return f"It also beats the strongest of the others, {what}: {_facts(other)}."
    if other.tone == "worse":
        return f"But {what} does better: the tuned model is at {_facts(other)}. Consider using that instead."
    return f"But no difference from {what} can be claimed: {_facts(other)}. Consider whether that is enough."


def _facts(comparison: Comparison) -> str:
    """The verdict without its first words, which say better, worse or neither."""
    return comparison.words.split(": ", 1)[1]


def system_title(name: str) -> str:
    """The name of a system as the report shows it."""
    return TITLES.get(name, name)


def _against(report: Report, base: str) -> Comparison | None:
    found = (c for c in report.comparisons if c.metric == report.primary and c.base == base)
    return next(found, None)


def _ends(report: Report) -> tuple[float, float]:
    """The axis of the primary metric: its range, as far as that is finite, else as far as values and
    intervals go."""
    low, high = metric(report.primary).range
    found = [s.metrics[report.primary] for s in report.systems if report.primary in s.metrics]
    seen = [v for m in found for v in (m.low, m.value, m.high) if v is not None and math.isfinite(v)]
    low = low if math.isfinite(low) else min(seen, default=0.0)
    high = high if math.isfinite(high) else max(seen, default=1.0)
    return (low, high) if low < high else (low, low + 1)


def _scale(report: Report) -> list[str]:
    """What stands under the axis: at its start, middle and end."""
    if metric(report.primary).is_share:
        return ["0", "50 %", "100 %"]
    low, high = _ends(report)
    return [digits(v) for v in (low, (low + high) / 2, high)]


def _bars(report: Report) -> list[Bar]:
    ends = _ends(report)
    out = []
    for system in report.systems:
        measured = system.metrics.get(report.primary)
        if measured is not None:
            out.append(
                Bar(
                    system,
                    measured,
                    show(report.primary, measured.value),
                    interval_text(report.primary, measured),
                    _against(report, system.name),
                    ends,
                )
            )
    return out


def interval_text(name: str, measured: Measured) -> str:
    """'88.1 to 92.9' in the unit of the metric; empty without an interval."""
    if measured.low is None or measured.high is None:
        return ""
    low, high = (show(name, v).removesuffix(" %") for v in (measured.low, measured.high))
    return f"{low} to {high}"


def _metric_rows(report: Report) -> list[tuple[str, list[Measured | None]]]:
    """Every metric that some system has, primary first; those of parts where they have no table of their own."""
    names = dict.fromkeys(
        [report.primary] * bool(report.systems)
        + [n for s in report.systems for n in s.metrics if "." not in n or not report.classes]
    )
    return [(n, [s.metrics.get(n) for s in report.systems]) for n in names]


def _has_interval(row: tuple[str, list[Measured | None]]) -> bool:
    return any(m is not None and m.low is not None for m in row[1])


def _spread(report: Report) -> list[tuple[str, float, float, float, float]]:
    """metric -> mean, standard deviation (n - 1), least, greatest over seeds."""
    names = dict.fromkeys(n for run in report.seeds for n in run.metrics)
    out = []
    for name in names:
        values = [run.metrics[name] for run in report.seeds if name in run.metrics]
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1) if len(values) > 1 else math.nan
        out.append((name, mean, math.sqrt(variance), min(values), max(values)))
    return out


def view(report: Report) -> dict[str, Any]:
    """What every template reads; the page has figures besides."""
    rows = _metric_rows(report)
    return {
        "report": report,
        "headline": headline(report),
        "bars": _bars(report),
        "scale": _scale(report),
        "kind": SHOWN[report.task],
        "metric_rows": [row for row in rows if _has_interval(row)],
        "other_rows": [row for row in rows if not _has_interval(row)],
        "system_title": system_title,
        "spread": _spread(report),
        "absent": ABSENT | report.absent,
        "matrix_labels": MATRIX_LABELS,
        "confused_pairs": confused_pairs,
        "interval_text": interval_text,
        "metric": metric,
        "show": show,
        "amount": amount,
        "digits": digits,
        "given": lambda value: "–" if value is None else digits(value),
        "p_words": p_words,
        "shown": lambda name, value: "–" if value is None else show(name, value),
    }


@cache
def environment(html: bool) -> Environment:
    """Jinja2 over the templates of this folder, which it compiles once. html: whether texts are escaped as HTML."""
    environment = Environment(
        loader=PackageLoader("tunesmith.evaluate", "templates"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": lambda value: f"{value:,}".replace(",", "\u202f"),
        "duration": duration,
        "size": size,
        "short": short,
        "cell": cell,
        "code": code,
        "breakable": breakable,
        "fence": fence,
        "pretty": pretty,
        "quoted": lambda text: json.dumps(text, ensure_ascii=False),
        "significant": lambda value: f"{value:.3g}",
    }
    return environment


def duration(seconds: float) -> str:
    """'8.1 s', '12 min 5 s', '3 h 20 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def size(num_bytes: float) -> str:
    """'412 MiB', '3.2 GiB'."""
    mebi = num_bytes / 2**20
    return f"{mebi:.0f} MiB" if mebi < 1024 else f"{mebi / 1024:.1f} GiB"


def short(text: str, most: int = 90) -> str:
    """One line of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def pretty(text: str) -> str:
    """A JSON object on one line with spaces; other text as it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else text


def cell(text: object) -> str:
    """Text inside a Markdown table or sentence: one line, nothing in it is markup."""
    line = " ".join(str(text).split())
    line = re.sub(r"([\\`*\[\]|~$])|(?<!\w)_|_(?!\w)|^[#>]", r"\\\g<0>", line)
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line)
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line)


def breakable(text: str) -> Markup:
    """Escaped text that may also be broken after an underscore."""
    return Markup("_<wbr>").join(text.split("_"))


def code(text: str) -> str:
    """An inline code span in Markdown; back-ticks inside become apostrophes."""
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"


def fence(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any run of back-ticks within."""
    longest = max((len(run) for run in "".join(c if c == "`" else " " for c in text).split()), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"
