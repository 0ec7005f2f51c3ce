"""Every kind of tuning on Banking77 with 30 examples a class: quality, memory and time in one table.

python benchmarks/adapters.py --data DATA --encoder FOLDER [--out benchmarks/results] [--only NAME] [--shots 30]
  [KEY=VALUE ...]
DATA and FOLDER as for banking77.py. Learning rates and everything else are the tool's own defaults; the head starts
at a linear probe, 8 epochs, batch 16. Prefix tuning, which an encoder cannot have, runs on the embedded decoder, beside
LoRA on it. Writes adapters.json, one row a kind, and prints the table.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

from banking77 import BASE, MINILM, Setting, train

from tunesmith.config.machine import describe_machine

SHARED = (
    "method.type=classify",
    "method.pooling=mean",
    "method.head_init=probe",
    "train.batch_size=16",
    "train.epochs=8",
)
KINDS: dict[str, tuple[str, ...]] = {
    "full": ("method.tuning=full",),
    "full, embeddings frozen": ("method.tuning=full", "method.freeze.embeddings=true"),
    "LoRA": ("method.tuning=lora",),
    "rsLoRA": ("method.tuning=lora", "method.lora.rslora=true"),
    "DoRA": ("method.tuning=lora", "method.lora.dora=true"),
    "PiSSA": ("method.tuning=lora", "method.lora.init=pissa"),
    "OLoRA": ("method.tuning=lora", "method.lora.init=olora"),
    "LoHa": ("method.tuning=loha",),
    "(IA)3": ("method.tuning=ia3",),
    "VeRA": ("method.tuning=vera",),
    "prompt tuning": ("method.tuning=prompt",),
    "LoRA, embedded decoder": ("method.tuning=lora",),
    "prefix tuning, embedded decoder": ("method.tuning=prefix",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", default="", help="run only kinds whose name begins so")
    parser.add_argument("--shots", type=int, default=30)
    parser.add_argument("overrides", nargs="*", help="of every run, such as train.threads=1")
    args = parser.parse_args()
    target = args.out / "adapters.json"
    found: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {"rows": []}
    for kind in (k for k in KINDS if k.startswith(args.only)):
        model = BASE if kind.endswith("embedded decoder") else MINILM
        setting = Setting("adapter", model, kind, args.shots, 1, (*SHARED, *KINDS[kind], *args.overrides))
        report = train(setting, 0, args.data, args.encoder)
        rows = [r for r in found["rows"] if (r["kind"], r["shots"]) != (kind, args.shots)]
        found = {
            "rows": [*rows, row_of(kind, args.shots, report)],
            "overrides": args.overrides,
            "machine": describe_machine(),
            "date": date.today().isoformat(),
        }
        args.out.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found["rows"][-1]), flush=True)
    print(table(found["rows"]))


def row_of(kind: str, shots: int, report: dict[str, Any]) -> dict[str, Any]:
    systems = {s["name"]: s["metrics"]["accuracy"] for s in report["systems"]}
    return {
        "kind": kind,
        "shots": shots,
        "trainable": report["model"]["trainable"],
        "probe_accuracy": systems["base"]["value"],
        "test_accuracy": systems["tuned"]["value"],
        "low": systems["tuned"]["low"],
        "high": systems["tuned"]["high"],
        "train_seconds": round(report["cost"]["seconds"]["train"], 1),
        "peak_memory_gb": round(report["cost"]["peak_memory_bytes"] / 1e9, 2),
        "saved_mb": round(report["saved_bytes"] / 1e6, 2),
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| tuning | trained weights | accuracy (95 % interval) | seconds | peak memory | saved |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        interval = f"{100 * r['low']:.1f} to {100 * r['high']:.1f}"
        lines.append(
            f"| {r['kind']} | {r['trainable']:,} | {100 * r['test_accuracy']:.1f} % ({interval}) "
            f"| {r['train_seconds']:.0f} | {r['peak_memory_gb']:.2f} GB | {r['saved_mb']:.1f} MB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
