"""Training speed and memory beside peers: same weights, ids and rows a step, each run a process of its own.

python benchmarks/speed.py --gsm8k train.jsonl [--layers 30] [--rows 96] [--repeats 5] [--workloads sft-lora,...]
  [--systems ours,trainer-tuned,...] [--out benchmarks/results/speed.json] [--threads 2]
  [--dtype bfloat16|float32] [--device cuda --shape 1b --layers 16 --batch 64]
Systems: ours, ours-wide (train.optimizer_state=float32), ours-plain (TUNESMITH_NATIVE=0), trainer-tuned,
trainer-default, trl-tuned, trl-default, trl-packed (a GPU with flash-attn), litgpt-tuned (LoRA on all layers, a CPU;
--litgpt is the Python of its environment). On a GPU, memory is that of the GPU, and peers use Liger's kernels where
they are installed. All compute in the numbers that the machine multiplies fastest, or in --dtype. Runs are
interleaved A B B A; a run that the file already has is not repeated, so a campaign can be stopped and gone on with.
The first three steps are warm-up and not counted. One row a run: workload, system, variant, numerics,
useful_tokens_per_s, peak_rss_gb, fraction_of_limit, losses, at (seconds since the process began, when each step was
done). The limit: the products that a step cannot do without, at these shapes, measured on the same machine before the
first run (necessary operations alone: no padding, no recomputation). Before any run the gradient of the first step is
held to that of stock layers in float32 (speed_gate.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from campaign import compared, fastest, numerics
from speed_data import SHAPES, WORKLOADS, Workload, freeze, model_folder, prepared, rows_file, settings
from speed_gate import gate

from tunesmith.core.device import finish
from tunesmith.core.native.sums import Sum, fill
from tunesmith.types import TokenRow

WARM_UP = 3
LEAN = "bf16 and the 16 bits that fp32 has more, moments bf16"
NUMERICS = {
    "ours": LEAN,
    "ours-plain": LEAN,
    "ours-wide": "bf16, fp32 masters",
    "trainer-tuned": "bf16 alone",
    "trl-tuned": "bf16 alone",
    "litgpt-tuned": "all in the dtype",
}
"""What weights and AdamW's state are kept in: with full tuning in bfloat16; LitGPT's adapters."""
CHILD = """
import json, os, resource, subprocess, sys
done = subprocess.run(json.loads(sys.argv[1]), stdout=subprocess.PIPE, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"status": done.returncode, "said": done.stdout, "peak": peak * 1024}))
"""
"""Between us and a run, so that its peak memory is that of its own tree of processes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--gsm8k", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--systems", default="ours,trainer-tuned,trl-tuned,trainer-default,trl-default")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"])
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--batch", type=int, help="rows a step, in place of the workload's own")
    parser.add_argument(
        "--litgpt", type=Path, default=Path(".venv-litgpt/bin/python"), help="for litgpt-tuned"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"))
    args = parser.parse_args()
    args.dtype = args.dtype or fastest(args.device)
    size = {
        "layers": args.layers,
        "rows": args.rows,
        **({} if args.device == "cpu" else {"device": args.device, "shape": args.shape}),
        **({} if args.batch is None else {"batch": args.batch}),
    }

    def ready(name: str, folder: Path) -> dict[str, Any]:
        workload = WORKLOADS[name]
        return made(replace(workload, batch=args.batch or workload.batch), folder, args)

    print(table(compared(args, ready, run, size, args.device)))


def made(workload: Workload, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    if args.rows * workload.epochs <= WARM_UP * workload.batch:
        raise SystemExit(
            f"--rows {args.rows} are no more than {WARM_UP} steps of {workload.batch}, which do not count"
        )
    model = model_folder(folder, args.layers, args.shape)
    recipe = settings(
        workload,
        model,
        rows_file(folder, args.gsm8k, workload.lengths, args.rows),
        args.layers,
        args.dtype,
    )
    recipe["train"]["threads"] = args.threads
    recipe["model"]["device"] = args.device
    recipe["output"] = str(folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    resolved, rows = prepared(recipe, folder)
    return {
        "folder": folder,
        "gate": gate(resolved, rows[: workload.batch]),
        "workload": workload,
        "device": args.device,
        "model": model,
        "recipe": folder / "recipe.yaml",
        "ids": freeze(rows, folder / f"{workload.name}.npz"),
        "limit": limit(workload, rows, args),
        "tokens": workload.epochs * sum(r.num_tokens for r in rows),
    }


def run(system: str, ready: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    folder: Path = ready["folder"]
    name, _, variant = system.partition("-")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CI": "1", "OMP_NUM_THREADS": str(args.threads)}
    # As their examples have it; TRL casts to bfloat16 by default also where that is slow.
    autocast = variant == "default" and (args.dtype == "bfloat16" or name == "trl")
    if name == "ours":
        environment["TUNESMITH_NATIVE"] = "0" if variant == "plain" else "1"
        command = [
            sys.executable,
            "-m",
            "tunesmith.cli.main",
            "train",
            str(ready["recipe"]),
            "--quiet",
            "--force",
            *(["train.optimizer_state=float32"] if variant == "wide" else []),
        ]
    else:
        spec: dict[str, Any] = {k: str(ready[k]) for k in ("model", "ids")}
        spec |= {
            "system": name,
            "variant": variant,
            "tuning": ready["workload"].tuning,
            "batch": ready["workload"].batch,
            "epochs": ready["workload"].epochs,
            "layers": list(ready["workload"].adapted(args.layers)),
            "threads": args.threads,
            "device": args.device,
            "dtype": args.dtype,
            "autocast": autocast,
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        python, script = (
            (args.litgpt, "speed_litgpt.py") if name == "litgpt" else (sys.executable, "speed_peers.py")
        )
        command = [str(python), str(Path(__file__).with_name(script)), str(folder / "spec.json")]
    # On a GPU the default is as on a CPU with `wide`.
    kept = NUMERICS.get("ours-wide" if system == "ours" and args.device == "cuda" else system, "")
    words = kept if name == "litgpt" else numerics(ready["workload"].tuning, args.dtype, autocast, kept)
    return {"numerics": words} | measured(system, command, environment, ready)


def measured(
    system: str, command: list[str], environment: dict[str, str], ready: dict[str, Any]
) -> dict[str, Any]:
    """One run of a system, and what its steps after the warm-up say."""
    name, _, variant = system.partition("-")
    started = time.time()
    child = [sys.executable, "-c", CHILD, json.dumps(command)]
    done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    wall = time.time() - started
    said = json.loads(done.stdout.splitlines()[-1])
    if said["status"]:
        raise SystemExit(f"{system} failed: {said['said'][-2000:]}")
    peak = said["peak"]
    if name == "ours":
        steps, before, held = ours(ready["folder"])
    else:
        told = json.loads(said["said"].splitlines()[-1])
        steps, before, held = told["steps"], 0.0, told.get("held")
    if ready["device"] != "cpu":
        peak = held
    assert sum(s["tokens"] for s in steps) == ready["tokens"], "every system trains on every token"
    counted = steps[WARM_UP:]
    speed = sum(s["tokens"] for s in counted) / (before + sum(s["seconds"] for s in counted))
    return {
        "variant": variant or "as installed",
        "useful_tokens_per_s": round(speed, 1),
        "peak_rss_gb": round(peak / 1e9, 2),
        "fraction_of_limit": round(speed / ready["limit"], 3),
        "limit_tokens_per_s": round(ready["limit"], 1),
        "process_seconds": round(wall, 1),
        "load": os.getloadavg()[0],
        "losses": [round(s["loss"], 4) for s in steps],
        "at": [round(s["at"] - started, 1) for s in steps],
    }


def ours(folder: Path) -> tuple[list[dict[str, float]], float, int]:
    """Each step, the seconds that frozen layers took before the first, which count, and the most bytes that were held
    after a step."""
    with (folder / "speed" / "events.jsonl").open() as file:
        events = [json.loads(line) for line in file]
    steps = [
        {
            "seconds": e["tokens"] / e["tokens_per_second"],
            "tokens": e["tokens"],
            "loss": e["loss"],
            "at": e["time"],
        }
        for e in events
        if e["kind"] == "step"
    ]
    held = max(e["memory_bytes"] for e in events if e["kind"] == "step")
    return steps, sum(e["seconds"] for e in events if e["kind"] == "frozen"), held


def limit(workload: Workload, rows: Sequence[TokenRow], args: argparse.Namespace) -> float:
    """Useful tokens a second if nothing but the necessary products were computed, each at the speed measured here."""
    layers: int = args.layers
    shape, products = SHAPES[args.shape], partial(products_on, args.device, args.dtype)
    hidden, inner, vocabulary = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    keys = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    tokens = round(sum(r.num_tokens for r in rows) / len(rows) * workload.batch)
    share = sum(r.num_supervised for r in rows) / sum(r.num_tokens for r in rows)
    seconds = 0.0
    trained = len(workload.adapted(layers))
    for width_in, width_out, count in (
        (hidden, hidden, 2),
        (hidden, keys, 2),
        (hidden, inner, 2),
        (inner, hidden, 1),
    ):
        seconds += trained * count * products(tokens, width_in, width_out, workload.tuning == "full")
        # What is below runs once for all epochs.
        seconds += (
            (layers - trained)
            * count
            * timed(args.device, args.dtype, tokens, width_in, width_out)
            / workload.epochs
        )
    seconds += products(round(tokens * share), hidden, vocabulary, workload.tuning == "full")
    # Attention (7 products of a row's own square, the lower half of it) at the speed of the layers' products.
    squares = sum(r.num_tokens**2 for r in rows) / sum(r.num_tokens for r in rows)
    speed = 2 * tokens * hidden * inner / timed(args.device, args.dtype, tokens, hidden, inner)
    products_of_attention = 7 * trained + 2 * (layers - trained) / workload.epochs
    seconds += products_of_attention * hidden * squares * tokens / speed
    return tokens / seconds


def products_on(device: str, dtype: str, tokens: int, width_in: int, width_out: int, trained: bool) -> float:
    """Forward, gradient of the states and, where the weight is trained, of the weight."""
    return (
        timed(device, dtype, tokens, width_in, width_out)
        + timed(device, dtype, tokens, width_out, width_in)
        + (timed(device, dtype, width_out, tokens, width_in) if trained else 0.0)
    )


def timed(device: str, dtype: str, rows: int, inner: int, columns: int) -> float:
    """Seconds of one product, by PyTorch or by our own kernel, whichever is faster; the medians of some."""
    numbers: dict[str, Any] = {"dtype": getattr(torch, dtype), "device": device}
    a, b = torch.randn(rows, inner).to(**numbers), torch.randn(columns, inner).to(**numbers)
    out = torch.empty(rows, columns, **numbers)
    found = []
    for product in (partial(torch.mm, a, b.t(), out=out), partial(fill, Sum(out, [(a, b.t())]))):
        seconds = []
        for _ in range(9):
            finish(a.device)
            started = time.perf_counter()
            product()
            finish(a.device)
            seconds.append(time.perf_counter() - started)
        found.append(statistics.median(seconds[2:]))
    return min(found)


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| workload | system | tokens/s (median, min to max) | of the limit | peak memory | first loss | runs |",
        "|---|---|---|---|---|---|---|",
    ]
    for workload, system in dict.fromkeys((r["workload"], r["system"]) for r in rows):
        mine = [r for r in rows if (r["workload"], r["system"]) == (workload, system)]
        speeds = [r["useful_tokens_per_s"] for r in mine]
        lines.append(
            f"| {workload} | {system} | {statistics.median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f}) "
            f"| {100 * statistics.median(r['fraction_of_limit'] for r in mine):.0f} % "
            f"| {statistics.median(r['peak_rss_gb'] for r in mine):.1f} GB | {mine[0]['losses'][0]:.3f} | {len(mine)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
