"""Learning from pairs beside TRL: speed and memory; the same weights, ids, pairs a step and order.

python benchmarks/preference.py --gsm8k train.jsonl [--human pairs.jsonl.gz] [--layers 30] [--pairs 24] [--repeats 1]
  [--workloads dpo-lora,dpo-full,reward-full] [--systems ours,ours-wide,trl-tuned] [--dtype bfloat16|float32]
  [--out benchmarks/results/preference.json]
A pair: the question, its answer, and as the rejected one the answer to the next question; of workloads that end in
`human` two transcripts (`chosen`, `rejected`) of --human, as hh-rlhf has them. Pairs of similar length
stand together for all systems. ours-wide: train.optimizer_state=float32. TRL tuned: weights in the dtype (by default
what the machine multiplies fastest), no checkpointing, reference log-probabilities computed once
(precompute_ref_log_probs). One row a run: workload, system, variant, numerics, pairs_per_s (of the steps after
speed.py's warm-up), reference_seconds (of all pairs, once), peak_rss_gb, process_seconds, load, losses. Before any run
the loss and the gradient of the first step are held to those of stock layers in float32; after a run of a peer its
first loss to ours.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from campaign import compared, fastest, numerics
from speed import CHILD, NUMERICS, WARM_UP
from speed_data import model_folder, prepared
from speed_gate import in_dtype

from tunesmith.config.judged import Judged
from tunesmith.config.run import Run
from tunesmith.core.batch import Batch
from tunesmith.generate.batched import completion_sums
from tunesmith.objectives.completions import REFERENCE
from tunesmith.train.build import Built, build
from tunesmith.types import TokenRow

TURN, HUMAN = "\n\nAssistant:", 6000
"""What an answer of a transcript begins with, and the most characters of both transcripts, some 1,500 tokens."""
COSINE, LOSS, FIRST_LOSS = 0.998, 1e-2, 2e-2
"""Least cosine of the first step's gradients; most that its loss a pair may differ from float32's, or what stock layers
of the same numbers are off by, where that is more; and a peer's from ours. Wider than those of single tokens
(speed_gate.py): a pair's loss is of differences of sums over a hundred tokens, or of two rewards, and what was common
to both cancels, what bfloat16 rounded does not (of 24 pairs of GSM8K the margins were off by 0.15 nats, standard
deviation, in stock layers by 0.11; no bias in either; a step has four, and a margin counts by a twentieth)."""


@dataclass(frozen=True)
class Workload:
    """method: its type in a recipe. batch: pairs a step. human: people's own pairs."""

    method: str
    tuning: str
    batch: int = 4
    human: bool = False


WORKLOADS = {
    "dpo-lora": Workload("preference", "lora"),
    "dpo-full": Workload("preference", "full"),
    "reward-full": Workload("reward", "full"),
    "dpo-lora-human": Workload("preference", "lora", human=True),
    "reward-full-human": Workload("reward", "full", human=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--gsm8k", type=Path, required=True)
    parser.add_argument("--human", type=Path)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--systems", default="ours,trl-tuned")
    parser.add_argument("--workloads", default=",".join(n for n, w in WORKLOADS.items() if not w.human))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default=fastest())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/preference.json"))
    args = parser.parse_args()
    size = {"layers": args.layers, "pairs": args.pairs}
    print(table(compared(args, lambda name, folder: made(WORKLOADS[name], folder, args), run, size)))


def made(workload: Workload, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    if args.pairs <= WARM_UP * workload.batch or args.pairs % workload.batch:
        raise SystemExit(f"--pairs {args.pairs}: more than {WARM_UP} steps of {workload.batch}, whole ones")
    model = model_folder(folder, args.layers)
    if workload.human and args.human is None:
        raise SystemExit("--human FILE: the pairs of this workload")
    source = human_pairs(args.human, args.pairs) if workload.human else made_pairs(args.gsm8k, args.pairs)
    pairs = pairs_file(folder / "pairs.jsonl", source, workload.batch)
    recipe = settings(workload, model, pairs, folder)
    recipe["train"]["threads"] = args.threads
    recipe["model"]["dtype"] = args.dtype
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    resolved, rows = prepared(recipe, folder)
    found, head = gate(resolved, rows[: workload.batch])
    return {
        "folder": folder,
        "workload": workload,
        "model": model,
        "gate": found,
        "ids": freeze(rows, head, folder / "pairs.npz"),
    }


def made_pairs(gsm8k: Path, count: int) -> list[dict[str, str]]:
    with gsm8k.open(encoding="utf-8") as file:
        source = [json.loads(line) for line in file][:count]
    return [
        {"prompt": row["question"], "chosen": row["answer"], "rejected": source[(i + 1) % count]["answer"]}
        for i, row in enumerate(source)
    ]


def human_pairs(file: Path, count: int) -> list[dict[str, str]]:
    """The first whose transcripts differ in their last answer alone and have at most HUMAN characters."""
    found = []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            (begin, _, chosen), (other, _, rejected) = (
                row[kind].rpartition(TURN) for kind in ("chosen", "rejected")
            )
            if begin == other and chosen != rejected and len(row["chosen"]) + len(row["rejected"]) <= HUMAN:
                found.append({"prompt": begin, "chosen": chosen.strip(), "rejected": rejected.strip()})
    return found[:count]


def pairs_file(target: Path, pairs: list[dict[str, str]], batch: int) -> Path:
    """Steps of pairs of similar length, the steps in random order."""
    pairs.sort(key=lambda pair: len(pair["prompt"]) + max(len(pair["chosen"]), len(pair["rejected"])))
    steps = [pairs[at : at + batch] for at in range(0, len(pairs), batch)]
    random.Random(0).shuffle(steps)
    target.write_text("".join(json.dumps(pair) + "\n" for step in steps for pair in step), encoding="utf-8")
    return target


def settings(workload: Workload, model: Path, pairs: Path, folder: Path) -> dict[str, Any]:
    """The recipe of ours; peers get the same numbers."""
    method: dict[str, Any] = {"type": workload.method, "tuning": workload.tuning}
    if workload.tuning == "lora":
        method["lora"] = {"rank": 16, "alpha": 32}
    return {
        "name": "preference",
        "output": str(folder),
        "data": {"train": [str(pairs)], "validation_fraction": 0, "test_fraction": 0},
        "model": {"base": str(model)},
        "method": method,
        "train": {
            "batch_size": workload.batch,
            "epochs": 1,
            "order": "given",
            "learning_rate": 1e-5,
            "schedule": "constant",
            "warmup_fraction": 0,
            "weight_decay": 0,
            "save_every": 1_000_000,
        },
        "evaluate": {"forgetting": [], "few_shot": 0},
    }


def freeze(rows: Sequence[TokenRow], head: torch.Tensor | None, target: Path) -> Path:
    """Of each pair prompt, chosen and rejected: ids, flat, and lengths; head: a reward's first weights."""
    parts = [segment.ids for row in rows for segment in row.segments]
    assert len(parts) == 3 * len(rows)
    more: dict[str, Any] = {} if head is None else {"head": head.float().numpy()}
    np.savez(target, ids=np.concatenate(parts), lengths=[len(part) for part in parts], **more)
    return target


# Before speed, correctness --------------------------------------------------------------------------------


def gate(run: Run, rows: Sequence[TokenRow]) -> tuple[dict[str, float], torch.Tensor | None]:
    """cosine: of the whole gradients; loss: difference a pair; and the head's first weights. Raises SystemExit beyond
    the bounds."""
    exact_loss, exact, rows, head = first_step(run, rows, dtype="float32", path="padded")

    def found(path: str) -> dict[str, float]:
        loss, gradient, _, _ = first_step(run, rows, dtype=run.model.dtype, path=path)
        alike = torch.nn.functional.cosine_similarity(gradient, exact, dim=0).item()
        return {"cosine": alike, "loss": abs(loss - exact_loss)}

    ours = found("layout")
    if ours["cosine"] >= COSINE and ours["loss"] <= LOSS:
        return ours, head
    stock = found("padded")
    if ours["cosine"] < min(COSINE, stock["cosine"]) or ours["loss"] > max(LOSS, stock["loss"]):
        raise SystemExit(f"the first step is not that of stock layers in float32: {ours}; theirs: {stock}")
    return {**ours, **{f"stock {name}": value for name, value in stock.items()}}, head


def first_step(
    run: Run, rows: Sequence[TokenRow], *, dtype: str, path: str
) -> tuple[float, torch.Tensor, list[TokenRow], torch.Tensor | None]:
    """Of a resolved run: the loss a pair, the gradient of everything that trains, flat; the rows with their reference,
    which this model says where they have none; the head's weights."""
    built = build(in_dtype(run, dtype, path), rows, {})
    rows = with_reference(run, built, rows)
    built.loaded.model.module.train()
    (total,) = built.objective.loss(built.loaded.model, Batch.from_rows(rows)).terms.values()
    total.backward()
    optimizer = built.state.optimizer
    gradients = [optimizer.gradient(name) for name in sorted(optimizer.parameters)]
    flat = torch.cat([g.flatten().double() for g in gradients if g is not None])
    head = dict(built.loaded.model.module.named_parameters()).get("score.weight")
    return total.item() / len(rows), flat, rows, None if head is None else head.detach()


def with_reference(run: Run, built: Built, rows: Sequence[TokenRow]) -> list[TokenRow]:
    if not isinstance(run.method, Judged) or REFERENCE in rows[0].given:
        return list(rows)
    found = completion_sums(built.loaded.model, rows, 4096)
    return [replace(row, given={**row.given, REFERENCE: sums}) for row, sums in zip(rows, found, strict=True)]


# Runs -----------------------------------------------------------------------------------------------------


def run(system: str, ready: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    folder, workload = ready["folder"], ready["workload"]
    name, _, variant = system.partition("-")
    if name == "ours":
        command = ["-m", "tunesmith.cli.main", "train", str(folder / "recipe.yaml"), "--quiet", "--force"]
        command += ["train.optimizer_state=float32"] if variant == "wide" else []
    else:
        spec = {"model": str(ready["model"]), "ids": str(ready["ids"]), "threads": args.threads}
        spec |= {"method": workload.method, "tuning": workload.tuning, "batch": workload.batch}
        spec |= {"dtype": args.dtype}
        (folder / "spec.json").write_text(json.dumps(spec))
        command = [str(Path(__file__).with_name("preference_peers.py")), str(folder / "spec.json")]
    said, seconds = alone([sys.executable, *command], args.threads)
    steps, reference = ours(folder) if name == "ours" else peer(said["said"])
    assert len(steps) * workload.batch == args.pairs, "every system trains on every pair"
    first = steps[0]["loss"]
    if abs(first - ready.setdefault("first", first)) > FIRST_LOSS:
        raise SystemExit(f"the first loss of {system} is {first:.4f}, not {ready['first']:.4f}")
    counted = steps[WARM_UP:]
    return {
        "variant": variant or "as installed",
        "numerics": numerics(workload.tuning, args.dtype, False, NUMERICS[system]),
        "pairs_per_s": round(workload.batch * len(counted) / sum(s["seconds"] for s in counted), 4),
        "reference_seconds": round(reference, 1),
        "peak_rss_gb": round(said["peak"] / 1e9, 2),
        "process_seconds": round(seconds, 1),
        "load": os.getloadavg()[0],
        "losses": [round(s["loss"], 4) for s in steps],
    }


def alone(command: list[str], threads: int) -> tuple[dict[str, Any], float]:
    """A process of its own: what it said and its peak memory, and its seconds."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CI": "1", "OMP_NUM_THREADS": str(threads)}
    started = time.time()
    child = [sys.executable, "-c", CHILD, json.dumps(command)]
    done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    said = json.loads(done.stdout.splitlines()[-1])
    if said["status"]:
        raise SystemExit(f"{' '.join(command)} failed: {said['said'][-2000:]}")
    return said, time.time() - started


def ours(folder: Path) -> tuple[list[dict[str, float]], float]:
    """Each step, and the seconds of the reference."""
    with (folder / "preference" / "events.jsonl").open() as file:
        events = [json.loads(line) for line in file]
    steps = [
        {"seconds": e["tokens"] / e["tokens_per_second"], "loss": e["loss"]}
        for e in events
        if e["kind"] == "step"
    ]
    return steps, sum(e["seconds"] for e in events if e["kind"] == "reference")


def peer(said: str) -> tuple[list[dict[str, float]], float]:
    found = json.loads(said.splitlines()[-1])
    return found["steps"], found["reference_seconds"]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| workload | layers | system | pairs/s | reference, s | peak memory | process, s | first loss | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['workload']} | {r['layers']} | {r['system']} | {r['pairs_per_s']:.2f} | {r['reference_seconds']:.1f} "
        f"| {r['peak_rss_gb']:.1f} GB | {r['process_seconds']:.0f} | {r['losses'][0]:.4f} | {r['load']:.1f} |"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
