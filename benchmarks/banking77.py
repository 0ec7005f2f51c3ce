"""Banking77 (arXiv:2003.04807): a small encoder and the embedded decoder against the published table.

python benchmarks/banking77.py --data DATA --encoder FOLDER [--out benchmarks/results] [--only NAME] [--seeds 3]
  [KEY=VALUE ...]
DATA holds train.csv and test.csv with columns text, category; FOLDER a sentence encoder such as all-MiniLM-L6-v2.

Settings were chosen on training rows alone (docs/log.md); here a run trains on all of them (or on the first k of each
class in a seeded order), without validation rows, to its end, and scores the test rows once. With 10 a class the
encoder is first tuned by contrast, each text with four others of its class. Each run is a process of its own. Writes
banking77.json, one row a run: model, method, shots (0: all rows), seed, test_accuracy, train_seconds, threads; and
prints the table. Runs that the file already has are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import yaml

MINILM = "all-MiniLM-L6-v2 (22 M)"
BASE = "tunesmith/base-8m (8 M)"
HEAD = ("method.type=classify", "method.freeze.embeddings=true")
FULL = (
    *HEAD,
    "train.batch_size=32",
    "train.learning_rate=2e-4",
    "train.epochs=6",
    "method.head_lr_factor=10",
    "method.label_smoothing=0.1",
)
FEW = (
    *HEAD,
    *("method.pooling=mean", "method.head_lr_factor=10", "method.label_smoothing=0.1"),
    *("train.batch_size=16", "train.learning_rate=2e-4", "train.layer_lr_decay=0.7", "train.epochs=10"),
)
PROBE = "linear probe, frozen"
FROZEN = (
    *HEAD,
    "method.freeze.layers=6",
    "method.head_init=probe",
    "train.epochs=1",
    "train.learning_rate=1e-5",
)
SMALL = (
    *("train.batch_size=16", "train.learning_rate=1e-3", "train.epochs=5"),
    *("train.neftune_alpha=5", "method.label_smoothing=0.1"),
)
CONTRAST = (
    *("method.type=embed", "data.format=label", "method.pooling=mean", "method.freeze.embeddings=true"),
    *("train.batch_size=64", "train.learning_rate=2e-4", "train.layer_lr_decay=0.7", "train.epochs=2"),
)


@dataclass(frozen=True)
class Setting:
    """Settings of one row of the table; shots 0: all training rows. first: of a run before it, which it goes on from;
    that one sees each row four times, paired with another text each time."""

    name: str
    model: str
    method: str
    shots: int
    seeds: int
    overrides: tuple[str, ...]
    first: tuple[str, ...] = ()


SETTINGS = [
    Setting("minilm-full", MINILM, "full tuning, head", 0, 3, FULL),
    Setting("minilm-10", MINILM, "contrastive tuning, then a linear probe", 10, 3, FROZEN, CONTRAST),
    Setting("minilm-30", MINILM, "full tuning, head", 30, 3, FEW),
    Setting("probe-10", MINILM, PROBE, 10, 3, FROZEN),
    Setting("probe-30", MINILM, PROBE, 30, 3, FROZEN),
    Setting(
        "minilm-lora",
        MINILM,
        "LoRA r=16, head",
        0,
        1,
        (
            "method.type=classify",
            "method.tuning=lora",
            "train.batch_size=32",
            "train.learning_rate=1e-3",
            "train.epochs=6",
            "method.head_lr_factor=3",
        ),
    ),
    Setting(
        "base-generation",
        BASE,
        "full tuning, generation",
        0,
        1,
        (*SMALL, "train.epochs=8", "model.dropout=0.1"),
    ),
    Setting("base-head", BASE, "full tuning, head", 0, 1, ("method.type=classify", *SMALL)),
]

PUBLISHED = [
    ("BERT fixed", "67.55 / 80.07 / 87.19"),
    ("BERT tuned", "83.42 / 90.03 / 93.66"),
    ("USE", "84.23 / 89.74 / 92.81"),
    ("ConveRT", "83.32 / 89.37 / 93.01"),
    ("USE + ConveRT", "85.19 / 90.57 / 93.36"),
]
"""10 and 30 examples a class, and all: the paper's table of intent accuracy."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", default="", help="run only settings whose name begins so")
    parser.add_argument("--seeds", type=int, help="at most this many seeds of each")
    parser.add_argument("overrides", nargs="*", help="of every run, such as train.threads=1")
    args = parser.parse_args()
    target = args.out / "banking77.json"
    found = json.loads(target.read_text()) if target.exists() else {"rows": []}
    for setting in (s for s in SETTINGS if s.name.startswith(args.only)):
        for seed in range(min(setting.seeds, args.seeds or setting.seeds)):
            if not any(_is(row, setting, seed) for row in found["rows"]):
                made = replace(setting, overrides=(*setting.overrides, *args.overrides))
                found["rows"] += _run(made, seed, args.data, args.encoder)
                found["machine"], found["date"] = _machine(), date.today().isoformat()
                args.out.mkdir(parents=True, exist_ok=True)
                target.write_text(json.dumps(found, indent=1) + "\n")
                print(_line(found["rows"][-1]), flush=True)
    print(table(found["rows"]))


def _is(row: dict[str, Any], setting: Setting, seed: int) -> bool:
    return (row["model"], row["method"], row["shots"], row["seed"]) == (
        setting.model,
        setting.method,
        setting.shots,
        seed,
    )


def train(setting: Setting, seed: int, data: Path, encoder: Path) -> dict[str, Any]:
    """What the run, a process of its own, reports of itself; and `saved_bytes`, the size of its weights."""
    with tempfile.TemporaryDirectory(prefix="banking77-") as name:
        folder = Path(name)
        train = few_shot(data / "train.csv", setting.shots, seed, folder / "train.csv")
        base = str(encoder) if setting.model == MINILM else "tunesmith/base-8m"
        common = [
            *(f"output={folder}", f"seed={seed}", "data.validation_fraction=0", "evaluate.forgetting=[]"),
            *("evaluate.few_shot=0", "train.save_every=1000000"),
        ]
        seconds = 0.0
        if setting.first:
            rows = [f"data.train=['{train}*4']", "data.test_fraction=0", f"model.base={base}"]
            first = _tunesmith(folder, "first", [*common, *rows, *setting.first, *threads_of(setting)])
            seconds, base = first["cost"]["seconds"]["train"], str(folder / "first")
        rows = [f"data.train={train}", f"data.test={data / 'test.csv'}", f"model.base={base}"]
        report = _tunesmith(folder, setting.name, [*common, *rows, *setting.overrides])
        report["cost"]["seconds"]["train"] += seconds
        weights = (folder / setting.name / "model").rglob("*.safetensors")
        report["saved_bytes"] = sum(file.stat().st_size for file in weights)
    return report


def _tunesmith(folder: Path, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tunesmith.cli.main", "train", "--quiet", f"name={name}", *overrides]
    subprocess.run(command, check=True)
    report: dict[str, Any] = json.loads((folder / name / "report" / "metrics.json").read_text())
    return report


def threads_of(setting: Setting) -> list[str]:
    return [o for o in setting.overrides if o.startswith("train.threads=")]


def _run(setting: Setting, seed: int, data: Path, encoder: Path) -> list[dict[str, Any]]:
    """The TF-IDF baseline of the same rows is a row of its own, once."""
    report = train(setting, seed, data, encoder)
    systems = {s["name"]: s["metrics"]["accuracy"]["value"] for s in report["systems"]}
    common = {"shots": setting.shots, "seed": seed}
    if setting.method == PROBE:
        names = [("TF-IDF", "logistic regression", "tfidf"), (MINILM, PROBE, "base")]
        return [
            {
                "model": model,
                "method": method,
                **common,
                "test_accuracy": systems[system],
                "train_seconds": None,
            }
            for model, method, system in names
        ]
    rows = [
        {
            "model": setting.model,
            "method": setting.method,
            **common,
            "test_accuracy": systems["tuned"],
            "train_seconds": round(report["cost"]["seconds"]["train"], 1),
            "threads": _threads(report),
        }
    ]
    if setting.name == "minilm-full":
        for model, method, system in (
            ("TF-IDF", "logistic regression", "tfidf"),
            (MINILM, PROBE, "base"),
        ):
            row = {"model": model, "method": method, **common}
            rows.insert(0, row | {"test_accuracy": systems[system], "train_seconds": None})
    return rows


def _threads(report: dict[str, Any]) -> int:
    found: int = yaml.safe_load(report["config"])["train"]["threads"]
    return found


def few_shot(source: Path, shots: int, seed: int, target: Path) -> Path:
    """`shots` rows of each class, drawn by the seed; all rows for 0."""
    if not shots:
        return source
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    random.Random(seed).shuffle(rows)
    taken: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        taken.setdefault(row["category"], []).append(row)
    chosen = [row for of_class in taken.values() for row in of_class[:shots]]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "category"])
        writer.writeheader()
        writer.writerows(chosen)
    return target


def table(rows: list[dict[str, Any]]) -> str:
    """Mean accuracy of the seeds, beside the published rows."""
    lines = [
        "| model | method | 10 a class | 30 a class | all rows | seconds (all) |",
        "|---|---|---|---|---|---|",
    ]
    for model, method in dict.fromkeys((r["model"], r["method"]) for r in rows):
        mine = [r for r in rows if (r["model"], r["method"]) == (model, method)]
        cells = [_cell([r["test_accuracy"] for r in mine if r["shots"] == shots]) for shots in (10, 30, 0)]
        seconds = [r["train_seconds"] for r in mine if r["shots"] == 0 and r["train_seconds"]]
        lines.append(
            f"| {model} | {method} | {' | '.join(cells)} | {statistics.mean(seconds):.0f} |"
            if seconds
            else f"| {model} | {method} | {' | '.join(cells)} | - |"
        )
    lines += [f"| {name} | published | {' | '.join(values.split(' / '))} | |" for name, values in PUBLISHED]
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    mean = f"{100 * statistics.mean(values):.2f}"
    return (
        mean
        if len(values) == 1
        else f"{mean} (s.d. {100 * statistics.stdev(values):.2f}, {len(values)} seeds)"
    )


def _line(row: dict[str, Any]) -> str:
    what = f"{row['model']}, {row['method']}, shots {row['shots']}, seed {row['seed']}"
    return f"{what}: {100 * row['test_accuracy']:.2f} % in {row['train_seconds']} s"


def _machine() -> str:
    from tunesmith.config.machine import describe_machine

    return f"{describe_machine()}; {platform.platform()}"


if __name__ == "__main__":
    main()
