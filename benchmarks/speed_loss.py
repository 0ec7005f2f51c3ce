"""How long each system takes to the loss that an epoch leads to, from when its process starts: imports and compilation
included.

All take the same number of steps on the same rows with the same settings, so that at the end they have learned the
same. Peers that group rows by length see them in another order: their losses step by step are those of other rows, so
the time that counts is the one to the end, and the curves are only drawn.
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
    if len({len(row["losses"]) for row in rows}) > 1:
        raise SystemExit("runs of different numbers of steps do not lead to the same loss")
    systems = {
        name: [row for row in rows if row["system"] == name]
        for name in dict.fromkeys(c.system for c in curves)
    }
    times = {name: statistics.median(row["at"][-1] for row in runs) for name, runs in systems.items()}
    peer = min(time for name, time in times.items() if not name.startswith("ours"))
    lines = [
        f"### Time to the loss of one epoch, {rows[0]['rows']} GSM8K rows, {rows[0]['dtype']}\n",
        "From the start of the process, imports and compilation included. All take the same steps on the same rows;"
        f" those that group rows by length in another order, so that the last {WINDOW} losses are of other rows.\n",
        "| system | seconds (median, runs) | the fastest peer's over it | seconds to the first step's end |"
        f" mean loss: all steps, last {WINDOW} |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(times, key=times.__getitem__):
        runs = systems[name]
        first = statistics.median(row["at"][0] for row in runs)
        whole = statistics.fmean(statistics.fmean(row["losses"]) for row in runs)
        last = statistics.fmean(statistics.fmean(row["losses"][-WINDOW:]) for row in runs)
        lines.append(
            f"| {name} | {times[name]:,.0f} ({len(runs)}) | {peer / times[name]:.2f} | {first:,.0f} |"
            f" {whole:.3f}, {last:.3f} |"
        )
    draw(curves, picture)
    return "\n".join(lines) + f"\n\n![Loss by seconds since the start](images/{picture.name})\n\n"


def draw(curves: list[Curve], picture: Path) -> None:
    """Loss by seconds."""
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
    axis.set_xlim(left=0)
    axis.set_xlabel("seconds since the process began")
    axis.set_ylabel(f"training loss, mean of {WINDOW} steps")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=130)
    pyplot.close(figure)
