"""Is a ranking of four answers worth more than the pairs that are in it, when reading an answer is what costs?

python benchmarks/rankings.py [--parts reward,policy] [--seeds 5] [--out benchmarks/results/rankings.json]

An annotator reads four answers of tunesmith/base-8m to a prompt. What is learned from that:

| | rows | loss of a reward model | of a policy |
|---|---|---|---|
| `listwise` | RANKINGS rankings of four | plackett_luce | ranking, plackett_luce |
| `all pairs` | the same rankings, the six pairs of each averaged | bradley_terry | preference, sigmoid |
| `best and worst` | the first and the last of each ranking | bradley_terry | preference, sigmoid |
| `other pairs` | in place of each ranking two pairs, of other prompts | bradley_terry | preference, sigmoid |

Every arm has read the same number of answers, takes as many steps (rows of `other pairs` come twice as many to a step)
and passes over its rows as often. The gold reward of an answer is known: how near it comes to 24 words, and one half
more where it asks nothing. The annotator is a Plackett-Luce one: gold / NOISE and a Gumbel draw for each answer, in
their order; of two answers that is Bradley-Terry.

reward: a reward model of base-8m; Kendall's tau and the share of pairs in gold's order on answers to held-out prompts.
policy: base-8m itself; mean gold reward of its own answers to held-out prompts, and their KL divergence from the start
in nats an answer. Each arm has the learning rate of a grid that did best on a seed that is not reported (of reward
models there is one). Intervals: Student's over seeds; differences are of the same seed, so of the same rankings.
Writes rankings.json; what is in the file is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from campaign import record
from numpy.typing import NDArray
from scipy.stats import sem, t
from suboptimal import ASKED, BASE, BETA, ROOT, UNREPORTED, drawn, fits, nearness

import tunesmith
from tunesmith.config.machine import describe_machine
from tunesmith.config.run import Run
from tunesmith.data.render import Renderer
from tunesmith.generate.batched import completion_sums
from tunesmith.scoring import score
from tunesmith.types import Message, RowRef, Segment, TokenRow

Floats = NDArray[np.float64]
ARMS = ("listwise", "all pairs", "best and worst", "other pairs")
METRICS = {"reward": ("kendall_tau", "pair_accuracy"), "policy": ("gold", "kl")}
RATES = {"reward": (1e-3,), "policy": (3e-4, 1e-3)}
RANKINGS, READ, EPOCHS, ROWS = 64, 4, 1, 8
NOISE = 0.2
STATEMENT = 0.5
THINGS = (
    "plum harbour violin glacier lantern sparrow compass orchard kettle tunnel marble beaver candle "
    "bridge pepper anchor saddle pigeon garden ladder walnut engine mirror basket falcon pillow "
    "hammer meadow cactus ribbon turtle wagon museum lizard barrel copper island rocket teapot "
    "willow"
).split()
HELD_OUT = 8
"""Of the things; no training prompt names them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--parts", default="reward,policy")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/rankings.json")
    args = parser.parse_args()
    found: dict[str, Any] = {"date": date.today().isoformat(), "machine": describe_machine(), "rows": []}
    if args.out.exists():
        found = json.loads(args.out.read_text())
    torch.set_num_threads(args.threads)
    for part in args.parts.split(","):
        for arm in ARMS:
            for rate in RATES[part]:
                run(found, args.out, part, arm, rate, UNREPORTED, args.threads)
        for seed in range(args.seeds):
            for arm in ARMS:
                run(found, args.out, part, arm, chosen(found["rows"], part, arm), seed, args.threads)
    print(table(found["rows"]))


def run(found: dict[str, Any], out: Path, part: str, arm: str, rate: float, seed: int, threads: int) -> None:
    def measured() -> dict[str, Any]:
        started = time.process_time()
        with TemporaryDirectory() as name:
            folder = Path(name)
            write(folder / "train.jsonl", rows_of(arm, seed))
            tree = recipe(part, arm, rate, seed, folder, threads)
            with patch("tunesmith.workflow.train.probe", fits):
                tuned = tunesmith.train(Run.model_validate(tree))
            values = (agreement if part == "reward" else own_answers)(str(tuned.folder), threads)
        found = {name: round(value, 4) for name, value in values.items()}
        return {**found, "cpu_seconds": round(time.process_time() - started, 1)}

    key = {"part": part, "arm": arm, "rate": rate, "seed": seed}
    record(found, out, key, measured)


# What is read, and what the annotator says of it -----------------------------------------------------------


def prompts(split: str) -> list[str]:
    things = THINGS[:-HELD_OUT] if split == "train" else THINGS[-HELD_OUT:]
    return [words.format(thing) for thing in things for words in ASKED]


def gold(answers: Sequence[Sequence[str]]) -> Floats:
    """(P, K)"""
    return nearness(answers) + STATEMENT * np.array([["?" not in text for text in row] for row in answers])


@cache
def read(split: str, seed: int) -> tuple[list[str], list[list[str]]]:
    """Prompts in an order of the seed, and READ answers of the model at the start to each."""
    asked = prompts(split)
    order = np.random.default_rng((seed, 1)).permutation(len(asked))
    asked = [asked[i] for i in order[: 2 * RANKINGS]]
    opened = tunesmith.load(BASE, threads=torch.get_num_threads())
    decode = opened.loaded.tokenizer.decode
    answers = [
        [decode(one.ids, skip_special_tokens=True).strip() for one in row]
        for row in drawn(opened, asked, READ, seed)
    ]
    return asked, answers


def rows_of(arm: str, seed: int) -> list[dict[str, Any]]:
    """The annotator's draws are the same for all arms of a seed."""
    asked, answers = read("train", seed)
    assert len(asked) >= 2 * RANKINGS, "other prompts enough for the pairs"
    draws = np.random.default_rng((seed, 2)).gumbel(size=(len(asked), READ))
    liked = gold(answers) / NOISE + draws
    if arm == "other pairs":  # two answers to each of twice as many prompts
        return [ranking(*row, 2) for row in zip(asked[: 2 * RANKINGS], answers, liked, strict=False)]
    rows = [ranking(*row, READ) for row in zip(asked[:RANKINGS], answers, liked, strict=False)]
    return [ends(row) for row in rows] if arm == "best and worst" else rows


def ranking(prompt: str, answers: Sequence[str], liked: Floats, count: int) -> dict[str, Any]:
    ranks = (-liked[:count]).argsort().argsort() + 1
    return {"prompt": prompt, "completions": [*answers[:count]], "ranks": ranks.tolist()}


def ends(row: dict[str, Any]) -> dict[str, Any]:
    best, worst = (row["ranks"].index(rank) for rank in (1, READ))
    answers = [row["completions"][at] for at in (best, worst)]
    return {"prompt": row["prompt"], "completions": answers, "ranks": [1, 2]}


def gold_rows() -> list[dict[str, Any]]:
    """Answers to held-out prompts with their gold rewards, the same for every seed; rows of ties are left out."""
    asked, answers = read("test", UNREPORTED - 1)
    rows = [
        {"prompt": prompt, "completions": texts, "scores": scores.tolist()}
        for prompt, texts, scores in zip(asked, answers, gold(answers), strict=True)
    ]
    return [row for row in rows if len(set(row["scores"])) > 1]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# Learning from it ------------------------------------------------------------------------------------------


def recipe(part: str, arm: str, rate: float, seed: int, folder: Path, threads: int) -> dict[str, Any]:
    listwise = arm == "listwise"
    how: dict[str, Any] = {"type": "reward", "loss": "plackett_luce" if listwise else "bradley_terry"}
    if part == "policy":
        how = {"type": "ranking" if listwise else "preference", "beta": BETA}
    return {
        "name": "run",
        "output": str(folder),
        "seed": seed,
        "data": {
            "train": [str(folder / "train.jsonl")],
            "validation_fraction": 0,
            "test_fraction": 0,
            "on_bad_row": "skip",
        },
        "model": {"base": BASE},
        "method": how | {"tuning": "full"},
        "train": {
            "batch_size": 2 * ROWS if arm == "other pairs" else ROWS,
            "max_steps": EPOCHS * RANKINGS // ROWS,
            "learning_rate": rate,
            "threads": threads,
            "save_every": 1_000_000,
        },
        "evaluate": {"forgetting": [], "baselines": False},
    }


def agreement(model: str, threads: int) -> dict[str, float]:
    """Of a reward model with gold, on answers to held-out prompts."""
    opened = tunesmith.load(model, threads=threads)
    rows = gold_rows()
    said = [json.dumps(opened.score(row["prompt"], row["completions"])) for row in rows]
    wanted = [
        json.dumps(
            [[liked, len(text)] for liked, text in zip(row["scores"], row["completions"], strict=True)]
        )
        for row in rows
    ]
    metrics = score("judged", wanted, said).metrics
    return {name: metrics[name] for name in METRICS["reward"]}


def own_answers(model: str, threads: int) -> dict[str, float]:
    """Of answers that the model writes to held-out prompts: mean gold reward, and KL from the start, nats an answer."""
    opened, start = (tunesmith.load(one, threads=threads) for one in (model, BASE))
    asked = prompts("test")
    samples = drawn(opened, asked, READ, UNREPORTED - 2)
    decode = opened.loaded.tokenizer.decode
    texts = [[decode(one.ids, skip_special_tokens=True).strip() for one in row] for row in samples]
    renderer = start.renderer
    assert isinstance(renderer, Renderer)
    rows: list[TokenRow] = []
    for prompt, of_prompt in zip(asked, samples, strict=True):
        ids = np.array(renderer.prompt_ids([Message("user", prompt)]), np.int64)
        leaves = [
            Segment(np.array(one.ids, np.int64), np.ones(len(one.ids), np.float32), 0) for one in of_prompt
        ]
        root = Segment(ids, np.zeros(len(ids), np.float32))
        rows.append(TokenRow(RowRef("asked", len(rows) + 1), (root, *leaves)))
    before = np.concatenate(completion_sums(start.loaded.model, rows, 4096))
    after = np.array([one.logps.sum() for of_prompt in samples for one in of_prompt])
    return {"gold": float(gold(texts).mean()), "kl": float((after - before).mean())}


# Numbers ---------------------------------------------------------------------------------------------------


def chosen(rows: Sequence[dict[str, Any]], part: str, arm: str) -> float:
    """The learning rate that did best by the first metric on the unreported seed."""
    tried = [row for row in rows if (row["part"], row["arm"], row["seed"]) == (part, arm, UNREPORTED)]
    return float(max(tried, key=lambda row: row[METRICS[part][0]])["rate"])


def values(rows: Sequence[dict[str, Any]], part: str, arm: str, name: str) -> list[float]:
    """Of the reported seeds, in their order."""
    mine = [row for row in rows if (row["part"], row["arm"]) == (part, arm) and row["seed"] < UNREPORTED]
    return [row[name] for row in sorted(mine, key=lambda row: row["seed"])]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Each arm with its interval over seeds, and how much more `listwise` has on the same seeds."""
    lines: list[str] = []
    for part, names in METRICS.items():
        if not values(rows, part, ARMS[0], names[0]):
            continue
        head = " | ".join(f"{name} | listwise is more by" for name in names)
        lines += [f"| {part} | rate | {head} |", "|---|---|" + "---|" * (2 * len(names))]
        for arm in ARMS:
            cells = []
            for name in names:
                own, first = values(rows, part, arm, name), values(rows, part, ARMS[0], name)
                gaps = [a - b for a, b in zip(first, own, strict=True)]
                cells += [shown(own), "" if arm == ARMS[0] else shown(gaps, "+")]
            lines.append(f"| {arm} | {chosen(rows, part, arm):g} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def shown(of_seeds: Sequence[float], sign: str = "") -> str:
    """The mean and Student's interval: of five seeds a bootstrap's is too narrow."""
    value, error = float(np.mean(of_seeds)), float(sem(of_seeds))
    wide = error * float(t.ppf(0.975, len(of_seeds) - 1))
    return f"{value:{sign}.3f} ({value - wide:{sign}.3f} to {value + wide:{sign}.3f})"


if __name__ == "__main__":
    main()
