"""Accuracy on Banking77 of a small encoder's classifier that was trained on all rows, beside transformers' Trainer.

python benchmarks/encoder_accuracy.py --data DATA --encoder FOLDER [--seeds 3] [--epochs 6] [--threads 2]
  [--systems ours,ours-wide,trainer-weights,trainer-autocast] [--dtype bfloat16|float32]
  [--out benchmarks/results/encoder_accuracy.json]
DATA holds banking77/train.csv and test.csv. Systems as in encoder.py; a seed is that of the order of rows, of dropout
and of the head. Same ids, epochs, batch, rate, cosine, warm-up, smoothing of labels, decay and clipping for all; the
last weights score the test rows once. What differs: the Trainer groups rows by length, and trainer-weights keeps
weights and AdamW's state in the dtype alone, where ours has all bits of float32 masters (ours-wide: and
float32 moments, train.optimizer_state=float32).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from campaign import compared
from encoder import BATCH, RATE, arguments, peer, surroundings
from speed_data import freeze
from speed_page import accuracy_table

from tunesmith.config.run import Run
from tunesmith.types import TokenRow, silent
from tunesmith.workflow.prepare import absolute, prepare

SMOOTHING, WARMUP, DECAY = 0.1, 0.1, 0.01


def main() -> None:
    parser = arguments(__doc__, "ours,ours-wide,trainer-weights,trainer-autocast", "encoder_accuracy")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    args.workloads, args.repeats = ",".join(f"seed-{seed}" for seed in range(args.seeds)), 1
    found = compared(args, lambda name, folder: ready(name, folder, args), run, {"epochs": args.epochs})
    print(accuracy_table(found))


def settings(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    source = args.data / "banking77"
    return {
        "output": str(folder),
        "data": {
            "train": [str(source / "train.csv")],
            "test": [str(source / "test.csv")],
            "validation_fraction": 0,
        },
        "model": {"base": str(args.encoder), "dtype": args.dtype},
        "method": {"type": "classify", "tuning": "full", "label_smoothing": SMOOTHING},
        "train": {
            "batch_size": BATCH,
            "epochs": args.epochs,
            "learning_rate": RATE,
            "schedule": "cosine",
            "warmup_fraction": WARMUP,
            "weight_decay": DECAY,
            "final_lr_fraction": 0,
            "save_every": 1_000_000,
            "threads": args.threads,
        },
        "evaluate": {"forgetting": [], "few_shot": 0},
    }


def ready(name: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    recipe = settings(folder, args) | {"name": "ours", "seed": int(name.removeprefix("seed-"))}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # which is YAML too
    (folder / "prepared").mkdir()
    rows = prepare(absolute(Run.model_validate(recipe)), folder / "prepared", silent).rows
    steps = args.epochs * -(-len(rows["train"]) // BATCH)
    files = {part: frozen(rows[part], folder / part) for part in ("train", "test")}
    return {"folder": folder, "seed": recipe["seed"], "steps": steps, **files}


def frozen(rows: Sequence[TokenRow], target: Path) -> tuple[str, str]:
    """Files of ids and of labels."""
    np.save(f"{target}-labels.npy", np.concatenate([row.target for row in rows if row.target is not None]))
    return str(freeze(rows, Path(f"{target}.npz"))), f"{target}-labels.npy"


def run(system: str, ready: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    folder: Path = ready["folder"]
    environment = surroundings(args)
    started = time.monotonic()
    if system.startswith("ours"):
        command = [sys.executable, "-m", "tunesmith.cli.main", "train", str(folder / "recipe.yaml")]
        wide = ["train.optimizer_state=float32"] if system == "ours-wide" else []
        subprocess.run([*command, "--quiet", "--force", *wide], check=True, env=environment)
        report = json.loads((folder / "ours" / "report" / "metrics.json").read_text())
        accuracy = next(s for s in report["systems"] if s["name"] == "tuned")["metrics"]["accuracy"]["value"]
        seconds = report["cost"]["seconds"]["train"]
    else:
        spec = {"micro": BATCH, "frozen": False, "epochs": args.epochs, "seed": ready["seed"]}
        spec |= {"schedule": "cosine", "warmup": round(WARMUP * ready["steps"])}
        spec |= {"smoothing": SMOOTHING, "decay": DECAY}
        spec |= dict(zip(("ids", "labels"), ready["train"], strict=True))
        spec |= dict(zip(("test_ids", "test_labels"), ready["test"], strict=True))
        command = peer(system.partition("-")[2], folder, args, spec)
        done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
        told = json.loads(done.stdout.splitlines()[-1])
        accuracy, seconds = told["accuracy"], sum(step["seconds"] for step in told["steps"])
    return {"test_accuracy": accuracy, "train_seconds": seconds, "wall_seconds": time.monotonic() - started}


if __name__ == "__main__":
    main()
