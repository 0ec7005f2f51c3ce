"""Human pairs: does a reward model of a small encoder agree with people, and do ratings and rankings teach it on?

python benchmarks/harmless.py --data DATA --encoder FOLDER --scratch FOLDER [--folds 5] [--variants pairs,...]
  [--pairs N] [--threads N] [--out benchmarks/results/harmless.json]
DATA holds hh_harmless/pairs.jsonl.gz, the public transcripts of harmlessness (arXiv:2204.05862; offensive text); the
other FOLDER a sentence encoder such as all-MiniLM-L6-v2.

Five folds; conversations that begin with the same question (case and white space aside) are one group and stand in one
fold, so every pair is held out once, from a model that saw nothing of its group. Settings were chosen on the training
part of fold 0 (docs/log.md). `pairs`: a reward model on all held-in pairs or a share of them, beside the longer and the
shorter answer and a bag of words of the same pairs. `ratings` and `rankings`: the reward model's scores of the answers
of half of the held-in pairs, cut into five grades of as many each, teach another model from nothing: as single ratings
by regression and by proportional odds, and, joined by their prompts, as rankings (of two answers: the set has no more
to a prompt; answers of one grade are a tie and drop out). Held against the reward model's own preference on the
held-out pairs.

Writes harmless.json, one row a fold and variant; runs that it has are not repeated. A row keeps right and all pairs of
its groups as [right, pairs, how many such groups], which is what intervals are drawn from: groups are resampled.
--scratch keeps the reward models' scores between calls. --pairs takes that many pairs of each part, for trials.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from campaign import record

import tunesmith
from tunesmith.config.machine import describe_machine
from tunesmith.config.run import DataConfig, Run
from tunesmith.data.load import load_splits
from tunesmith.data.split import normalised
from tunesmith.evaluate.judged import bag_of_words, by_length
from tunesmith.evaluate.stats import bootstrap
from tunesmith.scoring.judged import reference_of, score_judged
from tunesmith.types import Example

LENGTH = 128
SETTINGS: dict[str, Any] = {
    "data": {"validation_fraction": 0, "test_fraction": 0, "max_length": LENGTH, "on_long_row": "cut"},
    "method": {
        "type": "reward",
        "tuning": "full",
        "head_lr_factor": 10,
        "freeze": {"embeddings": True, "layers": 3},
    },
    "train": {"epochs": 1, "batch_size": 32, "learning_rate": 2e-4, "save_every": 1_000_000},
    "evaluate": {"forgetting": []},
}
SHARES = {"pairs": 1.0, "pairs-half": 0.5, "pairs-quarter": 0.25, "pairs-eighth": 0.125}
LEARNED = {"ratings-regression": "regression", "ratings-ordinal": "ordinal", "rankings": "plackett_luce"}
TEACHER = "pairs"
GRADED, GRADES = 0.5, 5
MODEL = "reward model"
Groups = list[list[float]]
"""[right, pairs, how many such groups]."""


@dataclass(frozen=True)
class Fold:
    number: int
    train: list[Example]
    test: list[Example]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5, help="how many of the five, from the first")
    parser.add_argument("--variants", default=",".join((*SHARES, *LEARNED)))
    parser.add_argument("--pairs", type=int, help="take that many of each part, for trials")
    parser.add_argument("--threads", type=int, help="as train.threads")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/harmless.json"))
    args = parser.parse_args()
    found = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    folds = [Fold(f.number, f.train[: args.pairs], f.test[: args.pairs]) for f in folds_of(args.data)]
    for variant in args.variants.split(","):
        for fold in folds[: args.folds]:
            run = partial(from_people if variant in SHARES else from_model, variant, fold, args)
            record(found, args.out, {"variant": variant, "fold": fold.number}, run)
    print(table(found["rows"]))


def folds_of(data: Path) -> list[Fold]:
    """Groups in a seeded order, each to the fold that has the fewest pairs; what is held in is in that order too."""
    source = DataConfig(
        train=[str(data / "hh_harmless" / "pairs.jsonl.gz")],
        format="judged",
        validation_fraction=0,
        test_fraction=0,
    )
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in load_splits(source, 0).train:
        groups[group_of(example)].append(example)
    order = sorted(groups)
    random.Random(0).shuffle(order)
    parts: list[list[Example]] = [[] for _ in range(5)]
    place = {}
    for name in order:
        part = min(range(5), key=lambda i: len(parts[i]))
        parts[part] += groups[name]
        place[name] = part
    return [
        Fold(number, [e for name in order if place[name] != number for e in groups[name]], parts[number])
        for number in range(5)
    ]


def group_of(example: Example) -> str:
    """What a conversation begins with."""
    return normalised(example.prompt[0].content)


# One row of the results --------------------------------------------------------------------------------------


def from_people(variant: str, fold: Fold, args: argparse.Namespace) -> dict[str, Any]:
    """A reward model on (a share of) the held-in pairs, beside what needs no model."""
    held_in = some_of(fold.train, SHARES[variant])
    folder = scratch(args, variant, fold)
    report = trained(folder, list(map(pair_row, held_in)), {}, fold.number, args)
    scored = scores_of(folder, fold.test, args)
    said = {
        MODEL: [json.dumps(scores) for scores in scored],
        "longer answer": by_length(fold.test, 1),
        "shorter answer": by_length(fold.test, -1),
        "bag of words": bag_of_words(held_in, fold.test),
    }
    if variant == TEACHER:
        write(kept(args, fold, "held-out"), scored)
    else:
        shutil.rmtree(folder)
    right = {name: right_of(fold.test, answers) for name, answers in said.items()}
    over = {name: right[MODEL] - right[name] for name in right if name != MODEL}
    return report | {
        "systems": {name: groups_of(fold.test, values) for name, values in right.items()},
        "over": {name: groups_of(fold.test, values) for name, values in over.items()},
        "length": length(fold.test, said[MODEL]),
    }


def from_model(variant: str, fold: Fold, args: argparse.Namespace) -> dict[str, Any]:
    """A model on grades that a reward model gave: does it agree with that model, and with people?"""
    by_model, teacher = taught(fold, args)
    folder = scratch(args, variant, fold)
    rows = list(graded(some_of(fold.train, GRADED), by_model))
    report = trained(folder, rows, {"loss": LEARNED[variant]}, fold.number, args)
    said = [json.dumps(scores) for scores in scores_of(folder, fold.test, args)]
    shutil.rmtree(folder)
    return report | {
        "systems": {
            "agrees with the reward model": groups_of(fold.test, right_of(fold.test, said, teacher)),
            "agrees with people": groups_of(fold.test, right_of(fold.test, said)),
        },
        "length": length(fold.test, said),
    }


def taught(fold: Fold, args: argparse.Namespace) -> tuple[list[list[float]], list[list[float]]]:
    """The reward model's scores of held-in and held-out pairs; where they are not kept, made again."""
    inside, outside = kept(args, fold, "held-in"), kept(args, fold, "held-out")
    if not outside.exists():
        from_people(TEACHER, fold, args)
    if not inside.exists():
        teacher = args.scratch / f"{TEACHER}-{fold.number}"
        write(inside, scores_of(teacher, some_of(fold.train, GRADED), args))
    return read(inside), read(outside)


def trained(
    folder: Path, rows: Sequence[dict[str, Any]], method: dict[str, Any], seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """A run in `folder`, and what it used and cost."""
    folder.mkdir(parents=True)
    write(folder / "train.jsonl", rows)
    tree = {section: dict(values) for section, values in SETTINGS.items()}
    tree["data"] |= {"train": [str(folder / "train.jsonl")]}
    tree["method"] |= method
    tree["train"] |= {"threads": args.threads}
    run = Run.model_validate(
        tree | {"name": "run", "output": str(folder), "seed": seed, "model": {"base": str(args.encoder)}}
    )
    report = json.loads((tunesmith.train(run).folder / "report" / "metrics.json").read_text())
    return {
        "train_rows": report["data"]["splits"]["train"],
        "tokens": report["cost"]["tokens"],
        "train_seconds": round(report["cost"]["seconds"]["train"], 1),
        "threads": args.threads,
        "date": date.today().isoformat(),
        "machine": describe_machine(),
    }


def scores_of(folder: Path, examples: Sequence[Example], args: argparse.Namespace) -> list[list[float]]:
    """What the run's model says of each pair, chosen and rejected, as `tunesmith predict` would."""
    judge = tunesmith.load(folder / "run", threads=args.threads).answerer(1, 1)
    return [json.loads(text) for text in judge.answer(list(examples)).texts]


def graded(examples: Sequence[Example], by_model: Sequence[Sequence[float]]) -> Iterator[dict[str, Any]]:
    """Each answer by itself, with a grade from 1 to 5: fifths of all scores."""
    edges = np.quantile(np.array(by_model), np.arange(1, GRADES) / GRADES)
    for example, scores in zip(examples, by_model, strict=True):
        for completion, score in zip(example.completions, scores, strict=True):
            answer = {"role": "assistant", "content": completion.message.content}
            yield {"messages": [*turns(example), answer], "rating": 1 + int(np.searchsorted(edges, score))}


def some_of(examples: list[Example], share: float) -> list[Example]:
    """The first of them, so that a smaller share is part of a larger one."""
    return examples[: round(share * len(examples))]


def pair_row(example: Example) -> dict[str, Any]:
    chosen, rejected = (completion.message.content for completion in example.completions)
    return {"prompt": turns(example), "chosen": chosen, "rejected": rejected}


def turns(example: Example) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in example.prompt]


def write(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scratch(args: argparse.Namespace, variant: str, fold: Fold) -> Path:
    """Empty: what an interrupted run left is made again."""
    folder: Path = args.scratch / f"{variant}-{fold.number}"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def kept(args: argparse.Namespace, fold: Fold, part: str) -> Path:
    path: Path = args.scratch / f"scores-{fold.number}-{part}.jsonl"
    return path


# Numbers -------------------------------------------------------------------------------------------------


def right_of(
    examples: Sequence[Example], said: Sequence[str], by: Sequence[Sequence[float]] | None = None
) -> Any:
    """(N,) 1 where the answers of a pair are in people's order, 0.5 where the system does not tell them apart; or, with
    the scores `by` of another system, in that one's order (NaN where that one does not tell them apart)."""
    references = [reference_of(example) for example in examples]
    if by is not None:
        references = [json.dumps([[score, 0] for score in scores]) for scores in by]
    return score_judged(references, said, []).per_row["pair_accuracy"]


def groups_of(examples: Sequence[Example], values: Any) -> Groups:
    groups: dict[str, list[float]] = defaultdict(list)
    for example, value in zip(examples, values, strict=True):
        if not np.isnan(value):
            groups[group_of(example)].append(float(value))
    counts = Counter((sum(of_group), len(of_group)) for of_group in groups.values())
    return [[right, pairs, count] for (right, pairs), count in sorted(counts.items())]


def length(examples: Sequence[Example], said: Sequence[str]) -> dict[str, float]:
    metrics = score_judged([reference_of(e) for e in examples], said, []).metrics
    names = ("prefers_longer", "people_prefer_longer", "length_correlation")
    return {name: metrics[name] for name in names}


def share(groups: Groups) -> tuple[float, float, float, int]:
    """Share of all pairs, its interval, and how many pairs; groups are drawn with all of their pairs."""
    rows = np.repeat([[right, pairs] for right, pairs, _ in groups], [int(n) for *_, n in groups], axis=0)

    def of(kinds: Any, drawn: Any) -> Any:
        return (drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1])

    right, pairs = rows.sum(axis=0)
    return float(right / pairs), *bootstrap(rows, of), int(pairs)


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| trained on | rows a fold | what | folds | pairs | share (95 % interval) |",
        "|---|---|---|---|---|---|",
    ]
    for variant in (v for v in (*SHARES, *LEARNED) if any(r["variant"] == v for r in rows)):
        mine = [row for row in rows if row["variant"] == variant]
        size = round(float(np.mean([row["train_rows"] for row in mine])))
        for kind, before in (("systems", ""), ("over", f"{MODEL} less ")):
            for name in mine[0].get(kind, {}):
                value, low, high, pairs = share([group for row in mine for group in row[kind][name]])
                shown = f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
                lines.append(f"| {variant} | {size:,} | {before}{name} | {len(mine)} | {pairs:,} | {shown} |")
        longer = [float(np.mean([row["length"][name] for row in mine])) for name in mine[0]["length"]]
        said = f"{100 * longer[0]:.1f} % (people {100 * longer[1]:.1f} %; correlation {longer[2]:.2f})"
        lines.append(f"| {variant} | {size:,} | prefers the longer answer | {len(mine)} | | {said} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
