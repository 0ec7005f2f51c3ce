"""One run of TRL's GRPO on given prompts, in a process of its own: python benchmarks/rollouts_peers.py SPEC.json.

SPEC: model, prompts (a file of ids), each (prompts of a rollout), samples, tokens, tuning, variant (generate, static,
batching), beta, clip, threads, dtype. Prints one line of JSON: of each rollout its seconds, those of writing, scoring
(the rewards) and preparing (the reference's log-probabilities, advantages), and the tokens written. Weights in the
dtype, no checkpointing; one optimizer step a rollout, so no old log-probabilities are computed; learning rate, schedule
and clipping as ours.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from speed_peers import LINEAR, Clock
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

VARIANTS: dict[str, dict[str, Any]] = {
    "generate": {},
    "static": {"cache_implementation": "static"},
    "batching": {
        "use_transformers_continuous_batching": True,
        "transformers_continuous_batching_config": {"max_memory_percent": 0.1},
    },
}
"""batching: a tenth of the memory for its cache in place of six."""


class Grpo(GRPOTrainer):
    """On prompts that are ids already; and how long its parts took."""

    def __init__(self, ids: list[list[int]], **more: Any) -> None:
        self.ids = ids
        self.parts: list[dict[str, float]] = []
        super().__init__(**more)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self.ids[int(prompt)]) for prompt in prompts], None, {}

    def _generate(self, prompts: list[str]) -> Any:
        started = time.perf_counter()
        found = super()._generate(prompts)
        self._writing, self._tokens = time.perf_counter() - started, sum(map(len, found[1]))
        return found

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        found = super()._calculate_rewards(*args, **kwargs)
        self._scoring = time.perf_counter() - started
        return found

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        started = time.perf_counter()
        found = super()._generate_and_score_completions(inputs)
        rest = time.perf_counter() - started - self._writing - self._scoring
        part = {"writing": self._writing, "scoring": self._scoring, "preparing": rest}
        self.parts.append({**part, "tokens": self._tokens})
        return found


def characters(completions: list[str], **more: Any) -> list[float]:
    return [float(len(text.strip())) for text in completions]


def main(spec: dict[str, Any]) -> None:
    torch.set_num_threads(spec["threads"])
    ids = json.loads(Path(spec["prompts"]).read_text())
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        args = GRPOConfig(
            output_dir=scratch,
            per_device_train_batch_size=spec["samples"],
            gradient_accumulation_steps=spec["each"],
            num_generations=spec["samples"],
            max_completion_length=spec["tokens"],
            num_train_epochs=1,
            loss_type="grpo",
            beta=spec["beta"],
            use_bias_correction_kl=False,
            epsilon=spec["clip"],
            shuffle_dataset=False,
            learning_rate=1e-5,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            weight_decay=0.0,
            optim="adamw_torch_fused",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            seed=0,
            **VARIANTS[spec["variant"]],
        )
        lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=LINEAR, task_type="CAUSAL_LM")
        trainer = Grpo(
            ids,
            model=AutoModelForCausalLM.from_pretrained(
                spec["model"], dtype=getattr(torch, spec["dtype"]), attn_implementation="sdpa"
            ),
            reward_funcs=characters,
            args=args,
            train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(len(ids))]}),
            processing_class=AutoTokenizer.from_pretrained(spec["model"], padding_side="left"),
            peft_config=lora if spec["tuning"] == "lora" else None,
        )
        trainer.add_callback(clock)
        trainer.train()
    found = [
        {**part, "seconds": step["seconds"]} for part, step in zip(trainer.parts, clock.steps, strict=True)
    ]
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
