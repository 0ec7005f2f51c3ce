"""Writing and scoring beside transformers: 64 mixed prompts with up to 128 new tokens, and log-likelihoods of rows.

python benchmarks/decode.py --gsm8k train.jsonl [--layers 30] [--repeats 3] [--new 128]
  [--workloads generate,nll] [--dtype bfloat16|float32]
  [--out benchmarks/results/decode.json] [--threads 2]
Systems for `generate`: ours; transformers' `generate` on the whole batch, padded, and in batches of 16 sorted by length
(its better way); transformers' `generate_batch` (continuous batching). For `nll`: ours; transformers' forward on
batches of 8 sorted by length. Each run is a process of its own, interleaved A B B A. Random weights never write an end
token, so each prompt has a limit of its own (32, 64 or 128), given to every system that can take one, else its rows run
to the longest of their batch as they would with end tokens. Rows: workload, system, useful_tokens_per_s, peak_rss_gb,
and a hash of the tokens.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from campaign import fastest, machine, order, record
from speed_data import WORKLOADS as TRAINING
from speed_data import freeze, model_folder, prepared, rows_file, settings

SYSTEMS = {
    "generate": ["ours", "generate-64", "generate-16", "generate_batch"],
    "nll": ["ours", "forward-8"],
}
PROMPTS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--gsm8k", type=Path)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default=fastest())
    parser.add_argument("--workloads", default=",".join(SYSTEMS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/decode.json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(json.loads(Path(args.child).read_text()))
        return
    found = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    alike = {"dtype": args.dtype, "layers": args.layers, "new": args.new, "threads": args.threads}
    alike |= {"machine": machine("cpu")}
    with tempfile.TemporaryDirectory(prefix="decode-") as scratch:
        folder = Path(scratch)
        model = model_folder(folder, args.layers)
        source = rows_file(folder, args.gsm8k, "gsm8k", 256)
        recipe = settings(TRAINING["sft-full"], model, source, args.layers, args.dtype)
        rows = freeze(prepared(recipe, folder)[1], folder / "rows.npz")
        for workload in args.workloads.split(","):
            for repeat, system in order(SYSTEMS[workload], args.repeats):
                key = {"workload": workload, "system": system, "repeat": repeat, **alike}
                spec = key | {"model": str(model), "rows": str(rows)}
                (folder / "spec.json").write_text(json.dumps(spec))
                record(found, args.out, key, partial(run, folder / "spec.json", args.threads))
    print(table([row for row in found["rows"] if alike.items() <= row.items()]))


def run(spec: Path, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", str(spec)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def child(spec: dict[str, Any]) -> None:
    """One system; the second of two passes counts, the first warms up on a part."""
    torch.set_num_threads(spec["threads"])
    data = np.load(spec["rows"])
    rows = np.split(data["ids"], np.cumsum(data["lengths"])[:-1])
    weights = np.split(data["weights"], np.cumsum(data["lengths"])[:-1])
    work = OURS if spec["system"] == "ours" else PEERS
    seconds, tokens, said = work[spec["workload"]](spec, rows, weights)
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(
        json.dumps(
            {
                "useful_tokens_per_s": round(tokens / seconds, 1),
                "seconds": round(seconds, 2),
                "tokens": tokens,
            }
            | {"peak_rss_gb": round(peak, 2), "hash": digest, "load": os.getloadavg()[0]}
        )
    )


def prompts_of(
    rows: list[np.ndarray], weights: list[np.ndarray], new: int
) -> tuple[list[list[int]], list[int]]:
    """Prompts up to their first supervised token, and how many tokens each is to write."""
    prompts = [r[: int((w > 0).argmax())].tolist() for r, w in zip(rows[:PROMPTS], weights, strict=False)]
    return prompts, [new // (1, 2, 4)[i % 3] for i in range(PROMPTS)]


def ours_generate(spec: dict[str, Any], rows: Any, weights: Any) -> tuple[float, int, Any]:
    from tunesmith.generate.slots import write

    model = _ours(spec)
    prompts, limits = prompts_of(rows, weights, spec["new"])
    model.module.eval()

    def go(count: int, longest: int) -> dict[int, list[int]]:
        asked = [min(n, longest) for n in limits[:count]]
        found = write(model, prompts[:count], max_new_tokens=asked, end_ids=[], num_slots=PROMPTS)
        return {index: ids for index, ids, _ in found}

    go(8, 4)
    started = time.perf_counter()
    answers = go(PROMPTS, spec["new"])
    return time.perf_counter() - started, sum(limits), [answers[i] for i in range(PROMPTS)]


def ours_nll(spec: dict[str, Any], rows: Any, weights: Any) -> tuple[float, int, Any]:
    from tunesmith.core.device import pass_tokens
    from tunesmith.generate.batched import nll
    from tunesmith.types import RowRef, Segment, TokenRow

    model = _ours(spec)
    made = [
        TokenRow(RowRef("rows", i), (Segment(r, w),))
        for i, (r, w) in enumerate(zip(rows, weights, strict=True))
    ]
    nll(model, made[:8], pass_tokens(model.device))
    started = time.perf_counter()
    totals, _ = nll(model, made, pass_tokens(model.device))
    return time.perf_counter() - started, sum(map(len, rows)), [round(float(t), 0) for t in totals]


def _ours(spec: dict[str, Any]) -> Any:
    from tunesmith.config.run import ModelConfig
    from tunesmith.models.load import load_model

    return load_model(ModelConfig(base=spec["model"], dtype=spec["dtype"])).model


def _stock(spec: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        spec["model"], dtype=getattr(torch, spec["dtype"]), attn_implementation="sdpa"
    ).eval()
    model.generation_config.eos_token_id = None
    return model


def peer_generate(spec: dict[str, Any], rows: Any, weights: Any) -> tuple[float, int, Any]:
    model = _stock(spec)
    prompts, limits = prompts_of(rows, weights, spec["new"])
    if spec["system"] == "generate_batch":
        return _generate_batch(model, prompts, limits)
    size = int(spec["system"].rpartition("-")[2])
    order = (
        sorted(range(PROMPTS), key=lambda i: (limits[i], len(prompts[i])))
        if size < PROMPTS
        else range(PROMPTS)
    )

    def go(indices: list[int], longest: int) -> dict[int, list[int]]:
        width = max(len(prompts[i]) for i in indices)
        ids = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in indices])
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in indices])
        with torch.no_grad():
            out = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=longest, do_sample=False, pad_token_id=0
            )
        return {i: row[width : width + limits[i]].tolist() for i, row in zip(indices, out, strict=True)}

    go(list(order)[:8], 4)
    started = time.perf_counter()
    answers: dict[int, list[int]] = {}
    for start in range(0, PROMPTS, size):
        indices = list(order)[start : start + size]
        answers |= go(indices, max(limits[i] for i in indices))
    return time.perf_counter() - started, sum(limits), [answers[i] for i in range(PROMPTS)]


def _generate_batch(model: Any, prompts: list[list[int]], limits: list[int]) -> tuple[float, int, Any]:
    """One manager, each request with its own limit; a tenth of the memory for its cache in place of six."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    config = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=-1)
    manager = model.init_continuous_batching(config, ContinuousBatchingConfig(max_memory_percent=0.1))
    manager.start()

    def go(count: int, longest: int) -> dict[int, list[int]]:
        names = {
            manager.add_request(prompts[i], max_new_tokens=min(limits[i], longest)): i for i in range(count)
        }
        found: dict[int, list[int]] = {}
        while len(found) < count:
            result = manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                found[names[result.request_id]] = result.generated_tokens
        return found

    go(4, 4)
    started = time.perf_counter()
    answers = go(PROMPTS, 10**6)
    seconds = time.perf_counter() - started
    manager.stop()
    return seconds, sum(limits), [answers[i] for i in range(PROMPTS)]


def peer_nll(spec: dict[str, Any], rows: Any, weights: Any) -> tuple[float, int, Any]:
    model = _stock(spec)
    size = int(spec["system"].rpartition("-")[2])
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))

    def go(indices: list[int]) -> dict[int, float]:
        width = max(len(rows[i]) for i in indices)
        ids, mask, labels = torch.zeros(3, len(indices), width, dtype=torch.long)
        labels -= 100
        for place, i in enumerate(indices):
            n = len(rows[i])
            ids[place, :n], mask[place, :n] = torch.from_numpy(rows[i]), 1
            labels[place, :n] = torch.where(torch.from_numpy(weights[i]) > 0, ids[place, :n], -100)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
        return dict(zip(indices, losses.sum(1).tolist(), strict=True))

    go(order[:4])
    started = time.perf_counter()
    found: dict[int, float] = {}
    for start in range(0, len(order), size):
        found |= go(order[start : start + size])
    return time.perf_counter() - started, sum(map(len, rows)), [round(found[i], 0) for i in range(len(rows))]


OURS = {"generate": ours_generate, "nll": ours_nll}
PEERS = {"generate": peer_generate, "nll": peer_nll}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| workload | system | tokens/s (median, min to max) | peak memory | hash |",
        "|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((r["workload"], r["system"], r["dtype"]) for r in rows):
        mine = [r for r in rows if (r["workload"], r["system"], r["dtype"]) == key]
        speeds = [r["useful_tokens_per_s"] for r in mine]
        lines.append(
            f"| {key[0]} ({key[2]}) | {key[1]} | {statistics.median(speeds):,.0f} ({min(speeds):,.0f} to "
            f"{max(speeds):,.0f}) | {statistics.median(r['peak_rss_gb'] for r in mine):.1f} GB "
            f"| {mine[0]['hash'][:6]} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
