"""One run of TRL on frozen pairs, in a process of its own: python benchmarks/preference_peers.py SPEC.json.

SPEC: model, ids, method (preference, reward), tuning, batch, threads, dtype. Prints one line of JSON: for each step its
seconds and loss, and the seconds in which the reference log-probabilities were computed. Weights in
the dtype, no checkpointing; learning rate, schedule and clipping as ours.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from speed_peers import LINEAR, Clock
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer


class Dpo(DPOTrainer):
    """On pairs that are ids already; and how long the reference took."""

    reference_seconds = 0.0

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        found = super()._precompute_ref_logps(*args, **kwargs)
        self.reference_seconds += time.perf_counter() - started
        return found


def main(spec: dict[str, Any]) -> None:
    torch.set_num_threads(spec["threads"])
    data = np.load(spec["ids"])
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        common = {
            "output_dir": scratch,
            "per_device_train_batch_size": spec["batch"],
            "num_train_epochs": 1,
            "learning_rate": 1e-5,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 1.0,
            "weight_decay": 0.0,
            "optim": "adamw_torch_fused",
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "max_length": None,
            "report_to": [],
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "train_sampling_strategy": "sequential",
            "seed": 0,
        }
        make = dpo if spec["method"] == "preference" else reward
        trainer = make(spec, common, data, tokenizer)
        trainer.add_callback(clock)
        trainer.train()
    steps = [{**s, "loss": loss} for s, loss in zip(clock.steps, clock.losses, strict=True)]
    found = {"steps": steps, "reference_seconds": getattr(trainer, "reference_seconds", 0.0)}
    print(json.dumps(found), flush=True)


def dpo(spec: dict[str, Any], common: dict[str, Any], data: Any, tokenizer: Any) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        spec["model"], dtype=getattr(torch, spec["dtype"]), attn_implementation="sdpa"
    )
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=LINEAR, task_type="CAUSAL_LM")
    return Dpo(
        model=model,
        args=DPOConfig(beta=0.1, precompute_ref_log_probs=True, **common),
        train_dataset=pairs(data),
        peft_config=lora if spec["tuning"] == "lora" else None,
        processing_class=tokenizer,
    )


def reward(spec: dict[str, Any], common: dict[str, Any], data: Any, tokenizer: Any) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(
        spec["model"], dtype=getattr(torch, spec["dtype"]), attn_implementation="sdpa", num_labels=1
    )
    with torch.no_grad():
        model.score.weight.copy_(torch.from_numpy(data["head"]))
    return RewardTrainer(
        model=model,
        args=RewardConfig(**common),
        train_dataset=pairs(data, whole=True),
        processing_class=tokenizer,
    )


def pairs(data: Any, whole: bool = False) -> Dataset:
    """prompt_ids, chosen_ids, rejected_ids; whole: the prompt in both."""
    parts = [part.tolist() for part in np.split(data["ids"], np.cumsum(data["lengths"])[:-1])]
    prompts, chosen, rejected = parts[::3], parts[1::3], parts[2::3]
    if whole:
        columns = {
            name: [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
            for name, answers in (("chosen_ids", chosen), ("rejected_ids", rejected))
        }
        return Dataset.from_dict(columns)
    return Dataset.from_dict({"prompt_ids": prompts, "chosen_ids": chosen, "rejected_ids": rejected})


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
