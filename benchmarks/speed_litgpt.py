"""One run of LitGPT's LoRA loop on frozen ids: its environment's python benchmarks/speed_litgpt.py SPEC.json.

SPEC and what is printed are those of speed_peers.py. LitGPT's own script converts the weights, and the loop is its
`litgpt.finetune.lora.fit`: all linear layers adapted, weights and adapters in the dtype, rows of like lengths
together, no checkpointing, one micro-batch a step. It does not clip. It adapts all layers or none, and its head is not
tied to the embeddings, so that full tuning would train another model.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data.base import get_sft_collate_fn
from litgpt.finetune.lora import fit, get_lr_scheduler
from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from litgpt.utils import instantiate_torch_optimizer, load_checkpoint
from torch.utils.data import DataLoader

NAME = "SmolLM2-135M"
"""Whose shape the model has."""


def main(spec: dict[str, Any]) -> None:
    torch.set_num_threads(spec["threads"])
    assert (spec["tuning"], spec["device"]) == ("lora", "cpu"), "LoRA on all layers, on a CPU"
    precision = {"bfloat16": "bf16-true", "float32": "32-true"}[spec["dtype"]]
    fabric: Any = lightning.Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.launch()
    with tempfile.TemporaryDirectory() as scratch:
        folder = converted(Path(spec["model"]), Path(scratch), spec["dtype"])
        config = Config.from_file(
            folder / "model_config.yaml", lora_r=16, lora_alpha=32, lora_dropout=0.0, **all_linear()
        )
        assert len(spec["layers"]) == config.n_layer, "it adapts all layers"
        with fabric.init_module():
            model: Any = GPT(config)
        mark_only_lora_as_trainable(model)
        model = fabric.setup_module(model)
        adamw = {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 1e-4, "weight_decay": 0.0, "fused": True},
        }
        optimizer = fabric.setup_optimizers(instantiate_torch_optimizer(adamw, model.parameters()))
        load_checkpoint(fabric, model, folder / "lit_model.pth", strict=False)
        rows: Any = read(spec["ids"])
        order = grouped(rows, spec["batch"], spec["epochs"])
        collate = get_sft_collate_fn()
        found: list[dict[str, Any]] = []
        fabric.log_dict = lambda metrics, step=None: found.append({**metrics, "at": time.time()})
        fit(
            fabric=fabric,
            model=model,
            optimizer=optimizer,
            scheduler=get_lr_scheduler(optimizer, 1, len(order) + 1),
            train_dataloader=fabric.setup_dataloaders(
                DataLoader(rows, batch_sampler=order, collate_fn=collate)
            ),
            val_dataloader=DataLoader(rows[:1], collate_fn=collate),
            devices=1,
            checkpoint_dir=folder,
            out_dir=folder,
            train=TrainArgs(
                save_interval=None,
                global_batch_size=spec["batch"],
                micro_batch_size=spec["batch"],
                lr_warmup_steps=1,
                epochs=2,
                max_steps=len(order),
            ),
            eval=EvalArgs(interval=len(order) + 1, max_iters=1),
            data=None,  # for an example that it does not come to
        )
    tokens = [sum(len(rows[i]["input_ids"]) for i in batch) for batch in order]
    steps = [
        {"seconds": m["iter_time"], "tokens": t, "loss": m["loss"], "at": m["at"]}
        for m, t in zip((m for m in found if "iter_time" in m), tokens, strict=True)
    ]
    print(json.dumps({"steps": steps, "held": 0}), flush=True)


def converted(model: Path, scratch: Path, dtype: str) -> Path:
    """The model's folder as LitGPT has it, beside links to its own files."""
    folder = scratch / NAME
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    convert_hf_checkpoint(folder, model_name=NAME, dtype=dtype)
    return folder


def all_linear() -> dict[str, bool]:
    return {f"lora_{part}": True for part in ("query", "key", "value", "projection", "mlp")}


def read(path: str) -> list[dict[str, Any]]:
    data = np.load(path)
    cuts = np.cumsum(data["lengths"])[:-1]
    rows = []
    for ids, weights in zip(np.split(data["ids"], cuts), np.split(data["weights"], cuts), strict=True):
        row, count = torch.from_numpy(ids.astype(np.int64)), len(ids)
        labels = torch.where(torch.from_numpy(weights) > 0, row, -100)
        rows.append(
            {
                "input_ids": row,
                "labels": labels,
                "token_counts": {"raw": count, "raw_plus_prompt_template": count},
            }
        )
    return rows


def grouped(rows: list[dict[str, Any]], batch: int, epochs: int) -> list[list[int]]:
    """Each epoch's batches, of rows of like lengths, in a seeded order."""
    longest = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
    batches = [longest[i : i + batch] for i in range(0, len(rows), batch)]
    order = np.random.default_rng(0)
    return [batches[i] for _ in range(epochs) for i in order.permutation(len(batches))]


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
