"""Curves and reliability plots as inline SVG: text stays text, colours are the page's, same numbers give same
bytes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunesmith.evaluate.report_model import Judgement, Points, ReliabilityBin, Report
from tunesmith.scoring import metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#010203"
_FAINT = "#040506"
_SERIES = ("#0a0b0c", "#0d0e0f", "#101112", "#131415")
_VARIABLES = {_INK: "currentColor", _FAINT: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, 1)
}
"""Colours drawn as place-holders and replaced by CSS variables, so that one picture serves light and dark."""

ROLLED = {
    "reward_deviation": "Deviation of rewards",
    "length": "Tokens of an answer",
    "entropy": "Entropy of a token (nats)",
    "surprisal": "Minus log-probability of a drawn token, an estimate of its entropy (nats)",
    "cut": "Share of answers cut off",
    "kl": "KL divergence of an answer from the start (nats)",
}
"""What numbers of rollouts are called, where their own name is not enough."""

_STYLES = ("-", "--", "-.", ":")


def figures(report: Report) -> list[tuple[str, str]]:
    """(caption, svg) for each curve the report has."""
    curves = report.curves
    best = report.fit.best_step if report.fit else None
    loss = {"training": curves.train_loss, "validation": curves.validation_loss}
    shares = {n: p for n, p in curves.validation.items() if metric(n).is_share}
    others = {n: p for n, p in curves.validation.items() if not metric(n).is_share}
    wanted: list[tuple[str, str, Mapping[str, Points]]] = [
        (curves.loss, "loss", loss),
        ("On validation rows", "validation", {metric(n).title: p for n, p in shares.items()}),
        *[
            (f"{metric(n).title}, validation rows", f"validation-{i}", {n: p})
            for i, (n, p) in enumerate(others.items())
        ],
        ("Learning rate", "rate", {"learning rate": curves.learning_rate}),
        ("Gradient norm", "norm", {"gradient norm": curves.grad_norm}),
        *_measured(curves.train_metrics),
        *[
            (f"{ROLLED.get(n, n.replace('_', ' ').capitalize())}, rollouts", f"rollout-{i}", {n: p})
            for i, (n, p) in enumerate(curves.rollouts.items())
        ],
    ]
    out = []
    for caption, name, lines in wanted:
        finite = {k: [(s, v) for s, v in p if math.isfinite(v)] for k, p in lines.items()}
        finite = {k: p for k, p in finite.items() if p}
        if finite:
            out.append((caption, curve(name, finite, best if name[:4] in ("loss", "vali") else None)))
    return out


def _measured(metrics: Mapping[str, Points]) -> list[tuple[str, str, Mapping[str, Points]]]:
    """What was measured of training steps: chosen and rejected completions in one picture, the rest by itself."""
    both = {n: metrics[f"{n}_logp"] for n in ("chosen", "rejected") if f"{n}_logp" in metrics}
    others = {n.replace("_", " "): p for n, p in metrics.items() if n.removesuffix("_logp") not in both}
    return [
        ("Log-probability of completions, training steps", "logp", both),
        *[
            (f"{n.capitalize()}, training steps", f"step-{i}", {n: p})
            for i, (n, p) in enumerate(others.items())
        ],
    ]


def preferred_by_length(name: str, judgements: Sequence[Judgement]) -> str:
    """How often people and each system prefer the longer of two completions, by how much longer it is. name: as in
    `curve`; empty where no system was measured so."""
    found = [j for j in judgements if j.lengths]
    if not found:
        return ""
    people = [(round(g.characters), g.people_prefer_longer) for g in found[-1].lengths]
    systems = {j.system: [(round(g.characters), g.prefers_longer) for g in j.lengths] for j in found}
    return curve(name, {**systems, "people": people}, along="characters by which one is longer", share=True)


def curve(
    name: str,
    lines: Mapping[str, Points],
    best_step: int | None = None,
    *,
    along: str = "step",
    share: bool = False,
) -> str:
    """One small line chart. name: prefix of the ids inside, unique on a page. best_step: drawn as a vertical
    line. A legend only where there is more than one line; lines differ in colour and in dashes. along: what the lines
    go along. share: the axis goes from 0 to 1, with a line at one half."""
    with _figure(name, 2.7) as figure:
        axes = figure.add_axes((0.125, 0.17, 0.855, 0.77))
        for number, (label, points) in enumerate(lines.items()):
            steps, values = zip(*points, strict=True)
            (line,) = axes.plot(
                steps,
                values,
                color=_SERIES[number % len(_SERIES)],
                linestyle=_STYLES[number // len(_SERIES) % len(_STYLES)] if number >= len(_SERIES) else "-",
                linewidth=1.8 if len(points) < 60 else 1.2,
                marker="o" if len(points) < 25 else "",
                markersize=3.5,
            )
            line.set_label(f" {label}")  # a leading underscore would hide it from the legend
        if best_step is not None:
            axes.axvline(best_step, color=_INK, linewidth=1, linestyle=(0, (3, 3)))
            axes.annotate(
                f"best: step {best_step}",
                (best_step, 1),
                xycoords=("data", "axes fraction"),
                xytext=_beside(best_step, lines.values()),
                textcoords="offset points",
                ha="left" if _beside(best_step, lines.values())[0] > 0 else "right",
                va="top",
                fontsize=9,
            )
        _dress(axes, len(lines) > 1)
        axes.set_xlabel(along, labelpad=1)
        if share:
            axes.set_ylim(-0.03, 1.03)  # markers at the ends stay whole
            axes.axhline(0.5, color=_INK, linewidth=1, linestyle=(0, (3, 3)))
        return _svg(figure, name, f"{', '.join(lines)} against {along}")


def reliability(name: str, bins: Sequence[ReliabilityBin]) -> str:
    """Accuracy against confidence (arXiv:1706.04599, figure 1): a bar for each bin, a dot at its mean
    confidence that is larger the more rows it has, and the diagonal on which confidence is accuracy. name: as
    in `curve`."""
    with _figure(name, 3.6) as figure:
        axes = figure.add_axes((0.125, 0.14, 0.83, 0.82))
        axes.bar(
            [b.low for b in bins],
            [b.accuracy for b in bins],
            width=[b.high - b.low for b in bins],
            align="edge",
            color=_SERIES[0],
            alpha=0.3,
            linewidth=0,
        )
        rows = max(sum(b.count for b in bins), 1)
        axes.scatter(
            [b.confidence for b in bins],
            [b.accuracy for b in bins],
            s=[12 + 160 * b.count / rows for b in bins],
            color=_SERIES[0],
            zorder=3,
            clip_on=False,
        )
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (3, 3)))
        _dress(axes, False)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_xlabel("confidence", labelpad=1)
        axes.set_ylabel("accuracy")
        return _svg(figure, name, "accuracy against confidence")


def shares(name: str, parts: Mapping[str, float]) -> str:
    """Parts of a whole as bars, the first on top, each with its share in words. name: as in `curve`."""
    whole = max(sum(parts.values()), 1e-12)
    with _figure(name, 0.34 * len(parts) + 0.15) as figure:
        axes = figure.add_axes((0.24, 0.02, 0.6, 0.96))
        axes.barh(list(parts), [value / whole for value in parts.values()], color=_SERIES[0], height=0.62)
        for row, value in enumerate(parts.values()):
            axes.annotate(f" {100 * value / whole:.1f} %", (value / whole, row), va="center", fontsize=10)
        axes.invert_yaxis()
        axes.set_axis_off()
        for row, label in enumerate(parts):
            axes.annotate(
                label, (0, row), xytext=(-8, 0), textcoords="offset points", ha="right", va="center"
            )
        axes.figure.patch.set_visible(False)
        return _svg(figure, name, "share of the time by part")


def histogram(
    name: str, edges: Sequence[float], counts: Sequence[int], along: str, title: str, ratios: bool = True
) -> str:
    """How many lie between edges (one more than counts), which stand as far apart as their ratios, or else as their
    differences. name: as in `curve`."""
    with _figure(name, 2.4) as figure:
        axes = figure.add_axes((0.125, 0.2, 0.855, 0.74))
        axes.stairs(counts, edges, fill=True, color=_SERIES[0], alpha=0.85)
        axes.set_xlim(edges[0], edges[-1])
        if ratios:
            axes.set_xscale("log")
            marks = _marks(edges[0], edges[-1])
            axes.set_xticks(marks, [f"{mark:,}" for mark in marks])
            axes.minorticks_off()
        _dress(axes, False)
        axes.set_ylim(0)
        axes.set_xlabel(along, labelpad=1)
        axes.set_ylabel("rows")
        return _svg(figure, name, title)


def _marks(low: float, high: float) -> list[int]:
    """At most seven whole numbers of the kind 1, 2, 5 times a power of ten between the two, where there are three of
    them; else multiples of such a number, and at least one."""
    steps = [k * 10**n for n in range(10) for k in (1, 2, 5)]
    found = [step for step in steps if low <= step <= high]
    if len(found) < 3:
        apart = next(step for step in steps if (high - low) / step <= 6)
        found = list(range(math.ceil(low / apart) * apart, math.floor(high) + 1, apart))
    step = -(-len(found) // 7) if found else 1
    return found[::step] or [round(low)]


@contextmanager
def _figure(name: str, height: float) -> Iterator[Figure]:
    """An empty figure, five inches wide, to draw on inside. Training does not wait for matplotlib: it loads here."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_settings(name)):
        yield Figure(figsize=(5.0, height))


def _svg(figure: Figure, name: str, title: str) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), name, title)


def _settings(name: str) -> dict[str, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "font.family": "sans-serif",
        "text.parse_math": False,
        "axes.formatter.useoffset": False,
        "axes.formatter.limits": (-3, 5),
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
        ),
    }


def _dress(axes: Any, legend: bool) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)
    axes.grid(axis="y", color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("step", labelpad=1)
    axes.margins(y=0.12)
    if legend:
        axes.legend(frameon=False, fontsize=9, handlelength=1.8, loc="best")


def _beside(step: int, lines: Sequence[Points] | Any) -> tuple[float, float]:
    """The label stands left of the line where the line is in the right half."""
    steps = [s for points in lines for s, _ in points]
    return (-5, -1) if 2 * step > min(steps) + max(steps) else (5, -1)


def _inline(svg: str, name: str, title: str) -> str:
    """The <svg> element alone: no fixed size, ids under `name`, colours from the page."""
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    safe = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f'{head} role="img" aria-label="{safe}">{rest}'
