"""How long each system takes to a given loss, from when its process starts: imports and compilation included.

Training losses of the same rows in the same order, averaged over WINDOW steps. The loss that counts is the highest of
those that the runs end with, so that every run reaches it.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WINDOW = 16


@dataclass(frozen=True)
class Curve:
    """One run. seconds: since its process began, when a step was done; losses: means of WINDOW steps up to it."""

    system: str
    seconds: tuple[float, ...]
    losses: tuple[float, ...]

    @classmethod
    def of(cls, row: dict[str, Any]) -> Curve:
        losses, at = row["losses"], row["at"]
        if len(losses) < WINDOW:
            raise SystemExit(f"{row['system']}: a run of {len(losses)} steps; a mean is of {WINDOW}")
        means = [statistics.fmean(losses[i - WINDOW : i]) for i in range(WINDOW, len(losses) + 1)]
        return cls(row["system"], tuple(at[WINDOW - 1 :]), tuple(means))

    def reached(self, loss: float) -> float:
        """Seconds until its mean is this loss or less."""
        return next(s for s, mean in zip(self.seconds, self.losses, strict=True) if mean <= loss)


def sections(rows: list[dict[str, Any]], folder: Path) -> dict[str, str]:
    """Machine -> a section for each kind of its runs, whose pictures go to the folder of the page's images."""
    kinds = ("machine", "workload", "dtype", "rows", "layers", "threads")
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        alike.setdefault(tuple(row[kind] for kind in kinds), []).append(row)
    out: dict[str, str] = {}
    for number, (kind, runs) in enumerate(alike.items(), 1):
        out[kind[0]] = out.get(kind[0], "") + section(runs, folder / f"loss-{number}.png")
    return out


def section(rows: list[dict[str, Any]], picture: Path) -> str:
    """Of runs of one kind, peers among them."""
    curves = [Curve.of(row) for row in rows]
    loss = max(curve.losses[-1] for curve in curves)
    times = {
        system: [c.reached(loss) for c in curves if c.system == system]
        for system in dict.fromkeys(c.system for c in curves)
    }
    peer = min(statistics.median(t) for s, t in times.items() if not s.startswith("ours"))
    lines = [
        f"### Time to a training loss of {loss:.3f}, {rows[0]['rows']} GSM8K rows, {rows[0]['dtype']}\n",
        f"From the start of the process, imports and compilation included; mean loss of {WINDOW} steps.\n",
        "| system | seconds (median, runs) | the fastest peer's over it | seconds to the first step's end |",
        "|---|---|---|---|",
    ]
    for system, of_it in sorted(times.items(), key=lambda item: statistics.median(item[1])):
        first = statistics.median(row["at"][0] for row in rows if row["system"] == system)
        median = statistics.median(of_it)
        lines.append(f"| {system} | {median:,.0f} ({len(of_it)}) | {peer / median:.2f} | {first:,.0f} |")
    draw(curves, loss, picture)
    return "\n".join(lines) + f"\n\n![Loss by seconds since the start](images/{picture.name})\n\n"


def draw(curves: list[Curve], loss: float, picture: Path) -> None:
    """Loss by seconds; the line that every run reaches."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7.5, 3.6))
    colors = dict(
        zip(
            dict.fromkeys(c.system for c in curves),
            ("#2a6f97", "#c1666b", "#6a994e", "#bc6c25"),
            strict=False,
        )
    )
    named: set[str] = set()
    for curve in curves:
        label = None if curve.system in named else curve.system
        named.add(curve.system)
        axis.plot(curve.seconds, curve.losses, color=colors.get(curve.system, "grey"), label=label)
    axis.axhline(loss, color="black", linewidth=0.8, linestyle="--")
    axis.set_xlim(left=0)
    axis.set_xlabel("seconds since the process began")
    axis.set_ylabel(f"training loss, mean of {WINDOW} steps")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=130)
    pyplot.close(figure)
