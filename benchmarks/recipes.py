"""The recipes with sample data of our own, as they stand: what each gives, beside its base and its best baseline.

python benchmarks/recipes.py [--encoder FOLDER] [--out benchmarks/results] [--only NAME] [--threads N]
FOLDER is a sentence encoder such as all-MiniLM-L6-v2, on which the recipes for heads and embeddings run too. Writes
recipes.json, one row a recipe and model, and prints the table of recipes/README.md. Runs that the file already has
are made again and replaced.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from tunesmith.config.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    *("intent", "sentiment", "rating", "entities", "similarity", "search"),
    *("qa", "extraction", "summaries", "translation", "tickets", "replies", "sums", "maths"),
)
AFTER = {"maths": "sums"}
"""Recipes that go on from the model of another."""
FOR_ENCODERS = ("intent", "sentiment", "rating", "entities", "similarity", "search")
EMBEDDED, ENCODER = "tunesmith/base-8m (8 M)", "all-MiniLM-L6-v2 (22 M)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--only", default="", help="run only recipes whose name begins so")
    parser.add_argument("--threads", type=int, help="as train.threads")
    args = parser.parse_args()
    target = args.out / "recipes.json"
    found: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {"rows": []}
    for name in (n for n in NAMES if n.startswith(args.only)):
        models = {EMBEDDED: None} | ({ENCODER: args.encoder} if args.encoder and name in FOR_ENCODERS else {})
        for title, folder in models.items():
            row = run(name, title, folder, args.threads)
            rows = [r for r in found["rows"] if (r["recipe"], r["model"]) != (name, title)]
            found = {"rows": [*rows, row], "machine": describe_machine(), "date": date.today().isoformat()}
            args.out.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(found, indent=1) + "\n")
            print(json.dumps(row), flush=True)
    print(table(found["rows"]))


def run(name: str, title: str, folder: Path | None, threads: int | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="recipes-") as scratch:
        if name in AFTER:
            train(AFTER[name], scratch, folder, threads)
            folder = Path(scratch) / AFTER[name]
        train(name, scratch, folder, threads)
        return row_of(name, title, Path(scratch) / name, threads)


def row_of(name: str, title: str, folder: Path, threads: int | None) -> dict[str, Any]:
    """What a finished run of the recipe gave."""
    report = json.loads((folder / "report" / "metrics.json").read_text())
    metric = report["primary"]
    values = {s["name"]: s["metrics"][metric] for s in report["systems"] if metric in s["metrics"]}
    return {
        "recipe": name,
        "model": title,
        "metric": metric,
        "systems": {system: {k: m[k] for k in ("value", "low", "high")} for system, m in values.items()},
        "train_rows": report["data"]["splits"]["train"],
        "test_rows": report["data"]["splits"]["test"],
        "threads": threads,
        "train_seconds": round(report["cost"]["seconds"]["train"], 1),
    }


def train(name: str, scratch: str, folder: Path | None, threads: int | None) -> None:
    command = [
        *(sys.executable, "-m", "tunesmith.cli.main", "train", f"recipes/{name}.yaml", "--quiet"),
        f"output={scratch}",
        *([f"model.base={folder.resolve()}"] if folder else []),
        *([f"train.threads={threads}"] if threads else []),
    ]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def table(rows: list[dict[str, Any]]) -> str:
    from tunesmith.scoring import metric, show

    lines = [
        "| recipe | model | rows | metric | base | best baseline | tuned (95 % interval) | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name, systems = row["metric"], row["systems"]
        others = {s: m for s, m in systems.items() if s not in ("base", "tuned") and "(" not in s}
        sign = 1 if metric(name).higher_is_better else -1
        best = max(others, key=lambda s: sign * others[s]["value"], default="")
        tuned, beside = systems["tuned"], "-"
        if best:
            beside = f"{show(name, others[best]['value'])} ({best})"
        lines.append(
            f"| {row['recipe']} | {row['model']} | {row['train_rows']:,} | {metric(name).title} "
            f"| {show(name, systems['base']['value'])} "
            f"| {beside} "
            f"| {show(name, tuned['value'])} ({show(name, tuned['low'])} to {show(name, tuned['high'])}) "
            f"| {row['train_seconds']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
