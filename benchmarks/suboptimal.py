"""Data from a model far from the best answers: does it help to learn from its own answers, and to be pushed away from
bad ones? The claim of arXiv:2404.14367, tried where it can be run again in minutes.

python benchmarks/suboptimal.py [--parts bandit,language] [--seeds 5] [--out benchmarks/results/suboptimal.json]

Each method has the same number of answers and of steps. Answers come two to a prompt; what is learned of them:

| | of the better answer | of both, by e^(reward / beta) | of both, one away from the other |
|---|---|---|---|
| drawn once from the model at the start | sft | rwr offline | dpo |
| drawn at each step from the model as it is | raft | rwr | online_dpo, rloo |

bandit: one prompt, 100 answers, a softmax policy whose log-probabilities are those of the reference and cosines of the
answer's number (so that what is learned of one answer is learned of its neighbours, as in a network). The reward falls
with the distance from the best answer, which lies far from those of the reference (`far`) or among them (`near`).
Expected rewards are exact.

language: tunesmith/base-8m, through the main job; the reward is how near an answer comes to 24 words, the most that fit
into its 32 tokens; the model writes 12. Rewards are of held-out prompts. An answer that was cut has no end when its own
model learns from it, and one when it is a row of data.

Each method has the learning rate of a grid that did best on seeds that are not reported. Intervals: bootstrap over
seeds. Writes suboptimal.json and docs/images/suboptimal.png; what is in the file is not run again.
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

import tunesmith
from tunesmith.config.machine import describe_machine
from tunesmith.config.policy import PolicyConfig
from tunesmith.config.rewards import LengthReward
from tunesmith.config.run import Run
from tunesmith.data.render import Renderer
from tunesmith.evaluate.stats import bootstrap, ratio_of_sums
from tunesmith.generate.sample import Sample, Sampling, sample
from tunesmith.objectives.policy import surrogate
from tunesmith.objectives.preference import LOSSES, Pairs
from tunesmith.scoring.rewards import build_rewards
from tunesmith.train.advantages import of_answers
from tunesmith.train.probe import Estimate
from tunesmith.types import Example, Message, RowRef
from tunesmith.workflow.open import Opened
from tunesmith.workflow.own import open_reward

Floats = NDArray[np.float64]
ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/images/suboptimal.png"
OFFLINE, ONLINE = ("sft", "rwr offline", "dpo"), ("raft", "rwr", "online_dpo", "rloo")
METHODS = (*OFFLINE, *ONLINE)
UNREPORTED = 1000
"""First of the seeds that learning rates are chosen on."""
BETA, RWR_BETA = 0.1, 0.2

ARMS, SPREAD, START = 100, 8.0, 30
BEST = {"far": 80, "near": 36}
SETTINGS = {"bandit": tuple(BEST), "language": ("length",)}
TITLES = {
    "far": "bandit, best answer far from the data",
    "near": "bandit, best answer among the data",
    "length": "8 M language model, answers of 24 words",
}
BANDIT_STEPS, BANDIT_PAIRS, EVERY = 300, 16, 20
BANDIT_RATES, BANDIT_TRIALS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), 3
COSINES = 12

STEPS, PROMPTS, NEW = 8, 16, 32
BASE = "tunesmith/base-8m"
RATES = (3e-4, 1e-3)
TARGET = 24
THINGS = "plum,harbour,violin,glacier,lantern,sparrow,compass,orchard,kettle,tunnel,marble,beaver".split(",")
ASKED = (
    "What is a {}?|Tell me about a {}.|Where can I find a {}?|Why do people like a {}?|How big is a {}?|"
    "Can I buy a {} here?|What does a {} look like?|When did you last see a {}?"
).split("|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--parts", default="bandit,language")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/suboptimal.json")
    args = parser.parse_args()
    found: dict[str, Any] = {"date": date.today().isoformat(), "machine": describe_machine(), "rows": []}
    if args.out.exists():
        found = json.loads(args.out.read_text())
    torch.set_num_threads(1)
    for part in args.parts.split(","):
        run_part(part, found, args.out, args.seeds)
    print(table(found["rows"]))
    draw(found["rows"])


def run_part(part: str, found: dict[str, Any], out: Path, seeds: int) -> None:
    """The rates first, then seed by seed, so that what was stopped has all methods of the seeds that it has."""
    rates, trials = (BANDIT_RATES, BANDIT_TRIALS) if part == "bandit" else (RATES, 1)
    for setting in SETTINGS[part]:
        for method in METHODS:
            for rate in rates:
                for seed in range(UNREPORTED, UNREPORTED + trials):
                    run(found, out, part, setting, method, rate, seed)
        for seed in range(seeds):
            for method in METHODS:
                best = chosen(found["rows"], setting, method)
                assert best is not None
                run(found, out, part, setting, method, best, seed)


def run(
    found: dict[str, Any], out: Path, part: str, setting: str, method: str, rate: float, seed: int
) -> None:
    def rewards() -> dict[str, Any]:
        started = time.process_time()
        curve = (bandit if part == "bandit" else language)(setting, method, rate, seed)
        kept = curve if seed < UNREPORTED else [curve[0], curve[-1]]
        seconds = round(time.process_time() - started, 1)
        return {"rewards": [round(reward, 4) for reward in kept], "cpu_seconds": seconds}

    key = {"part": part, "setting": setting, "method": method, "rate": rate, "seed": seed}
    record(found, out, key, rewards)


# The bandit ------------------------------------------------------------------------------------------------


def bandit(setting: str, method: str, rate: float, seed: int) -> list[float]:
    """Expected reward before the first step and after every EVERY steps."""
    places = torch.arange(ARMS, dtype=torch.float64)
    rewards = 1 - (places - BEST[setting]).abs() / ARMS
    reference = torch.log_softmax(-0.5 * ((places - START) / SPREAD) ** 2, 0)
    cosines = torch.cos(np.pi * (places[:, None] + 0.5) * torch.arange(1, COSINES + 1) / ARMS)
    theta = torch.zeros(COSINES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theta], rate)
    rng = np.random.default_rng(seed)
    curve = []
    for step in range(BANDIT_STEPS + 1):
        logps = torch.log_softmax(reference + cosines @ theta, 0)
        if step % EVERY == 0:
            curve.append(float(logps.detach().exp() @ rewards))
        source = reference if method in OFFLINE else logps.detach()
        share = source.exp().numpy()
        drawn = torch.from_numpy(rng.choice(ARMS, (BANDIT_PAIRS, 2), p=share / share.sum()))
        optimizer.zero_grad()
        loss_of(method, logps[drawn], reference[drawn], rewards[drawn]).backward()
        optimizer.step()
    return curve


def loss_of(method: str, logps: torch.Tensor, reference: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """() of (P, 2) answers. The objectives are those of training."""
    better = rewards.argmax(1, keepdim=True)
    if method in ("sft", "raft"):
        return -logps.gather(1, better).mean()
    if method.startswith("rwr"):
        return -(torch.from_numpy(rwr_weights(rewards.numpy())) * logps).mean()
    if method == "rloo":
        config = PolicyConfig(algorithm="rloo", rewards=[LengthReward()], samples=2, scale="none")
        worth = torch.from_numpy(of_answers(rewards.numpy(), config))
        return surrogate(logps - logps.detach(), worth, config.clip, config.clip)[0].mean()
    differ = (rewards[:, 0] != rewards[:, 1])[:, None]
    (logp_w, logp_l), (ref_w, ref_l) = (
        (one.gather(1, better)[differ], one.gather(1, 1 - better)[differ]) for one in (logps, reference)
    )
    pairs = Pairs(
        w=BETA * (logp_w - ref_w),
        l=BETA * (logp_l - ref_l),
        logp_w=logp_w,
        logp_l=logp_l,
        margin=0.0,
        shift=torch.zeros(()),
    )
    return LOSSES["sigmoid"](pairs, BETA, 0.0).sum() / len(rewards)


def rwr_weights(rewards: Floats) -> Floats:
    """(P, 2) -> (P, 2), of mean 1 in each pair, as the method does it."""
    weights: Floats = np.exp((rewards - rewards.max(1, keepdims=True)) / RWR_BETA)
    weights /= weights.mean(1, keepdims=True)
    return weights


# The language model ----------------------------------------------------------------------------------------


def language(setting: str, method: str, rate: float, seed: int) -> list[float]:
    """Mean reward of answers to held-out prompts before and after a run."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows = offline_rows(method, seed) if method in OFFLINE else asked_rows()
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with patch("tunesmith.workflow.train.probe", fits):
            tuned = tunesmith.train(Run.model_validate(recipe(method, rate, seed, folder)))
        return [held_out(BASE), held_out(str(tuned.folder))]


def fits(run: Run, rows: object) -> Estimate:
    """In place of the probe of memory, whose process takes as long as a run of this size."""
    return Estimate(4096, 1e-4, 0, 2**34, (4096,))


@cache
def held_out(model: str) -> float:
    """Its mean reward on held-out prompts."""
    return float(rewarded(tunesmith.load(model, threads=1), prompts("test"), 4, UNREPORTED - 1)[1].mean())


def prompts(split: str) -> list[str]:
    things = THINGS[:8] if split == "train" else THINGS[8:]
    return [words.format(thing) for thing in things for words in ASKED]


def asked_rows() -> list[dict[str, Any]]:
    return [{"prompt": prompt} for prompt in prompts("train")]


def drawn(opened: Opened, asked: Sequence[str], count: int, seed: int) -> list[list[Sample]]:
    """`count` sampled answers to each prompt."""
    renderer = opened.renderer
    assert isinstance(renderer, Renderer)
    found: dict[tuple[int, int], Sample] = {}
    for prompt, number, one in sample(
        opened.loaded.model,
        [renderer.prompt_ids([Message("user", text)]) for text in asked],
        count=count,
        sampling=Sampling(),
        seed=seed,
        max_new_tokens=NEW,
        end_ids=renderer.end_ids,
        pad_id=opened.loaded.tokenizer.pad_token_id,
        num_slots=64,
    ):
        found[prompt, number] = one
    return [[found[prompt, number] for number in range(count)] for prompt in range(len(asked))]


def rewarded(opened: Opened, asked: Sequence[str], count: int, seed: int) -> tuple[list[list[str]], Floats]:
    """`count` sampled answers to each prompt, and their rewards (P, count)."""
    tokenizer = opened.loaded.tokenizer
    answers = [
        [tokenizer.decode(one.ids, skip_special_tokens=True).strip() for one in of_prompt]
        for of_prompt in drawn(opened, asked, count, seed)
    ]
    return answers, nearness(answers)


def nearness(answers: Sequence[Sequence[str]]) -> Floats:
    """(P, count) how near each comes to the length."""
    flat = [text for of_prompt in answers for text in of_prompt]
    examples = [Example(RowRef("asked", 1), (Message("user", ""), Message("assistant", "")))] * len(flat)
    scored = build_rewards([LengthReward(target=TARGET)], open_reward)(examples, flat)
    return scored.total.reshape(len(answers), -1)


def offline_rows(method: str, seed: int) -> list[dict[str, Any]]:
    """As many answers of the model at the start as an on-policy run writes, in pairs; equal ones are none for dpo."""
    start = tunesmith.load(BASE, threads=1)
    asked = prompts("train") * (STEPS * PROMPTS // len(prompts("train")))
    answers, rewards = rewarded(start, asked, 2, seed)
    rows: list[dict[str, Any]] = []
    for prompt, two, worth, weights in zip(asked, answers, rewards, rwr_weights(rewards), strict=True):
        user, better = {"role": "user", "content": prompt}, int(worth.argmax())
        if method == "rwr offline":
            for text, weight in zip(two, weights, strict=True):
                answer = {"role": "assistant", "content": text, "weight": float(weight)}
                rows.append({"messages": [user, answer]})
        elif method == "sft":
            rows.append({"messages": [user, {"role": "assistant", "content": two[better]}]})
        elif worth[0] != worth[1]:
            rows.append({"prompt": prompt, "chosen": two[better], "rejected": two[1 - better]})
    return rows


def recipe(method: str, rate: float, seed: int, folder: Path) -> dict[str, Any]:
    rows = 2 * PROMPTS if method == "rwr offline" else PROMPTS
    tree: dict[str, Any] = {
        "name": "run",
        "output": str(folder),
        "seed": seed,
        "data": {
            "train": [str(folder / "train.jsonl")],
            "validation_fraction": 0,
            "test_fraction": 0,
        },
        "model": {"base": BASE},
        "train": {
            "batch_size": rows,
            "max_steps": STEPS,
            "learning_rate": rate,
            "threads": 1,
            "save_every": 1_000_000,
        },
        "evaluate": {"forgetting": []},
    }
    if method in OFFLINE:
        how = {"type": "preference", "beta": BETA} if method == "dpo" else {"type": "sft"}
    else:
        how = {
            "type": "policy",
            "algorithm": method,
            "rewards": [{"kind": "length", "target": TARGET}],
            "samples": 2,
            "max_new_tokens": NEW,
        }
        how |= {"online_dpo": {"beta": BETA}, "rwr": {"beta": RWR_BETA}}.get(method, {})
        how |= {"kl": {"weight": 0}} if method == "rloo" else {}
    return tree | {"method": how | {"tuning": "full"}}


# Numbers ---------------------------------------------------------------------------------------------------


def chosen(rows: Sequence[dict[str, Any]], setting: str, method: str) -> float | None:
    """The learning rate of the highest mean reward on unreported seeds."""
    ends: dict[float, list[float]] = {}
    for row in rows:
        if (row["setting"], row["method"]) == (setting, method) and row["seed"] >= UNREPORTED:
            ends.setdefault(row["rate"], []).append(row["rewards"][-1])
    return max(ends, key=lambda rate: np.mean(ends[rate])) if ends else None


def reported(rows: Sequence[dict[str, Any]], setting: str, method: str) -> list[dict[str, Any]]:
    key = (setting, method, chosen(rows, setting, method))
    return [
        row
        for row in rows
        if (row["setting"], row["method"], row["rate"]) == key and row["seed"] < UNREPORTED
    ]


def mean(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of seeds and its interval."""
    rows = np.column_stack([values, np.ones(len(values))])
    return float(np.mean(values)), *bootstrap(rows, ratio_of_sums)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rewards at the end, a column for each setting."""
    settings = [name for names in SETTINGS.values() for name in names if reported(rows, name, METHODS[0])]
    starts = [reported(rows, name, METHODS[0])[0]["rewards"][0] for name in settings]
    head = " | ".join(TITLES[name] for name in settings)
    lines = [
        f"| method | answers | {head} |",
        "|---|---|" + "---|" * len(settings),
        f"| at the start | | {' | '.join(f'{start:.3f}' for start in starts)} |",
    ]
    for method in METHODS:
        cells = []
        for setting in settings:
            value, low, high = mean([row["rewards"][-1] for row in reported(rows, setting, method)])
            cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
        source = "of the start" if method in OFFLINE else "its own"
        lines.append(f"| `{method}` | {source} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]]) -> None:
    """Expected reward against steps of the bandits, rewards at the end of the language model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = dict(
        zip(
            METHODS,
            ("#c1666b", "#e09f3e", "#7b2d26", "#2a6f97", "#61a5c2", "#14532d", "#52b788"),
            strict=True,
        )
    )
    figure, axes = pyplot.subplots(1, 3, figsize=(14, 4.4))
    for axis, setting in zip(axes, BEST, strict=False):
        for method in METHODS:
            curves = np.array([row["rewards"] for row in reported(rows, setting, method)])
            if not len(curves):
                continue
            steps = EVERY * np.arange(curves.shape[1])
            bands = np.array([mean(list(at)) for at in curves.T])
            style = "--" if method in OFFLINE else "-"
            axis.plot(steps, bands[:, 0], style, color=colours[method], label=method)
            axis.fill_between(steps, bands[:, 1], bands[:, 2], color=colours[method], alpha=0.2, linewidth=0)
        axis.set(title=TITLES[setting], xlabel="step", ylabel="expected reward")
    axes[0].legend(fontsize=8, frameon=False, title="dashed: offline", title_fontsize=8)
    for place, method in enumerate(METHODS[::-1]):
        mine = [row["rewards"] for row in reported(rows, "length", method)]
        if mine:
            value, low, high = mean([one[-1] for one in mine])
            axes[2].barh(place, value, color=colours[method], alpha=0.6 if method in OFFLINE else 1.0)
            axes[2].plot([low, high], [place, place], color="black", linewidth=1.2)
            axes[2].axvline(mine[0][0], color="black", linewidth=0.8, linestyle=":")
    axes[2].set_yticks(range(len(METHODS)), METHODS[::-1])
    axes[2].set(title=TITLES["length"], xlabel="reward (dotted: at the start)")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
