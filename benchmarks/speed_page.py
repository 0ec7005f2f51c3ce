"""docs/speed.md and its pictures, from the results: python benchmarks/speed_page.py

Every row of speed.json, encoder.json, decode.json, preference.json, rollouts.json and loss.json: medians, with the
least and the most of the runs, and ours beside the fastest peer of the same workload, also where that is faster.
"""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import speed_loss

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, PICTURES = ROOT / "benchmarks/results", ROOT / "docs/speed.md", ROOT / "docs/images"
LOSSES, ACCURACY = RESULTS / "loss.json", RESULTS / "encoder_accuracy.json"
SPEEDS = ("speed", "encoder", "decode", "preference", "rollouts")
UNITS = {"useful_tokens_per_s": "tokens", "pairs_per_s": "pairs", "samples_per_s": "answers"}
"""What a row says of its speed, and what of."""
LONG = 4096
"""Rows of a run that is told apart: a peer that prepares code for each new shape has most of them behind it."""
WORDS = {
    "sft-lora": "LoRA r=16 on all linear layers, GSM8K rows",
    "sft-full": "all weights, GSM8K rows",
    "sft-lora-top": "LoRA on the top 6 of 30 layers, 3 epochs",
    "sft-lora-long": "LoRA r=16, long rows (median 400 tokens)",
    "full": "MiniLM classifier, all weights, Banking77 rows",
    "lora": "MiniLM classifier, LoRA, Banking77 rows",
    "generate": "64 mixed prompts answered",
    "nll": "log-likelihood of 256 GSM8K rows",
    "dpo-lora": "DPO on pairs, LoRA r=16, reference computed once",
    "dpo-full": "DPO on pairs, all weights, reference computed once",
    "reward-full": "reward model on pairs, all weights",
    "dpo-lora-human": "DPO on people's pairs (hh-rlhf, harmless), LoRA r=16, reference computed once",
    "reward-full-human": "reward model on people's pairs (hh-rlhf, harmless), all weights",
    "grpo-lora": "GRPO, LoRA r=16, 8 answers of up to 128 tokens to each prompt",
}
OURS = {"ours": "", "ours-lean": ", state in bfloat16", "ours-wide": ", state in float32"}
"""What a picture has of ours."""
HEAD = """# Speed

Written by `python benchmarks/speed_page.py` from the [results](../benchmarks/results); do not edit. A SmolLM2-135M
shape with random weights (30 layers) unless a row says otherwise, and a MiniLM encoder. Every run is a process of
its own, runs of different systems alternate, the first three steps do not count; tokens are those of rows, never
padding. `of the limit`: of the speed at which nothing but the necessary products would be computed, measured on the
same machine in the same run. "fastest peer": transformers' Trainer with the settings that made it fastest here
(bfloat16 weights, or float32 where that is faster, rows grouped by length, no checkpointing), transformers'
`generate` with sorted batches, TRL for pairs and own answers (the same settings), or what else the table names;
measured in the same run as ours. Of the three machines the Intel Xeon has AMX, the AMD EPYC with bfloat16 has not, and
the other one has neither: it computes in float32, on all sides. Not measured: GPUs. Of TRL's
ways to write answers only `generate` was measured: its static cache and continuous batching did not end within the
time that they were given beside other work. On the AMD EPYC DPO of all weights was measured beside a load
of 2.5. Aims, and what was tried to reach them: [the log](log.md).

"""


@dataclass(frozen=True)
class Entry:
    """Of one workload and system: tokens, pairs or answers (unit) a second of each run, peak memory in GB, share of the
    limit."""

    workload: str
    system: str
    speeds: tuple[float, ...]
    memory: float
    share: float | None
    conditions: str
    unit: str

    @property
    def median(self) -> float:
        return statistics.median(self.speeds)


def main() -> None:
    found = [json.loads((RESULTS / f"{name}.json").read_text()) for name in SPEEDS]
    rows = [row for result in found for row in result["rows"]]
    to_loss = json.loads(LOSSES.read_text())["rows"] if LOSSES.exists() else []
    losses = speed_loss.sections(to_loss, PICTURES)
    accuracies = json.loads(ACCURACY.read_text())["rows"] if ACCURACY.exists() else []
    parts = [HEAD]
    for name, result in zip(SPEEDS, found, strict=True):
        for key, gate in result.get("gate", {}).items():
            parts.append(first_step(key, gate, relative=name == "speed"))
    for machine in dict.fromkeys(row["machine"] for row in rows):
        here = [row for row in rows if row["machine"] == machine]
        dates = sorted({row["date"] for row in here})
        parts.append(f"## {machine}\n\nMeasured on {' and '.join(dates)}.\n\n")
        workloads = grouped(here)
        ratios = {
            words: found for name, of_it in workloads.items() for words, found in ratio(name, of_it).items()
        }
        picture = PICTURES / f"speed-{slug(machine)}.png"
        draw(ratios, picture)
        parts.append(f"![Speed and memory beside the fastest peer](images/{picture.name})\n\n")
        parts += [section(name, of_it) for name, of_it in workloads.items()]
        parts.append(losses.get(machine, ""))
        parts.append(accuracy([row for row in accuracies if row["machine"] == machine]))
    PAGE.write_text("".join(parts).rstrip() + "\n", encoding="utf-8")


def first_step(key: str, gate: dict[str, float], *, relative: bool) -> str:
    """What the first step was before any speed was measured; relative: is the loss's difference a share of it?"""
    away = f"{100 * gate['loss']:.3f} %" if relative else f"{gate['loss']:.4f}"
    stock = (
        ""
        if "stock cosine" not in gate
        else (f"; stock layers of the same numbers: {gate['stock cosine']:.5f}, {gate['stock loss']:.4f}")
    )
    gradient = f"gradient beside stock layers in float32, cosine {gate['cosine']:.5f}"
    return f"First step of {key}: {gradient}, loss {away} away{stock}.\n\n"


def accuracy(rows: list[dict[str, Any]]) -> str:
    """What the MiniLM classifiers of each system say right."""
    if not rows:
        return ""
    what = f"MiniLM classifier, all weights, all of Banking77, {rows[0]['epochs']} epochs: accuracy"
    return f"### {what}\n\n{accuracy_table(rows)}\n\n"


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| system | test accuracy, % (mean, of each seed) | s.d. | seconds of training |",
        "|---|---|---|---|",
    ]
    for system in dict.fromkeys(row["system"] for row in rows):
        mine = [row for row in rows if row["system"] == system]
        found = [100 * row["test_accuracy"] for row in mine]
        spread = f"{statistics.stdev(found):.2f}" if len(found) > 1 else "-"
        seconds = statistics.median(row["train_seconds"] for row in mine)
        each = ", ".join(f"{value:.2f}" for value in found)
        lines.append(f"| {system} | {statistics.mean(found):.2f} ({each}) | {spread} | {seconds:,.0f} |")
    return "\n".join(lines)


def slug(machine: str) -> str:
    """Of the processor and what it has, for a file's name."""
    processor, _, has = machine.split(",")[0].partition(" with ")
    return "-".join(re.findall(r"[a-z0-9]+", f"{processor.replace('(R)', '')} {has}".lower()))


def grouped(rows: list[dict[str, Any]]) -> dict[str, list[Entry]]:
    """Workload -> its systems, each workload apart by what else was set (layers, rows, threads ...)."""
    out: dict[str, list[Entry]] = {}
    for row in rows:
        out.setdefault(label(row), [])
    for name, entries in out.items():
        mine = [row for row in rows if label(row) == name]
        unit = next(unit for unit in UNITS if unit in mine[0])
        for system in dict.fromkeys(row["system"] for row in mine):
            runs = [row for row in mine if row["system"] == system]
            shares = [row["fraction_of_limit"] for row in runs if row.get("fraction_of_limit") is not None]
            entries.append(
                Entry(
                    name,
                    system,
                    tuple(row[unit] for row in runs),
                    statistics.median(row["peak_rss_gb"] for row in runs),
                    statistics.median(shares) if shares else None,
                    "; ".join(filter(None, (runs[0].get("numerics"), shared(runs)))),
                    UNITS[unit],
                )
            )
    return out


def shared(runs: list[dict[str, Any]]) -> str:
    """What the time of a rollout goes to, where that is told."""
    told = [row["shares"] for row in runs if "shares" in row]
    if not told:
        return ""
    parts = {name: statistics.median(shares[name] for shares in told) for name in told[0]}
    return ", ".join(f"{name} {100 * part:.0f} %" for name, part in parts.items() if part >= 0.005)


def label(row: dict[str, Any]) -> str:
    """A workload in words, with what was set."""
    more = []
    if row.get("layers", 30) != 30:
        more.append(f"{row['layers']} layers")
    if row.get("rows", 0) >= LONG:
        more.append(f"{row['rows']:,} rows")
    if "new" in row and row["workload"] == "generate":
        more.append(f"up to {row['new']} tokens each")
    if row.get("dtype", "bfloat16") != "bfloat16":
        more.append(row["dtype"])
    if row.get("threads", 2) != 2:
        more.append(f"{row['threads']} thread" + "s" * (row["threads"] > 1))
    return ", ".join([WORDS.get(row["workload"], row["workload"]), *more])


def fastest_peer(entries: list[Entry]) -> Entry | None:
    peers = [e for e in entries if not e.system.startswith("ours")]
    return max(peers, key=lambda e: e.median, default=None)


def section(workload: str, entries: list[Entry]) -> str:
    peer = fastest_peer(entries)
    speed = f"{entries[0].unit}/s (median, least to most, runs)"
    lines = [
        f"### {workload}\n",
        f"| system | {speed} | x fastest peer | of the limit | peak memory | numbers |",
        "|---|---|---|---|---|---|",
    ]
    for e in sorted(entries, key=lambda e: -e.median):
        times = f"{e.median / peer.median:.2f}" if peer is not None else "-"
        share = f"{100 * e.share:.0f} %" if e.share is not None else "-"
        spread = f"{said(min(e.speeds))} to {said(max(e.speeds))}, {len(e.speeds)}"
        lines.append(
            f"| {e.system} | {said(e.median)} ({spread}) | {times} | {share} "
            f"| {e.memory:.1f} GB | {e.conditions or '-'} |"
        )
    return "\n".join(lines) + "\n\n"


def said(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 10 else f"{speed:.2f}"


def ratio(workload: str, entries: list[Entry]) -> dict[str, tuple[float, float]]:
    """workload -> (speed, memory) of ours over those of the fastest peer, of each of our ways."""
    peer = fastest_peer(entries)
    ours = {OURS[e.system]: e for e in entries if e.system in OURS}
    return {
        f"{workload}{way}": (e.median / peer.median, e.memory / peer.memory)
        for way, e in ours.items()
        if peer is not None
    }


def draw(ratios: dict[str, tuple[float, float]], picture: Path) -> None:
    """Bars: ours over the fastest peer, in speed (longer is better) and in memory (shorter is better)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(ratios)[::-1]
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 0.4 * len(names) + 1), sharey=True)
    for axis, column, title in zip(
        axes,
        (0, 1),
        ("speed, times the fastest peer", "peak memory, share of that peer's"),
        strict=True,
    ):
        values = [ratios[name][column] for name in names]
        good = [(v >= 1) == (column == 0) for v in values]
        bars = axis.barh(names, values, color=["#2a6f97" if g else "#c1666b" for g in good])
        axis.bar_label(
            bars,
            [f"{v:.1f}" if column == 0 else f"{100 * v:.0f} %" for v in values],
            padding=3,
        )
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_title(title, fontsize=10)
        axis.set_xlim(0, max([*values, 1]) * 1.18)
        axis.margins(y=0.01)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
