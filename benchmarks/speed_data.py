"""What the speed benchmarks compute on: a shape with random weights, rows, and the ids that every system gets."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tunesmith.config.run import Run
from tunesmith.models.files import locate
from tunesmith.types import TokenRow, silent
from tunesmith.workflow.prepare import absolute, prepare

SHAPES = {
    "135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "1b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
"""SmolLM2-135M, with 30 layers (huggingface.co/HuggingFaceTB/SmolLM2-135M, config.json); Llama 3.2 1B, with 16
(huggingface.co/meta-llama/Llama-3.2-1B, config.json)."""


@dataclass(frozen=True)
class Workload:
    """lengths: `gsm8k`, the rows of that set as they are, or `long`, log-normal with median 400, at most 2,048 tokens.
    batch: rows a step. tuning: what is trained. top: so many layers wear an adapter, from the top; 0: all."""

    name: str
    tuning: str
    lengths: str
    batch: int
    epochs: int = 1
    top: int = 0

    def adapted(self, layers: int) -> range:
        return range(layers - (self.top or layers), layers)


WORKLOADS = {
    w.name: w
    for w in (
        Workload("sft-lora", "lora", "gsm8k", 6),
        Workload("sft-full", "full", "gsm8k", 6),
        Workload("sft-lora-top", "lora", "gsm8k", 6, epochs=3, top=6),
        Workload("sft-lora-long", "lora", "long", 2),
    )
}


def model_folder(folder: Path, layers: int, shape: str = "135m") -> Path:
    """Random float32 weights of the shape, with the embedded model's tokenizer."""
    target = folder / f"model-{shape}-{layers}"
    if not (target / "config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(locate("tunesmith/base-8m"))
        torch.manual_seed(0)
        ids = {k: getattr(tokenizer, k) for k in ("bos_token_id", "eos_token_id", "pad_token_id")}
        config = LlamaConfig(
            **SHAPES[shape],
            **ids,
            num_hidden_layers=layers,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
        )
        LlamaForCausalLM(config).save_pretrained(target)
        tokenizer.save_pretrained(target)
    return target


def rows_file(folder: Path, gsm8k: Path, lengths: str, count: int) -> Path:
    target = folder / f"{lengths}-{count}.jsonl"
    with gsm8k.open(encoding="utf-8") as file:
        source = [json.loads(line) for line in file]
    if lengths == "gsm8k":
        rows = source[:count]
    else:
        rng = random.Random(0)
        texts = [f"{row['question']} {row['answer']}" for row in source]
        rows = []
        for _ in range(count):
            wanted = int(
                3.2 * min(rng.lognormvariate(np.log(400), 0.8), 1900)
            )  # characters: some 3.2 a token
            text = ""
            while len(text) < wanted:
                text += rng.choice(texts) + " "
            half = wanted // 2
            rows.append({"prompt": text[:half], "completion": text[half:wanted]})
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return target


def settings(workload: Workload, model: Path, rows: Path, layers: int, dtype: str) -> dict[str, Any]:
    """The recipe of ours; peers get the same numbers."""
    method: dict[str, Any] = {"tuning": workload.tuning}
    if workload.tuning == "lora":
        adapted = "|".join(map(str, workload.adapted(layers)))
        method["lora"] = {"rank": 16, "alpha": 32, "modules": [rf"layers\.({adapted})\."]}
    return {
        "name": "speed",
        "data": {"train": [str(rows)], "validation_fraction": 0, "test_fraction": 0},
        "model": {"base": str(model), "dtype": dtype},
        "method": method,
        "train": {
            "batch_size": workload.batch,
            "epochs": workload.epochs,
            "order": "given",
            "learning_rate": 1e-4,
            "schedule": "constant",
            "warmup_fraction": 0,
            "weight_decay": 0,
            "save_every": 1_000_000,
        },
        "evaluate": {"forgetting": [], "few_shot": 0},
    }


def prepared(recipe: dict[str, Any], folder: Path) -> tuple[Run, Sequence[TokenRow]]:
    """The resolved recipe, and the rows as our own reader makes them."""
    scratch = folder / "prepared"
    scratch.mkdir(exist_ok=True)
    found = prepare(absolute(Run.model_validate(recipe)), scratch, silent)
    return found.run, found.rows["train"]


def freeze(rows: Sequence[TokenRow], target: Path) -> Path:
    """ids, weights: flat; lengths: of each row."""
    ids = [np.concatenate([s.ids for s in row.segments]) for row in rows]
    weights = [np.concatenate([s.weights for s in row.segments]) for row in rows]
    np.savez(target, ids=np.concatenate(ids), weights=np.concatenate(weights), lengths=[len(i) for i in ids])
    return target
