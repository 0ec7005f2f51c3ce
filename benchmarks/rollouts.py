"""GRPO beside TRL: speed, its parts, and memory; the same weights, prompts, samples, lengths and loss.

python benchmarks/rollouts.py --gsm8k train.jsonl [--layers 30] [--prompts 4] [--rollouts 2] [--tokens 128]
  [--repeats 1] [--workloads grpo-lora,grpo-full] [--systems ours,trl-generate,trl-static,trl-batching]
  [--dtype bfloat16|float32] [--out benchmarks/results/rollouts.json]
A prompt: questions one after another, cut so that with the template it has some 128 tokens; 8 answers to each, drawn at
temperature 1, rewarded by their length in characters; one optimizer step a rollout, KL divergence in the loss. Random
weights write the end token about once in 49,000 tokens, so nearly all answers are as long as they may be: `tokens` is
their mean length. TRL: weights in the dtype (by default what the machine multiplies fastest), no checkpointing,
micro-batches of 8 (one prompt's answers); trl-generate writes by `generate`, trl-static with its static cache,
trl-batching by continuous batching. The first rollout is warm-up and not counted. One row a run: workload, system,
numerics, samples_per_s, shares (of writing, scoring, which is the rewards, preparing, which is log-probabilities and
advantages, and training, the rest), tokens, peak_rss_gb, process_seconds, load. Before any run the loss and the
gradient of fixed answers with given advantages are held to TRL's formula on stock layers in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from campaign import compared, fastest, numerics
from preference import alone
from speed import NUMERICS
from speed_data import model_folder, prepared
from speed_gate import in_dtype
from transformers import AutoTokenizer

from tunesmith.config.run import Run
from tunesmith.core.batch import Batch
from tunesmith.objectives import policy
from tunesmith.train.build import Built, build
from tunesmith.types import Segment, TokenRow

SAMPLES, PROMPT_TOKENS, WARM_UP, BETA, CLIP = 8, 128, 1, 0.04, 0.2
COSINE, LOSS = 0.998, 5e-3
"""Least cosine of the gradients, and most that the loss may be off."""
PARTS = ("writing", "scoring", "preparing")


@dataclass(frozen=True)
class Workload:
    tuning: str


WORKLOADS = {"grpo-lora": Workload("lora"), "grpo-full": Workload("full")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--gsm8k", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--prompts", type=int, default=4, help="of a rollout")
    parser.add_argument("--rollouts", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128, help="most of an answer")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--systems", default="ours,trl-generate")
    parser.add_argument("--workloads", default="grpo-lora")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default=fastest())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rollouts.json"))
    args = parser.parse_args()
    if args.rollouts <= WARM_UP:
        raise SystemExit(f"--rollouts {args.rollouts}: more than {WARM_UP}, which does not count")
    size = {"layers": args.layers, "prompts": args.prompts, "longest": args.tokens, "rollouts": args.rollouts}
    print(table(compared(args, lambda name, folder: made(WORKLOADS[name], folder, args), run, size)))


def made(workload: Workload, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    model = model_folder(folder, args.layers)
    prompts = prompts_file(folder / "prompts.jsonl", args.gsm8k, model, args.prompts * args.rollouts)
    recipe = settings(workload, model, prompts, folder, args)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    resolved, rows = prepared(recipe, folder)
    ids = [row.segments[0].ids.tolist() for row in rows]
    (folder / "prompts.json").write_text(json.dumps(ids))
    return {"folder": folder, "workload": workload, "model": model, "gate": gate(resolved, rows[:2])}


def prompts_file(target: Path, gsm8k: Path, model: Path, count: int) -> Path:
    """Texts that have PROMPT_TOKENS tokens less some for the template."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    with gsm8k.open(encoding="utf-8") as file:
        questions = iter([json.loads(line)["question"] for line in file])
    rows = []
    for _ in range(count):
        ids: list[int] = []
        while len(ids) < PROMPT_TOKENS - 8:
            ids += tokenizer(next(questions) + " ", add_special_tokens=False)["input_ids"]
        rows.append({"prompt": tokenizer.decode(ids[: PROMPT_TOKENS - 8]).strip()})
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return target


def settings(
    workload: Workload, model: Path, prompts: Path, folder: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """The recipe of ours; peers get the same numbers."""
    method: dict[str, Any] = {
        "type": "policy",
        "algorithm": "grpo",
        "tuning": workload.tuning,
        "samples": SAMPLES,
        "max_new_tokens": args.tokens,
        "clip": CLIP,
        "kl": {"weight": BETA},
        "rewards": [{"kind": "length", "unit": "characters"}],
    }
    if workload.tuning == "lora":
        method["lora"] = {"rank": 16, "alpha": 32}
    return {
        "name": "rollouts",
        "output": str(folder),
        "data": {"train": [str(prompts)], "validation_fraction": 0, "test_fraction": 0},
        "model": {"base": str(model), "dtype": args.dtype},
        "method": method,
        "train": {
            "batch_size": args.prompts,
            "max_steps": args.rollouts,
            "order": "given",
            "learning_rate": 1e-5,
            "schedule": "constant",
            "warmup_fraction": 0,
            "weight_decay": 0,
            "save_every": 1_000_000,
            "threads": args.threads,
        },
        "evaluate": {"forgetting": [], "few_shot": 0},
    }


# Before speed, correctness --------------------------------------------------------------------------------


def gate(run: Run, prompts: Sequence[TokenRow]) -> dict[str, float]:
    """cosine: of the whole gradients; loss: difference. Raises SystemExit beyond the bounds."""
    rows = answered(prompts)
    exact = of_run(run, rows, dtype="float32", path="padded")
    rows, (exact_loss, exact_gradient) = formula(exact, rows)
    built = of_run(run, rows, dtype=run.model.dtype, path="layout")
    batch = Batch.from_rows(rows)
    objective = built.objective
    (term,) = objective.loss(built.loaded.model, batch).terms.values()
    (weight,) = objective.weights(batch).values()
    (term / weight).backward()
    found = {
        "cosine": torch.nn.functional.cosine_similarity(gradient(built), exact_gradient, dim=0).item(),
        "loss": abs((term / weight).item() - exact_loss),
    }
    if not (found["cosine"] >= COSINE and found["loss"] <= LOSS):
        raise SystemExit(f"the loss of fixed answers is not that of TRL's formula in float32: {found}")
    return found


def answered(prompts: Sequence[TokenRow]) -> list[TokenRow]:
    """Four answers of random tokens to each prompt, of different lengths, and what each is worth."""
    rng = np.random.default_rng(0)
    rows = []
    for prompt in prompts:
        leaves = [
            Segment(rng.integers(300, 40_000, size), np.ones(size, np.float32), 0)
            for size in (24, 40, 33, 48)
        ]
        worth = np.concatenate([np.full(len(leaf.ids), rng.normal()) for leaf in leaves])
        rows.append(replace(prompt, segments=(prompt.segments[0], *leaves), given={policy.ADVANTAGES: worth}))
    return rows


def of_run(run: Run, rows: Sequence[TokenRow], *, dtype: str, path: str) -> Built:
    built = build(in_dtype(run, dtype, path), rows, {})
    built.loaded.model.module.train()
    return built


def gradient(built: Built) -> torch.Tensor:
    optimizer = built.state.optimizer
    found = [optimizer.gradient(name) for name in sorted(optimizer.parameters)]
    return torch.cat([g.flatten().double() for g in found if g is not None])


def formula(built: Built, rows: Sequence[TokenRow]) -> tuple[list[TokenRow], tuple[float, torch.Tensor]]:
    """TRL's loss_type grpo, each answer in a row of its own, and its gradient; the rows with old and reference
    log-probabilities near those of this model, so that ratios and divergences differ from 1 and 0."""
    rng = np.random.default_rng(1)
    out, losses = [], []
    for row in rows:
        olds, references = [], []
        worth = np.split(row.given[policy.ADVANTAGES], np.cumsum([len(s.ids) for s in row.segments[1:]])[:-1])
        for leaf, of_answer in zip(row.segments[1:], worth, strict=True):
            ids = torch.from_numpy(np.concatenate([row.segments[0].ids, leaf.ids]))[None]
            logits = built.loaded.model.module(input_ids=ids).logits[0, -len(leaf.ids) - 1 : -1]
            logps = logits.log_softmax(-1).gather(1, ids[0, -len(leaf.ids) :, None])[:, 0]
            near = logps.detach().double().numpy()
            olds.append(near + rng.normal(0, 0.1, len(near)))
            references.append(near + rng.normal(0, 0.3, len(near)))
            old, reference, advantage = (
                torch.from_numpy(x).float() for x in (olds[-1], references[-1], of_answer)
            )
            ratio = (logps - old).exp()
            bounded = ratio.clamp(1 - CLIP, 1 + CLIP)
            kl = (reference - logps).exp() - (reference - logps) - 1
            losses.append((-torch.minimum(ratio * advantage, bounded * advantage) + BETA * kl).mean())
        given = {policy.OLD: np.concatenate(olds), policy.REFERENCE: np.concatenate(references)}
        out.append(replace(row, given={**row.given, **given}))
    loss = torch.stack(losses).mean()
    loss.backward()
    return out, (loss.item(), gradient(built))


# Runs -----------------------------------------------------------------------------------------------------


def run(system: str, ready: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    folder, workload = ready["folder"], ready["workload"]
    name, _, variant = system.partition("-")
    if name == "ours":
        command = ["-m", "tunesmith.cli.main", "train", str(folder / "recipe.yaml"), "--quiet", "--force"]
    else:
        spec: dict[str, Any] = {
            "model": str(ready["model"]),
            "prompts": str(folder / "prompts.json"),
            "variant": variant,
            "tuning": workload.tuning,
            "threads": args.threads,
            "samples": SAMPLES,
            "tokens": args.tokens,
        }
        spec |= {"each": args.prompts, "beta": BETA, "clip": CLIP, "dtype": args.dtype}
        (folder / "spec.json").write_text(json.dumps(spec))
        command = [str(Path(__file__).with_name("rollouts_peers.py")), str(folder / "spec.json")]
    said, seconds = alone([sys.executable, *command], args.threads)
    rollouts = ours(folder) if name == "ours" else json.loads(said["said"].splitlines()[-1])
    assert len(rollouts) == args.rollouts, "every system asks every prompt"
    counted = rollouts[WARM_UP:]
    whole = sum(r["seconds"] for r in counted)
    shares = {part: round(sum(r[part] for r in counted) / whole, 3) for part in PARTS}
    return {
        "variant": variant or "as installed",
        "numerics": numerics(
            workload.tuning, args.dtype, False, NUMERICS["trl-tuned" if name == "trl" else system]
        ),
        "samples_per_s": round(SAMPLES * args.prompts * len(counted) / whole, 4),
        "shares": {**shares, "training": round(1 - sum(shares.values()), 3)},
        "tokens": round(sum(r["tokens"] for r in counted) / len(counted) / SAMPLES / args.prompts, 2),
        "peak_rss_gb": round(said["peak"] / 1e9, 2),
        "process_seconds": round(seconds, 1),
        "load": os.getloadavg()[0],
    }


def ours(folder: Path) -> list[dict[str, float]]:
    """Each rollout with the step that learns from it."""
    with (folder / "rollouts" / "events.jsonl").open() as file:
        events = [json.loads(line) for line in file]
    steps = [e["tokens"] / e["tokens_per_second"] for e in events if e["kind"] == "step"]
    told = [e for e in events if e["kind"] == "rollout"]
    return [
        {**e["seconds"], "seconds": seconds, "tokens": e["tokens"]}
        for e, seconds in zip(told, steps, strict=True)
    ]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| work | layers | system | samples/s | writing | scoring | preparing | training | memory | tokens | load |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['workload']} | {r['layers']} | {r['system']} | {r['samples_per_s']:.3f} | "
        + " | ".join(f"{100 * r['shares'][part]:.0f} %" for part in (*PARTS, "training"))
        + f" | {r['peak_rss_gb']:.1f} GB | {r['tokens']:.0f} | {r['load']:.1f} |"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
