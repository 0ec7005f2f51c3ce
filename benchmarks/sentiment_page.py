"""Numbers and picture of sentiment.py: which setting of a method buys how much reward at how many nats.

python benchmarks/sentiment_page.py [--results benchmarks/results/sentiment.json]
prints the tables of docs/policies.md and draws docs/images/sentiment.png from what has been recorded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = list[dict[str, Any]]
Points = list[tuple[float, float]]
ROOT = Path(__file__).resolve().parents[1]
AT = (1.0, 3.0, 8.0)
"""Nats at which frontiers are compared."""
METHODS = {"ppo": "#c1666b", "grpo": "#2a6f97", "rloo": "#52b788", "online_dpo": "#e09f3e", "dpo": "#7b2d8b"}
NAMES = {"reward": "judge, which is trained on", "gold": "another classifier, which is not"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/sentiment.json")
    rows = json.loads(parser.parse_args().results.read_text())["rows"]
    print(table(rows))
    draw(rows, ROOT / "docs/images/sentiment.png")


def tilted(rewards: Floats, weight: float) -> tuple[float, float]:
    """KL divergence and reward of the start's answers (P, G) reweighed by e^(reward / weight): the optimum of reward -
    weight x KL as far as G answers to a prompt show it. Means over prompts."""
    share = np.exp((rewards - rewards.max(1, keepdims=True)) / weight)
    share /= share.sum(1, keepdims=True)
    logs = np.log(np.where(share > 0, share * rewards.shape[1], 1.0))
    return float((share * logs).sum(1).mean()), float((share * rewards).sum(1).mean())


def of_method(rows: Sequence[dict[str, Any]], method: str) -> Rows:
    return [row for row in rows if row["part"] == "run" and row["method"] == method]


def frontier(points: Sequence[tuple[float, float]]) -> Points:
    """The upper hull of (KL, reward): on a line between two settings lies what a coin that chooses between them gets,
    with no larger a divergence."""
    hull: Points = []
    for kl, reward in sorted(points):
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-2], (kl, reward)):
            hull.pop()
        hull.append((kl, reward))
    return hull


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (other[1] - one[1]) / max(other[0] - one[0], 1e-12)


def at(hull: Points, kl: float) -> float | None:
    """Its reward at this KL divergence; None beyond the farthest setting."""
    kls, rewards = zip(*hull, strict=True)
    return float(np.interp(kl, kls, rewards)) if kl <= kls[-1] else None


def by_seed(rows: Sequence[dict[str, Any]], method: str, name: str, kl: float) -> dict[int, float]:
    """Seed -> reward at this KL divergence, of the seeds that went so far."""
    start = of_method(rows, "start")[0]
    mine = of_method(rows, method)
    found = {}
    for seed in sorted({row["seed"] for row in mine}):
        points = [(row["kl"], row[name][0]) for row in (start, *mine) if row.get("seed", seed) == seed]
        value = at(frontier(points), kl)
        if value is not None:
            found[seed] = value
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Every setting; then the frontiers at some distances."""
    lines = [
        "| method | learning rate | KL weight or beta | seeds | KL, nats | reward | other classifier | tokens "
        "| entropy | distinct pairs of words | cut |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    start = of_method(rows, "start")
    for method in ("start", *METHODS):
        mine = start if method == "start" else of_method(rows, method)
        for rate, weight in sorted({(row.get("rate", 0.0), row.get("weight", 0.0)) for row in mine}):
            those = [row for row in mine if (row.get("rate", 0.0), row.get("weight", 0.0)) == (rate, weight)]
            said = f"{rate:g} | {weight:g}" if method in METHODS else " | "
            kl, tokens, entropy, distinct, cut = (
                np.mean([row[key] for row in those])
                for key in ("kl", "tokens", "entropy", "distinct", "at_limit")
            )
            reward, gold = (np.mean([row[name][0] for row in those]) for name in NAMES)
            lines.append(
                f"| `{method}` | {said} | {len(those)} | {kl:.2f} | {reward:.3f} | {gold:.3f} "
                f"| {tokens:.1f} | {entropy:.2f} | {distinct:.2f} | {100 * cut:.0f} % |"
            )
    heads = {"reward": "reward", "gold": "other classifier"}
    head = " | ".join(f"{heads[name]} at {kl:g} nat{'s' * (kl != 1)}" for name in NAMES for kl in AT)
    lines += ["", f"| method | {head} |", "|---|" + "---|" * (len(NAMES) * len(AT))]
    for method in (m for m in METHODS if of_method(rows, m)):
        cells = [
            spread(
                list(by_seed(rows, method, name, kl).values()),
                len({r["seed"] for r in of_method(rows, method)}),
            )
            for name in NAMES
            for kl in AT
        ]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], seeds: int) -> str:
    """Mean, and least to greatest of the seeds; how many, where not all went so far."""
    if not values:
        return "not reached"
    if seeds == 1:
        return f"{values[0]:.3f}"
    of = "" if len(values) == seeds else f", {len(values)} of {seeds} seeds"
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f}{of})"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Reward against KL divergence by both classifiers: settings as the mean of their seeds, each seed a small dot; the
    lower learning rate dotted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    start = of_method(rows, "start")[0]
    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.8), sharex=True, sharey=True)
    for axis, name in zip(axes, NAMES, strict=True):
        axis.axhline(start[name][0], color="black", linewidth=0.8, linestyle=":", label="at the start")
        for method, colour in METHODS.items():
            mine = of_method(rows, method)
            axis.scatter(
                [r["kl"] for r in mine], [r[name][0] for r in mine], 9, color=colour, alpha=0.5, linewidths=0
            )
            for rate in sorted({row["rate"] for row in mine}):
                high = rate == max(row["rate"] for row in mine)
                of_rate = [row for row in mine if row["rate"] == rate]
                means = sorted(
                    tuple(np.mean([(r["kl"], r[name][0]) for r in of_rate if r["weight"] == weight], axis=0))
                    for weight in {row["weight"] for row in of_rate}
                )
                style = {"label": method} if high else {"linestyle": ":", "markerfacecolor": "white"}
                axis.plot(*zip(*means, strict=True), marker="o", color=colour, markersize=5, **style)
        axis.set(title=f"by the {NAMES[name]}" if name == "reward" else f"by {NAMES[name]}", xscale="log")
        axis.set(xlabel="KL divergence from the start, nats an answer")
        axis.spines[["top", "right"]].set_visible(False)
    best = [(kl, reward) for _, kl, reward in start["best possible"]]
    axes[0].plot(*zip(*best, strict=True), color="black", linewidth=1.2, label="best possible")
    axes[0].set(ylabel="probability of positive")
    axes[0].set_xlim(left=0.05)
    figure.legend(
        *axes[0].get_legend_handles_labels(), fontsize=9, frameon=False, loc="lower center", ncols=7
    )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
