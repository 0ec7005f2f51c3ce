"""Heads on public data and our own: sentiment, intent, slots, ratings and similarity, with their baselines.

python benchmarks/tasks.py --data DATA --encoder FOLDER [--rows 8000] [--out benchmarks/results] [--only NAME]
  [KEY=VALUE ...]
DATA holds sst2/, sgd/ (as described there); FOLDER a sentence encoder such as all-MiniLM-L6-v2. Full tuning of the
encoder without its embeddings, defaults but for what TASKS says; at most --rows training rows and 2,000 test rows,
a seeded choice. The best step is chosen on validation rows, the test rows are scored once. Writes tasks.json, one row
a system: task, metric, system, value, low, high, train_rows, test_rows, train_seconds; and prints the table.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
Rows = Iterator[dict[str, Any]]
SPLITS = {"train": "train", "validation": "dev", "test": "test"}


def sst2(data: Path, split: str) -> Rows:
    """Sentences of film reviews, positive or negative."""
    with (data / "sst2" / f"{split}.tsv").open(encoding="utf-8", newline="") as file:
        for label, text in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield {"text": text, "label": ("negative", "positive")[int(label)]}


def sgd_turns(data: Path, split: str) -> Iterator[dict[str, Any]]:
    with gzip.open(data / "sgd" / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield from (turn for turn in json.loads(line)["turns"] if turn["role"] == "user")


def sgd_intent(data: Path, split: str) -> Rows:
    """What a user wants, from the one turn in which it is said first."""
    for turn in sgd_turns(data, split):
        said = [f["intent"] for f in turn["frames"] if "INFORM_INTENT" in f["acts"]]
        if len(said) == 1:
            yield {"text": turn["content"], "label": said[0]}


def sgd_slots(data: Path, split: str) -> Rows:
    """The values that a user's turn names, by character spans."""
    for turn in sgd_turns(data, split):
        spans = {(a, b, name) for f in turn["frames"] for name, a, b in f.get("spans", [])}
        kept = [s for s in spans if sum(s[0] < o[1] and o[0] < s[1] for o in spans) == 1]
        if kept:
            yield {"text": turn["content"], "spans": [[a, b, name] for a, b, name in sorted(kept)]}


def own(name: str) -> Callable[[Path, str], Rows]:
    def rows(data: Path, split: str) -> Rows:
        with (
            HERE / "recipes" / "data" / f"{name}_{split.replace('dev', 'validation')}.jsonl"
        ).open() as file:
            yield from map(json.loads, file)

    return rows


@dataclass(frozen=True)
class Task:
    rows: Callable[[Path, str], Rows]
    metric: str
    overrides: tuple[str, ...]


COMMON = ("method.freeze.embeddings=true", "method.head_lr_factor=10", "train.learning_rate=2e-4")
TASKS = {
    "sst2": Task(
        sst2, "accuracy", ("method.type=classify", "train.epochs=2", "train.batch_size=32", *COMMON)
    ),
    "sgd-intent": Task(
        sgd_intent, "accuracy", ("method.type=classify", "train.epochs=2", "train.batch_size=32", *COMMON)
    ),
    "sgd-slots": Task(
        sgd_slots, "span_f1", ("method.type=tag", "train.epochs=2", "train.batch_size=32", *COMMON)
    ),
    "ratings": Task(
        own("sentiment"),
        "mae",
        ("method.type=regress", "data.targets=[stars]", "train.epochs=10", "train.batch_size=16", *COMMON),
    ),
    "similarity": Task(
        own("similarity"),
        "spearman",
        ("method.type=regress", "data.targets=[score]", "train.epochs=10", "train.batch_size=16", *COMMON),
    ),
    "entities": Task(
        own("entities"), "span_f1", ("method.type=tag", "train.epochs=15", "train.batch_size=16", *COMMON)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", default="", help="run only tasks whose name begins so")
    parser.add_argument("overrides", nargs="*", help="of every run, such as train.threads=1")
    args = parser.parse_args()
    target = args.out / "tasks.json"
    found = json.loads(target.read_text()) if target.exists() else {"rows": []}
    for name in (n for n in TASKS if n.startswith(args.only)):
        found["rows"] = [r for r in found["rows"] if r["task"] != name] + run(name, args)
        found |= {"date": date.today().isoformat(), "machine": machine()}
        args.out.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found["rows"]))


def run(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    task = TASKS[name]
    with tempfile.TemporaryDirectory(prefix="tasks-") as scratch:
        folder = Path(scratch)
        files = {}
        for split, source in SPLITS.items():
            files[split] = folder / f"{split}.jsonl"
            text = "".join(json.dumps(row) + "\n" for row in task.rows(args.data, source))
            files[split].write_text(text, encoding="utf-8")
        command = [
            *(sys.executable, "-m", "tunesmith.cli.main", "train", "--quiet"),
            *(f"name={name}", f"output={folder}", f"model.base={args.encoder}"),
            *(f"data.{split}={path}" for split, path in files.items()),
            *(f"data.limit={args.rows}", "evaluate.limit=2000"),
            *task.overrides,
            *args.overrides,
        ]
        subprocess.run(command, check=True)
        report = json.loads((folder / name / "report" / "metrics.json").read_text())
    common = {
        "train_rows": report["data"]["splits"]["train"],
        "train_seconds": round(report["cost"]["seconds"]["train"], 1),
        "overrides": args.overrides,
    }
    return [
        {"task": name, "metric": task.metric, "system": system["name"]}
        | {key: system["metrics"][task.metric][key] for key in ("value", "low", "high")}
        | {"test_rows": system["metrics"][task.metric]["n"], **common}
        for system in report["systems"]
        if task.metric in system["metrics"]
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """One line a task, one column a system."""
    lines = ["| task | rows | metric | systems | seconds |", "|---|---|---|---|---|"]
    for task in dict.fromkeys(r["task"] for r in rows):
        mine = [r for r in rows if r["task"] == task]
        cells = ", ".join(f"{r['system']} {r['value']:.3f}" for r in mine)
        first = mine[0]
        lines.append(
            f"| {task} | {first['train_rows']:,} | {first['metric']} | {cells} | {first['train_seconds']:.0f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    from tunesmith.config.machine import describe_machine

    return str(describe_machine())


if __name__ == "__main__":
    main()
