"""One run of transformers' Trainer with a classifier on frozen ids: python benchmarks/encoder_peers.py SPEC.json.

SPEC: variant (weights, autocast, default; see encoder.py), micro, batch, rate, frozen, threads, model, ids, labels,
dtype; epochs, schedule, warmup (steps), smoothing, decay, seed. With test_ids and test_labels the model
then classifies these.
Prints one line of JSON: for each step its seconds, useful tokens (those of rows, no padding) and loss; accuracy.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from speed_peers import Clock
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments


def main(spec: dict[str, Any]) -> None:
    torch.set_num_threads(spec["threads"])
    rows = read(spec["ids"], spec["labels"])
    weights = spec["variant"] == "weights"
    model = AutoModelForSequenceClassification.from_pretrained(
        spec["model"],
        num_labels=max(rows["labels"]) + 1,
        dtype=getattr(torch, spec["dtype"]) if weights else torch.float32,
        attn_implementation="sdpa",
    )
    model.base_model.embeddings.requires_grad_(not spec["frozen"])
    clock = Clock()
    pieces = spec["batch"] // spec["micro"]

    def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """To the longest row of the micro-batch."""
        clock.tokens.append(sum(len(row["input_ids"]) for row in rows))
        found = [torch.tensor(row["input_ids"]) for row in rows]
        stack = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": stack(found, batch_first=True),
            "attention_mask": stack([torch.ones_like(x) for x in found], batch_first=True),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }

    with tempfile.TemporaryDirectory() as scratch:
        args = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=spec["micro"],
            gradient_accumulation_steps=pieces,
            num_train_epochs=spec["epochs"],
            learning_rate=spec["rate"],
            lr_scheduler_type=spec["schedule"],
            warmup_steps=spec["warmup"],
            label_smoothing_factor=spec["smoothing"],
            max_grad_norm=1.0,
            weight_decay=spec["decay"],
            optim="adamw_torch_fused",
            use_cpu=True,
            bf16=not weights,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            train_sampling_strategy="sequential" if spec["variant"] == "default" else "group_by_length",
            seed=spec["seed"],
        )
        trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=padded)
        trainer.add_callback(clock)
        trainer.train()
    tokens = [sum(clock.tokens[i : i + pieces]) for i in range(0, len(clock.tokens), pieces)]
    steps = [
        {**s, "tokens": t, "loss": loss} for s, t, loss in zip(clock.steps, tokens, clock.losses, strict=True)
    ]
    told: dict[str, Any] = {"steps": steps}
    if "test_ids" in spec:
        told["accuracy"] = accuracy(trainer, read(spec["test_ids"], spec["test_labels"]))
    print(json.dumps(told), flush=True)


def read(ids: str, labels: str) -> Dataset:
    data = np.load(ids)
    rows = np.split(data["ids"], np.cumsum(data["lengths"])[:-1])
    return Dataset.from_dict({"input_ids": [i.tolist() for i in rows], "labels": np.load(labels).tolist()})


def accuracy(trainer: Trainer, rows: Dataset) -> float:
    found = trainer.predict(rows)
    return float((np.argmax(found.predictions, axis=1) == found.label_ids).mean())


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
