"""Wrong labels found, and what correcting them gives back: Banking77 (arXiv:2003.04807) with labels flipped on purpose.

python benchmarks/label_errors.py --data DATA --encoder FOLDER [--share 0.05] [--seeds 3] [--threads 1] [--head]
  [--keep FILE] [--out benchmarks/results/label_errors.json]
DATA holds train.csv and test.csv with columns text, category; FOLDER a sentence encoder such as all-MiniLM-L6-v2.

Of the training rows a share gets another label each, drawn evenly. The probe of `tunesmith data quality` (its defaults)
ranks all rows, on features of the encoder and on words; as many as were flipped are reviewed from the top by a reviewer
who knows the right labels, whose decisions the desk carries out. Columns: found, the share of the flipped rows among
those; named, how many rows confident learning takes for wrong; test accuracy of a model trained on the labels as they
were (clean), flipped, and reviewed; recovered = (reviewed - flipped) / (clean - flipped). Models: a logistic regression
(scikit-learn's defaults) on standardised features of the encoder; with --head also the encoder tuned with a head, seed
0 alone, by `tunesmith train`. --keep: the encoder's features are written there, and read when they are there.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunesmith.config.desk import Desk, DeskData
from tunesmith.config.machine import describe_machine
from tunesmith.config.quality import Quality
from tunesmith.config.run import Run
from tunesmith.desk.conflicts import alike
from tunesmith.desk.decisions import Decision, write_decisions
from tunesmith.desk.held import content_key, held
from tunesmith.desk.make import make
from tunesmith.desk.originals import rows_of_split
from tunesmith.desk.probe import judged
from tunesmith.evaluate.linear import softmax_of, standards
from tunesmith.types import Example, Message, RowRef, silent
from tunesmith.workflow.features import words
from tunesmith.workflow.states import states_of
from tunesmith.workflow.train import train

Rows = list[dict[str, str]]
HEAD: dict[str, dict[str, Any]] = {
    "method": {"type": "classify", "freeze": {"embeddings": True}, "head_lr_factor": 10},
    "train": {"batch_size": 32, "learning_rate": 2e-4, "epochs": 4},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--head", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/label_errors.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clean, test = read(args.data / "train.csv"), read(args.data / "test.csv")
    x = features([example(row, at) for at, row in enumerate([*clean, *test])], args)
    bags = words([example(row, at) for at, row in enumerate(clean)], 0)
    facts: dict[str, Any] = {"date": date.today().isoformat(), "machine": describe_machine(), "rows": []}
    facts |= {"train_rows": len(clean), "test_rows": len(test), "share": args.share, "threads": args.threads}
    best = linear(x, clean, test)
    for name, of_rows in (("encoder", x[: len(clean)]), ("words", bags)):
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory(prefix="label-errors-") as folder:
                row = campaign(clean, test, of_rows, seed, Path(folder), args, name)
                found = {"clean": best} | {
                    one: linear(x, rows, test) for one, rows in row.pop("labelled").items()
                }
            facts["rows"].append(row | {"linear": found | {"recovered": recovered(found)}})
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(facts, indent=1) + "\n")
            print(json.dumps(facts["rows"][-1]), flush=True)


def features(examples: list[Example], args: argparse.Namespace) -> Any:
    """Of the encoder, training rows first, standardised by these."""
    if args.keep is not None and args.keep.is_file():
        x = np.load(args.keep)
    else:
        x = states_of(str(args.encoder))(examples)
        if args.keep is not None:
            np.save(args.keep, x)
    center, scale = standards(x)
    return (x - center) / scale


def campaign(
    clean: Rows, test: Rows, x: Any, seed: int, folder: Path, args: argparse.Namespace, name: str
) -> dict[str, Any]:
    flipped, wrong = flip(clean, args.share, seed)
    source = written(folder / "rows.jsonl", flipped)
    rows = held(DeskData(train=[str(source)]), silent).rows
    labels = sorted({row["label"] for row in flipped})
    y = np.array([labels.index(row["label"]) for row in flipped])
    asked = Quality(seed=seed)
    groups, strength = alike(rows, asked.near).groups, asked.strength
    found = judged(x, y, groups, folds=asked.folds, repeats=asked.repeats, strength=strength, seed=seed)
    top = set(found.worst_first[: len(wrong)].tolist()) & wrong
    decisions = [
        Decision(content_key(row.values), str(row.ref), "relabel", label=clean[row.number]["label"])
        for row in rows
        if row.number in top
    ]
    write_decisions(folder / "decisions.jsonl", decisions)
    document = {"data": {"train": [str(source)]}, "output": str(folder / "set")}
    document |= {"review": {"decisions": str(folder / "decisions.jsonl")}}
    made = make(Desk.model_validate(document), silent)
    assert made.version is not None
    labelled: dict[str, Rows] = {
        "flipped": flipped,
        "reviewed": [dict(row) for row in rows_of_split(made.version, "train")],
    }
    out = {
        "seed": seed,
        "features": name,
        "flipped": len(wrong),
        "found": round(len(top) / len(wrong), 4),
        "named": int(found.doubtful.sum()),
        "labelled": labelled,
    }
    if args.head and seed == 0 and name == "encoder":
        tuned = {one: head(r, test, folder / one, args) for one, r in {"clean": clean, **labelled}.items()}
        out["head"] = tuned | {"recovered": recovered(tuned)}
    return out


def recovered(found: dict[str, float]) -> float:
    return round((found["reviewed"] - found["flipped"]) / (found["clean"] - found["flipped"]), 3)


def read(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return [{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)]


def flip(rows: Rows, share: float, seed: int) -> tuple[Rows, set[int]]:
    generator = random.Random(seed)
    labels = sorted({row["label"] for row in rows})
    wrong = set(generator.sample(range(len(rows)), round(share * len(rows))))
    others = {
        at: generator.choice([one for one in labels if one != rows[at]["label"]]) for at in sorted(wrong)
    }
    return [{**row, "label": others.get(at, row["label"])} for at, row in enumerate(rows)], wrong


def linear(x: Any, rows: Rows, test: Rows) -> float:
    """Test accuracy of a logistic regression on the training rows' features, which come first in x."""
    labels = sorted({row["label"] for row in rows})
    y = np.array([labels.index(row["label"]) for row in rows])
    said = softmax_of(x[: len(rows)], y, len(labels))(x[len(rows) :]).argmax(1)
    return round(float(np.mean([labels[at] == row["label"] for at, row in zip(said, test, strict=True)])), 4)


def head(rows: Rows, test: Rows, folder: Path, args: argparse.Namespace) -> float:
    folder.mkdir()
    data = {
        "train": str(written(folder / "train.jsonl", rows)),
        "test": str(written(folder / "test.jsonl", test)),
        "validation_fraction": 0,
    }
    train_ = {**HEAD["train"], "threads": args.threads}
    evaluate = {"forgetting": [], "few_shot": 0}
    document = {"name": "run", "output": str(folder), "data": data, "model": {"base": str(args.encoder)}}
    result = train(Run.model_validate({**document, **HEAD, "train": train_, "evaluate": evaluate}))
    assert result.report is not None
    tuned = next(system for system in result.report.systems if system.name == "tuned")
    return round(tuned.metrics["accuracy"].value, 4)


def written(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def example(row: dict[str, str], at: int) -> Example:
    turns = (Message("user", row["text"]), Message("assistant", row["label"]))
    return Example(RowRef("rows", at + 1), turns, label=row["label"])


if __name__ == "__main__":
    main()
