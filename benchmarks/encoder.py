"""Training speed and memory of a classifier on a small encoder, beside transformers' Trainer.

python benchmarks/encoder.py --data DATA --encoder FOLDER [--rows 640] [--repeats 5] [--threads 2]
  [--workloads full,...] [--systems ours,ours-plain,trainer-weights,...] [--dtype bfloat16|float32]
  [--out benchmarks/results/encoder.json]
DATA holds banking77/train.csv with columns text, category; FOLDER a sentence encoder such as all-MiniLM-L6-v2. Systems:
ours, ours-plain (TUNESMITH_NATIVE=0), and the Trainer: trainer-weights (weights in the dtype, by default what the
machine multiplies fastest) and trainer-autocast (float32 weights under bfloat16 autocast), both with rows grouped by
length, trainer-default (autocast, rows in their order); -16 behind a name: micro-batches of 16 rows, the step stays 32.
Same rows, ids, dropout, learning rate and clipping for all. Runs, warm-up and columns as in speed.py; tokens are those
of rows, no padding.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from campaign import compared, fastest, numerics
from speed import LEAN, measured, products_on, table, timed
from speed_data import freeze, prepared
from transformers import AutoConfig

from tunesmith.types import TokenRow

BATCH = 32
RATE = 2e-4
WORKLOADS = {"full": False, "embeddings-frozen": True}
"""Are the embeddings frozen?"""


def main() -> None:
    parser = arguments(__doc__, "ours,trainer-weights,trainer-autocast,trainer-default", "encoder")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    args = parser.parse_args()
    size = {"rows": args.rows}
    print(table(compared(args, lambda name, folder: prepare(WORKLOADS[name], folder, args), run, size)))


def arguments(doc: str | None, systems: str, results: str) -> argparse.ArgumentParser:
    """Of comparisons on Banking77 rows. doc: of the script."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--systems", default=systems)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default=fastest())
    parser.add_argument("--out", type=Path, default=Path(f"benchmarks/results/{results}.json"))
    return parser


def prepare(frozen: bool, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    recipe = settings(frozen, rows_file(folder, args), args)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    rows = prepared(recipe, folder)[1]
    targets = [row.target for row in rows if row.target is not None]
    np.save(folder / "labels.npy", np.concatenate(targets))
    return {
        "folder": folder,
        "frozen": frozen,
        "ids": freeze(rows, folder / "rows.npz"),
        "device": "cpu",
        "limit": limit(rows, AutoConfig.from_pretrained(args.encoder), args.dtype),
        "tokens": sum(r.num_tokens for r in rows),
    }


def rows_file(folder: Path, args: argparse.Namespace) -> Path:
    """The first rows of a seeded order: the file itself is sorted by class."""
    with (args.data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        lines = [json.dumps({"text": r["text"], "label": r["category"]}) for r in csv.DictReader(file)]
    random.Random(0).shuffle(lines)
    target: Path = folder / "rows.jsonl"
    target.write_text("\n".join(lines[: args.rows]) + "\n", encoding="utf-8")
    return target


def settings(frozen: bool, rows: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The recipe of ours; peers get the same numbers."""
    return {
        "name": "speed",
        "output": str(rows.parent),
        "data": {"train": [str(rows)], "validation_fraction": 0, "test_fraction": 0},
        "model": {"base": str(args.encoder), "dtype": args.dtype},
        "method": {"type": "classify", "tuning": "full", "freeze": {"embeddings": frozen}},
        "train": {
            "batch_size": BATCH,
            "epochs": 1,
            "order": "given",
            "learning_rate": RATE,
            "schedule": "constant",
            "warmup_fraction": 0,
            "weight_decay": 0,
            "save_every": 1_000_000,
            "threads": args.threads,
        },
        "evaluate": {"forgetting": [], "few_shot": 0},
    }


def run(system: str, prepared: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    folder: Path = prepared["folder"]
    name, _, variant = system.partition("-")
    environment = surroundings(args)
    if name == "ours":
        environment["TUNESMITH_NATIVE"] = "0" if variant == "plain" else "1"
        command = [sys.executable, "-m", "tunesmith.cli.main", "train", str(folder / "recipe.yaml")]
        words = numerics("full", args.dtype, False, LEAN)
        return {"numerics": words} | measured(system, [*command, "--quiet", "--force"], environment, prepared)
    kind, _, micro = variant.partition("-")
    more = {"epochs": 1, "schedule": "constant", "warmup": 0, "smoothing": 0.0, "decay": 0.0, "seed": 0}
    more |= {"frozen": prepared["frozen"], "micro": int(micro or BATCH)}
    files = {"ids": str(prepared["ids"]), "labels": str(folder / "labels.npy")}
    command = peer(kind, folder, args, {**more, **files})
    words = numerics("full", args.dtype, kind != "weights", "bf16 alone")
    return {"numerics": words} | measured(system, command, environment, prepared)


def surroundings(args: argparse.Namespace) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "CI": "1", "OMP_NUM_THREADS": str(args.threads)}


def peer(variant: str, folder: Path, args: argparse.Namespace, more: dict[str, Any]) -> list[str]:
    """The command of a run of encoder_peers.py. more: of its SPEC, what this variant does not say."""
    spec = {
        "variant": variant,
        "batch": BATCH,
        "rate": RATE,
        "threads": args.threads,
        "model": str(args.encoder),
    }
    (folder / "spec.json").write_text(json.dumps({**spec, "dtype": args.dtype, **more}))
    return [sys.executable, str(Path(__file__).with_name("encoder_peers.py")), str(folder / "spec.json")]


def limit(rows: Sequence[TokenRow], config: Any, dtype: str) -> float:
    """Useful tokens a second if nothing but the layers' necessary products were computed, as in speed.py."""
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    tokens = round(sum(r.num_tokens for r in rows) / len(rows) * BATCH)
    shapes = ((hidden, hidden, 4), (hidden, inner, 1), (inner, hidden, 1))
    seconds = sum(
        layers * count * products_on("cpu", dtype, tokens, i, o, trained=True) for i, o, count in shapes
    )
    # Attention (7 products of a row's own square) at the speed of the layers' products.
    squares = sum(r.num_tokens**2 for r in rows) / sum(r.num_tokens for r in rows)
    speed = 2 * tokens * hidden * inner / timed("cpu", dtype, tokens, hidden, inner)
    return float(tokens / (seconds + 14 * layers * hidden * squares * tokens / speed))


if __name__ == "__main__":
    main()
