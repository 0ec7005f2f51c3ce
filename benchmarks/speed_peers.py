"""One run of a peer on frozen ids, in a process of its own: python benchmarks/speed_peers.py SPEC.json.

SPEC: system (trainer, trl), variant (default, tuned, packed), model, ids, tuning, batch, epochs, layers (that wear an
adapter), device, dtype, autocast. Prints one line of JSON: for each step its seconds, useful tokens (those of rows, no
padding) and loss; held: the most bytes of a GPU. Same weights, ids, rows a step, learning rate and clipping as ours.
default: float32 weights, with bfloat16 autocast where that is asked for (TRL with checkpointing, its default); tuned:
weights in the dtype, no checkpointing, rows grouped by length; on a GPU Liger's kernels where they are installed.
packed: TRL's packing with FlashAttention beside that, in rows of 2,048 tokens, as many a step as hold about the same
tokens.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

PACKED = 2048
"""Tokens of a packed row."""
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.tokens: list[int] = []
        self._started = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.steps.append({"seconds": time.perf_counter() - self._started, "at": time.time()})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


def main(spec: dict[str, Any]) -> None:
    torch.set_num_threads(spec["threads"])
    tuned, packed = spec["variant"] != "default", spec["variant"] == "packed"
    rows = read(spec["ids"])
    on_cpu = spec["device"] == "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        spec["model"],
        dtype=getattr(torch, spec["dtype"]) if tuned else torch.float32,
        attn_implementation="flash_attention_2" if packed else "sdpa",
    )
    lora = LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.0,
        target_modules=LINEAR,
        layers_to_transform=spec["layers"],
        task_type="CAUSAL_LM",
    )
    clock = Clock()
    common = {
        "per_device_train_batch_size": spec["batch"],
        "num_train_epochs": spec["epochs"],
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused",
        "use_cpu": on_cpu,
        "use_liger_kernel": tuned and not on_cpu and find_spec("liger_kernel") is not None,
        "bf16": spec["autocast"],
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "train_sampling_strategy": "group_by_length" if tuned else "sequential",
        "seed": 0,
    }
    with tempfile.TemporaryDirectory() as scratch:
        if spec["system"] == "trl":
            trainer = trl_trainer(
                model, rows, lora if spec["tuning"] == "lora" else None, common, scratch, spec
            )
        else:
            if spec["tuning"] == "lora":
                model = get_peft_model(model, lora)
            args = TrainingArguments(output_dir=scratch, gradient_checkpointing=False, **common)
            trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=Pad(clock))
        if spec["system"] == "trl":
            inner = trainer.data_collator
            trainer.data_collator = Counted(inner, clock)
        trainer.add_callback(clock)
        trainer.train()
    steps = [
        {**s, "tokens": t, "loss": loss}
        for s, t, loss in zip(clock.steps, clock.tokens, clock.losses, strict=False)
    ]
    held = 0 if on_cpu else torch.cuda.max_memory_reserved()
    print(json.dumps({"steps": steps, "held": held}), flush=True)


def trl_trainer(
    model: Any, rows: Any, lora: Any, common: dict[str, Any], scratch: str, spec: dict[str, Any]
) -> Any:
    from trl import SFTConfig, SFTTrainer

    more: dict[str, Any] = {"max_length": None}
    if spec["variant"] != "default":
        more["gradient_checkpointing"] = False
    if spec["variant"] == "packed":
        mean = sum(map(len, rows["input_ids"])) / len(rows)
        more |= {"packing": True, "max_length": PACKED}
        common = {**common, "per_device_train_batch_size": max(1, round(spec["batch"] * mean / PACKED))}
    args = SFTConfig(output_dir=scratch, completion_only_loss=True, **common, **more)
    return SFTTrainer(
        model=model,
        args=args,
        train_dataset=rows.remove_columns(["labels"]),
        peft_config=lora,
        processing_class=AutoTokenizer.from_pretrained(spec["model"]),
    )


def read(path: str) -> Dataset:
    data = np.load(path)
    cuts = np.cumsum(data["lengths"])[:-1]
    ids = [part.tolist() for part in np.split(data["ids"], cuts)]
    masks = [(part > 0).astype(int).tolist() for part in np.split(data["weights"], cuts)]
    labels = [
        [i if keep else -100 for i, keep in zip(row, mask, strict=True)]
        for row, mask in zip(ids, masks, strict=True)
    ]
    return Dataset.from_dict({"input_ids": ids, "labels": labels, "completion_mask": masks})


class Pad:
    """Rows padded to the longest of the batch."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        self.clock.tokens.append(sum(len(row["input_ids"]) for row in rows))

        def stacked(key: str, fill: int) -> torch.Tensor:
            return torch.tensor([row[key] + [fill] * (width - len(row[key])) for row in rows])

        mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in rows])
        return {
            "input_ids": stacked("input_ids", 0),
            "labels": stacked("labels", -100),
            "attention_mask": mask,
        }


class Counted:
    """A collator that tells the clock how many tokens the rows have."""

    def __init__(self, inner: Any, clock: Clock) -> None:
        self.inner, self.clock = inner, clock

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        self.clock.tokens.append(sum(len(row["input_ids"]) for row in rows))
        return self.inner(rows)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
