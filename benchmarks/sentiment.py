"""Sentiment control: how much reward each method buys for how far the model moves (arXiv:2305.18290, 6.1, on a small
scale).

python benchmarks/sentiment.py --data DATA --encoder FOLDER --scratch FOLDER [--seeds 3] [--threads 1]
  [--methods dpo,...] [--out benchmarks/results/sentiment.json]
DATA holds sst2/*.tsv, the public sentences of film reviews (label, tab, text); the other FOLDER a sentence encoder such
as all-MiniLM-L6-v2.

start: tunesmith/base-8m, fine-tuned to go on after the first three words of a sentence of 6 to 18 words. judge: a
classifier on the encoder, tuned on half of the labelled training sentences; the reward is its probability that prompt
and answer together are positive. gold: the same on the other half with another seed, to which nothing is trained.

Every method starts there and has the same budget: 4 answers to each of the same prompts, 16 prompts x 16 rollouts (dpo:
all written by the start, ranked by the judge, all pairs of a prompt, answers that were cut left out). ppo and dpo learn
four times from each answer, the others once. What is varied is the weight of the KL divergence, or beta, and the
learning rate: four by two settings of each method, all of them reported.

Measured on other prompts, two answers each, with the same random numbers, at temperature 1, in float32. kl: of an
answer, log-probability under the model less that under the start, in nats, its mean and standard error over prompts.
Rewards: mean and bootstrap interval over prompts. `best possible`: the start's own answers, 32 to a prompt, reweighed
by e^(reward / weight), which is the optimum of reward - weight x KL.

Writes sentiment.json and docs/images/sentiment.png; what is in the file is not run again. --scratch keeps rows, the
two classifiers and the start.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from campaign import record
from numpy.typing import NDArray
from sentiment_page import draw, table, tilted
from sentiment_rows import read, write, write_rows
from suboptimal import fits

import tunesmith
from tunesmith.config.machine import describe_machine
from tunesmith.config.rewards import Curve, ModelReward
from tunesmith.config.run import Run
from tunesmith.data.render import Renderer
from tunesmith.evaluate.stats import bootstrap, ratio_of_sums
from tunesmith.generate.batched import completion_sums
from tunesmith.generate.sample import Sample, Sampling, sample
from tunesmith.scoring.alarms import looks
from tunesmith.scoring.rewards import Rewards, build_rewards
from tunesmith.train.writing import tree
from tunesmith.types import Example, Message, RowRef, Segment, TokenRow
from tunesmith.workflow.open import Opened
from tunesmith.workflow.own import open_reward

Floats = NDArray[np.float64]
Rows = list[dict[str, Any]]
ROOT = Path(__file__).resolve().parents[1]

STEPS, PROMPTS, ANSWERS, NEW = 16, 16, 4, 32
PASSES = 4
HELD_OUT, EACH = 256, 2
"""Prompts that are measured on, and answers to each."""
BEST = 64, 32
"""The same for the best possible."""
MEASURED = 4242
"""Seed of the answers that are measured."""
RATES = dict.fromkeys(("ppo", "dpo"), (1e-4, 3e-4)) | dict.fromkeys(
    ("grpo", "rloo", "online_dpo"), (3e-4, 1e-3)
)
"""ppo and dpo take four times as many steps."""
WEIGHTS = {
    "ppo": (0.01, 0.03, 0.1, 0.3),
    "grpo": (0.03, 0.1, 0.3, 1.0),
    "rloo": (0.01, 0.03, 0.1, 0.3),
    "online_dpo": (0.03, 0.1, 0.3, 1.0),
    "dpo": (0.03, 0.1, 0.3, 1.0),
}
PROBABILITY = Curve(shape="sigmoid", low=-math.log(9), high=math.log(9))
"""Of log-odds the probability."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(WEIGHTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/sentiment.json")
    args = parser.parse_args()
    write_rows(args.data, args.scratch)
    torch.set_num_threads(args.threads)
    found: dict[str, Any] = {"rows": []}
    if args.out.exists():
        found = json.loads(args.out.read_text())
    found |= {"date": date.today().isoformat(), "machine": describe_machine(), "threads": args.threads}
    campaign = Campaign(args.scratch, args.encoder, args.threads, args.out, found)
    campaign.run(args.methods.split(","), args.seeds)
    print(table(found["rows"]))
    draw(found["rows"], ROOT / "docs/images/sentiment.png")


# Answers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """Answers (P, G), and the prompts that they were written to as the model reads them."""

    prompts: list[str]
    asked: list[TokenRow]
    samples: list[list[Sample]]
    texts: list[list[str]]

    def scored(self, judge: Path) -> Floats:
        """(P, G) probabilities that prompt and answer together are positive."""
        rows = [
            Example(RowRef("asked", i + 1), (Message("user", prompt), Message("assistant", "")))
            for i, (prompt, texts) in enumerate(zip(self.prompts, self.texts, strict=True))
            for _ in texts
        ]
        flat = [text for texts in self.texts for text in texts]
        return opened_judge(str(judge))(rows, flat).total.reshape(len(self.texts), -1)

    def sums(self, opened: Opened) -> Floats:
        """(P, G) log-probabilities of the answers, in nats."""
        rows = [
            tree(row, samples, [1.0] * len(samples))
            for row, samples in zip(self.asked, self.samples, strict=True)
        ]
        return np.stack(completion_sums(opened.loaded.model, rows, 4096))

    @property
    def looks(self) -> dict[str, float]:
        every = [one for samples in self.samples for one in samples]
        texts = [text for of_prompt in self.texts for text in of_prompt]
        seen = asdict(looks(texts, [len(one.ids) for one in every], [not one.ended for one in every]))
        names = ("tokens", "distinct", "repeated", "identical", "at_limit")
        entropy = float(np.concatenate([one.entropies for one in every]).mean())
        return {name: round(seen[name], 4) for name in names} | {"entropy": round(entropy, 4)}


@cache
def opened_judge(path: str) -> Rewards:
    part = ModelReward(path=path, label="positive", reads="prompt_and_answer", curve=PROBABILITY)
    return build_rewards([part], open_reward)


@cache
def opened_model(path: str, threads: int) -> Opened:
    return tunesmith.load(path, dtype="float32", threads=threads)


def answers(opened: Opened, prompts: Sequence[str], count: int, seed: int) -> Written:
    tokenizer, renderer = opened.loaded.tokenizer, opened.renderer
    assert isinstance(renderer, Renderer)
    ids = [renderer.prompt_ids([Message("user", text)]) for text in prompts]
    found: list[dict[int, Sample]] = [{} for _ in prompts]
    for prompt, number, one in sample(
        opened.loaded.model,
        ids,
        count=count,
        sampling=Sampling(),
        seed=seed,
        max_new_tokens=NEW,
        end_ids=renderer.end_ids,
        pad_id=tokenizer.pad_token_id,
        num_slots=64,
    ):
        found[prompt][number] = one
    samples = [[of_prompt[i] for i in range(count)] for of_prompt in found]
    texts = [[tokenizer.decode(one.ids, skip_special_tokens=True).strip() for one in row] for row in samples]
    asked = [
        TokenRow(RowRef("asked", i + 1), (Segment(np.array(row), np.zeros(len(row), np.float32)),))
        for i, row in enumerate(ids)
    ]
    return Written(list(prompts), asked, samples, texts)


# The campaign ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """weight: of the KL divergence, of dpo and online_dpo beta. rate: learning rate."""

    method: str
    weight: float
    rate: float
    seed: int


@dataclass(frozen=True)
class Campaign:
    scratch: Path
    encoder: Path
    threads: int
    out: Path
    found: dict[str, Any]

    def run(self, methods: Sequence[str], seeds: int) -> None:
        """Seed by seed, so that what was stopped has all settings of the seeds that it has."""
        self.prepare()
        for seed in range(seeds):
            for method in methods:
                for rate in RATES[method][::-1]:
                    for weight in WEIGHTS[method]:
                        setting = Setting(method, weight, rate, seed)
                        key = {"part": "run"} | asdict(setting)
                        record(self.found, self.out, key, partial(self.one, setting))

    def once(self, part: str, make: Callable[[], dict[str, Any]]) -> None:
        """What every run needs. A folder that is gone is made again, and one that an interrupted run left."""
        done = any(row["part"] == part for row in self.found["rows"])
        if not (done and (self.scratch / part).exists()):
            self.found["rows"] = [row for row in self.found["rows"] if row["part"] != part]
            shutil.rmtree(self.scratch / part, ignore_errors=True)
        record(self.found, self.out, {"part": part}, make)

    def prepare(self) -> None:
        for number, name in enumerate(("judge", "gold")):
            self.once(name, partial(self.classifier, name, number))
        self.once("start", self.start)
        record(self.found, self.out, {"part": "run", "method": "start"}, self.of_start)

    def classifier(self, name: str, seed: int) -> dict[str, Any]:
        tree = {
            "seed": seed,
            "data": {"train": str(self.scratch / f"labelled-{name}.jsonl"), "validation_fraction": 0.0}
            | {"test": str(self.scratch / "labelled-dev.jsonl")},
            "model": {"base": str(self.encoder)},
            "method": {
                "type": "classify",
                "tuning": "full",
                "head_lr_factor": 10,
                "freeze": {"embeddings": True, "layers": 3},
            },
            "train": {"epochs": 2, "batch_size": 32, "learning_rate": 2e-4},
        }
        report, seconds = self.trained(self.scratch / name, tree)
        system = next(s for s in report["systems"] if s["name"] == "tuned")
        accuracy = {key: system["metrics"]["accuracy"][key] for key in ("value", "low", "high")}
        return {"accuracy": accuracy, "train_rows": report["data"]["splits"]["train"]} | seconds

    def start(self) -> dict[str, Any]:
        tree = {
            "data": {
                "train": str(self.scratch / "begun-train.jsonl"),
                "validation": str(self.scratch / "begun-dev.jsonl"),
                "test_fraction": 0.0,
            },
            "model": {"base": "tunesmith/base-8m"},
            "method": {"type": "sft", "tuning": "full"},
            "train": {"epochs": 3, "batch_size": 16, "learning_rate": 1e-3, "eval_generate": 0},
        }
        report, seconds = self.trained(self.scratch / "start", tree)
        return {"train_rows": report["data"]["splits"]["train"]} | seconds

    def trained(self, folder: Path, tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
        """The report of a run at folder/run, and its seconds."""
        train = tree["train"] | {"threads": self.threads, "save_every": 1_000_000}
        more = {"name": "run", "output": str(folder), "train": train, "evaluate": {"forgetting": []}}
        wall, cpu = time.perf_counter(), time.process_time()
        with patch("tunesmith.workflow.train.probe", fits):
            run = tunesmith.train(Run.model_validate(tree | more))
        seconds = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        report = json.loads((run.folder / "report" / "metrics.json").read_text())
        return report, {name: round(value, 1) for name, value in seconds.items()}

    @property
    def begins(self) -> Path:
        return self.scratch / "start" / "run"

    def prompts(self, split: str, seed: int, count: int) -> list[str]:
        every = [row["prompt"] for row in read(self.scratch / f"begun-{split}.jsonl")]
        return random.Random(seed).sample(every, count)

    def of_start(self) -> dict[str, Any]:
        """What the start writes, and what the best model at each distance from it would get."""
        start = opened_model(str(self.begins), self.threads)
        spread = answers(start, self.prompts("test", 0, HELD_OUT)[: BEST[0]], BEST[1], MEASURED)
        rewards = spread.scored(self.scratch / "judge" / "run")
        weights = np.geomspace(2.0, 0.05, 12)
        best = [[round(float(v), 4) for v in (weight, *tilted(rewards, weight))] for weight in weights]
        return self.measured(self.begins) | {"best possible": best}

    def one(self, setting: Setting) -> dict[str, Any]:
        with TemporaryDirectory() as name:
            folder, prompts = Path(name), self.prompts("train", setting.seed, STEPS * PROMPTS)
            rows = self.offline_rows if setting.method == "dpo" else self.asked_rows
            used = rows(prompts, setting.seed, folder)
            _, seconds = self.trained(folder, self.recipe(setting, folder))
            return used | self.measured(folder / "run") | seconds

    def asked_rows(self, prompts: list[str], seed: int, folder: Path) -> dict[str, int]:
        write(folder / "train.jsonl", [{"prompt": prompt} for prompt in prompts])
        return {"prompts": len(prompts), "answers": ANSWERS * len(prompts)}

    def offline_rows(self, prompts: list[str], seed: int, folder: Path) -> dict[str, int]:
        """The start's answers to the prompts that an on-policy run would ask, with the judge's scores. An answer that
        was cut would get an end in training, and is left out."""
        kept = self.scratch / f"pairs-{seed}.jsonl"
        if not kept.exists():
            start = opened_model(str(self.begins), self.threads)
            of_start = answers(start, prompts, ANSWERS, seed)
            rewards = of_start.scored(self.scratch / "judge" / "run")
            rows = []
            for i, prompt in enumerate(prompts):
                whole = [g for g, one in enumerate(of_start.samples[i]) if one.ended]
                texts, scores = [of_start.texts[i][g] for g in whole], [float(rewards[i, g]) for g in whole]
                if len(set(texts)) > 1:
                    rows.append({"prompt": prompt, "completions": texts, "scores": scores})
            write(kept, rows)
        rows = read(kept)
        write(folder / "train.jsonl", rows)
        compared = sum(len(row["completions"]) for row in rows)
        asked = {"prompts": len(prompts), "answers": ANSWERS * len(prompts)}
        return asked | {"rows": len(rows), "compared": compared}

    def recipe(self, setting: Setting, folder: Path) -> dict[str, Any]:
        method, weight = setting.method, setting.weight
        train: dict[str, Any] = {"batch_size": PROMPTS, "learning_rate": setting.rate}
        how: dict[str, Any] = {"type": "preference", "beta": weight}
        if method == "dpo":
            train |= {"epochs": PASSES}
        else:
            judge: dict[str, Any] = {
                "kind": "model",
                "path": str(self.scratch / "judge" / "run"),
                "label": "positive",
            }
            judge |= {"reads": "prompt_and_answer", "curve": PROBABILITY.model_dump()}
            held = {"beta": weight} if method == "online_dpo" else {"kl": {"weight": weight}}
            how = {"type": "policy", "algorithm": method, "rewards": [judge], "samples": ANSWERS}
            how |= {"max_new_tokens": NEW} | held | ({"passes": PASSES} if method == "ppo" else {})
            train |= {"max_steps": STEPS}
        return {
            "seed": setting.seed,
            "data": {
                "train": str(folder / "train.jsonl"),
                "validation_fraction": 0.0,
                "test_fraction": 0.0,
            },
            "model": {"base": str(self.begins)},
            "method": how | {"tuning": "full"},
            "train": train,
        }

    def measured(self, folder: Path) -> dict[str, Any]:
        """On held-out prompts."""
        start = opened_model(str(self.begins), self.threads)
        policy = tunesmith.load(folder, dtype="float32", threads=self.threads)
        written = answers(policy, self.prompts("test", 0, HELD_OUT), EACH, MEASURED)
        kls = (written.sums(policy) - written.sums(start)).mean(1)
        out: dict[str, Any] = {
            "kl": round(float(kls.mean()), 4),
            "kl_error": round(float(kls.std(ddof=1) / math.sqrt(len(kls))), 4),
        }
        for name, judge in (("reward", "judge"), ("gold", "gold")):
            values = written.scored(self.scratch / judge / "run").mean(1)
            interval = bootstrap(np.column_stack([values, np.ones(len(values))]), ratio_of_sums)
            out[name] = [round(float(value), 4) for value in (values.mean(), *interval)]
        return out | written.looks


if __name__ == "__main__":
    main()
