"""Does a classifier learn more from 50 seed rows and synthetic ones than from the seeds alone?

python benchmarks/synthetic.py --data DATA --encoder FOLDER [--seeds 5] [--out benchmarks/results/synthetic.json]
DATA holds banking77/train.csv and test.csv (arXiv:2003.04807); FOLDER a sentence encoder (all-MiniLM-L6-v2).

tickets: 50 seeds drawn from the 400 written training tickets, evenly over the 16 intents; the 300 written test tickets.
The templates are those of recipes/desk/tickets_synth.yaml, written from the list of intents in the data's README before
anything was measured. banking77: one seed of each of the 77 intents; its 3,080 test rows. Both to about 1,000 rows.
Conditions: `seeds`; `repeated`, each seed as often as makes as many rows as the others have, for more rows loosen the
regression's penalty whatever they say; `augmented`, noise and EDA; `templates` (tickets only), each as `tunesmith data
augment` and `synth` make them with their checks, told by the encoder. `real` (tickets only): all 400 written rows, what
could be had at best.
Classifiers: logistic regression (scikit-learn's defaults) on the encoder's features, and on TF-IDF of words and pairs.
Accuracy on the real test rows, mean over the draws of seeds; the gain on `seeds` and on `repeated` with a paired
bootstrap interval over test rows (95 %), of each row the mean over draws.
checks: how many of rows with a wrong label, of another matter, and of right ones each threshold drops.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tunesmith.config.augment import Augment
from tunesmith.config.machine import describe_machine
from tunesmith.config.makers import Synth
from tunesmith.desk.make import Made
from tunesmith.desk.originals import rows_of_split
from tunesmith.evaluate.stats import mean_difference
from tunesmith.types import Example, Message, RowRef, silent
from tunesmith.workflow.states import states_of
from tunesmith.workflow.synth import augment, synth

ROOT = Path(__file__).parents[1]
TICKETS = ROOT / "src/tunesmith/embedded/tickets"
SEEDS, ROWS, TEMPLATES = 50, 950, 1300
Rows = list[dict[str, str]]
Floats = NDArray[np.float64]
MOST_REAL = 1000
RELEVANCE, LABEL = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4), (0.0, 0.1, 0.2, 0.3, 0.5)


@dataclass
class Encoder:
    """Each text is read once."""

    path: str
    known: dict[str, Floats] = field(default_factory=dict)

    def __call__(self, texts: Sequence[str]) -> Floats:
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        examples = [
            Example(RowRef("text", n + 1), (Message("user", text), Message("assistant", "")))
            for n, text in enumerate(new)
        ]
        if new:
            self.known.update(zip(new, self.states(examples), strict=True))
        return np.stack([self.known[text] for text in texts])

    @cached_property
    def states(self) -> Callable[[Sequence[Example]], Floats]:
        return states_of(self.path)

    def features(self, texts: Sequence[str]) -> tuple[Floats, Encoder]:
        """As checks ask for them."""
        return self(texts), self


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/synthetic.json")
    args = parser.parse_args()
    encoder = Encoder(args.encoder)
    facts: dict[str, Any] = {"date": date.today().isoformat(), "machine": describe_machine()}
    tasks: dict[str, Callable[[], dict[str, Any]]] = {
        "tickets": lambda: tickets(encoder, args.seeds),
        "checks": lambda: checks(encoder),
        "banking77": lambda: banking(args.data / "banking77", encoder, args.seeds),
    }
    for name, task in tasks.items():
        facts[name] = task()
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(facts, indent=1) + "\n")
        print(name, json.dumps(facts[name]), flush=True)


# Conditions ----------------------------------------------------------------------------------------------


def templates_of(path: Path = ROOT / "recipes/desk/tickets_synth.yaml") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["makers"][0]
    return found


def document(folder: Path, seeds: Rows, test: Rows, encoder: Encoder, seed: int) -> dict[str, Any]:
    """What both kinds of recipe say."""
    files = {}
    for name, rows in (("train", seeds), ("test", test)):
        files[name] = [str(folder / f"{name}.jsonl")]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    share = ROWS / (ROWS + len(seeds))
    checks = {"max_share": share, "encoder": encoder.path, "relevance": RELEVANCE[0]}
    return {"data": files, "output": str(folder / "out"), "seed": seed, "checks": checks}


def augmented(common: dict[str, Any], seeds: Rows, encoder: Encoder) -> Made:
    times = -(-ROWS * 21 // (40 * len(seeds)))  # a twentieth more than is wanted
    changes = [{"kind": kind, "times": times} for kind in ("noise", "eda")]
    return augment(Augment.model_validate(common | {"changes": changes}), silent, features=encoder.features)


def templated(common: dict[str, Any], seeds: Rows, encoder: Encoder) -> Made:
    recipe = Synth.model_validate(common | {"makers": [templates_of() | {"count": TEMPLATES}]})
    return synth(recipe, silent, features=encoder.features)


def drawn(rows: Rows, count: int, seed: int) -> Rows:
    """Evenly over labels."""
    draws = random.Random(seed)
    by: dict[str, Rows] = defaultdict(list)
    for row in draws.sample(rows, len(rows)):
        by[row["label"]].append(row)
    labels = draws.sample(sorted(by), len(by))
    return [by[labels[at % len(labels)]][at // len(labels)] for at in range(count)]


def tickets(encoder: Encoder, draws: int) -> dict[str, Any]:
    train, test = (written(TICKETS / f"{split}.jsonl") for split in ("train", "test"))
    return compared(train, test, SEEDS, encoder, draws, {"augmented": augmented, "templates": templated})


def banking(folder: Path, encoder: Encoder, draws: int) -> dict[str, Any]:
    train, test = (read_csv(folder / f"{split}.csv") for split in ("train", "test"))
    return compared(train, test, 77, encoder, draws, {"augmented": augmented})


def written(path: Path) -> Rows:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{"text": r["text"], "label": r["intent"]} for r in rows if r["origin"] == "written"]


def read_csv(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return [{"text": row["text"].strip(), "label": row["category"]} for row in csv.DictReader(file)]


def compared(
    train: Rows,
    test: Rows,
    count: int,
    encoder: Encoder,
    draws: int,
    hows: dict[str, Callable[[dict[str, Any], Rows, Encoder], Made]],
) -> dict[str, Any]:
    right: dict[tuple[str, str], list[Floats]] = defaultdict(list)
    made: dict[str, list[dict[str, Any]]] = defaultdict(list)
    if len(train) <= MOST_REAL:
        for name, found in judged(train, test, encoder).items():
            right[name, "real"].append(found)
    for seed in range(draws):
        seeds = drawn(train, count, seed)
        sets = {"seeds": seeds, "repeated": [row for row in seeds for _ in range(1 + ROWS // count)]}
        for how, make in hows.items():
            with tempfile.TemporaryDirectory(prefix="synthetic-") as folder:
                done = make(document(Path(folder), seeds, test, encoder, seed), seeds, encoder)
                assert done.version is not None
                rows = [dict(row) for row in rows_of_split(done.version, "train")]
            sets[how] = [{"text": row["text"], "label": row["label"]} for row in rows]
            dropped = {rule: n for step in done.steps for rule, n in step.dropped.items()}
            probe = done.more["synthetic"]["probe_accuracy"]
            made[how].append({"seed": seed, "rows": len(rows), "dropped": dropped, "probe": probe})
        for how, rows in sets.items():
            for name, found in judged(rows, test, encoder).items():
                right[name, how].append(found)
    out: dict[str, Any] = {"seeds": count, "test_rows": len(test), "draws": draws, "made": made}
    for (name, how), of_draws in right.items():
        mean = np.mean(of_draws, axis=0)
        one: dict[str, Any] = {"accuracy": round(float(mean.mean()), 4)}
        one["of_draws"] = [round(float(each.mean()), 4) for each in of_draws]
        for base in ("seeds", "repeated") if how in hows else ():
            gain = mean_difference(np.mean(right[name, base], axis=0), mean)
            one[f"gain on {base}"] = [round(number, 4) for number in (gain.value, gain.low, gain.high)]
        out.setdefault(name, {})[how] = one
    return out


def judged(train: Rows, test: Rows, encoder: Encoder) -> dict[str, Floats]:
    """classifier -> (N,) whether it is right on each test row."""
    texts, labels = [row["text"] for row in train], [row["label"] for row in train]
    asked, wanted = [row["text"] for row in test], np.array([row["label"] for row in test])
    bag = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    features = {
        "encoder": (encoder(texts), encoder(asked)),
        "words": (bag.fit_transform(texts), bag.transform(asked)),
    }
    out = {}
    for name, (x, held) in features.items():
        model = LogisticRegression(max_iter=1000).fit(x, labels)
        out[name] = (model.predict(held) == wanted).astype(np.float64)
    return out


# Checks --------------------------------------------------------------------------------------------------


def checks(encoder: Encoder) -> dict[str, Any]:
    """Share of each kind of row that each threshold drops, of 50 seeds and of 400: right templates, the same with the
    label of another intent, and sentences of another matter (the sample data of other recipes)."""
    test = written(TICKETS / "test.jsonl")
    spec = templates_of() | {"count": 240}
    answers = [one["answer"] for one in spec["templates"]]
    turned = [one | {"answer": answers[(n + 5) % len(answers)]} for n, one in enumerate(spec["templates"])]
    sums = (ROOT / "recipes/data/sums_train.jsonl").read_text().splitlines()
    other = [json.loads(line)["question"] for line in sums[:120]]
    makers = [spec, spec | {"templates": turned}]
    makers.append({"kind": "templates", "count": 120, "templates": [{"answer": "crash", "prompt": other}]})
    out: dict[str, Any] = {}
    for count in (50, 400):
        seeds = drawn(written(TICKETS / "train.jsonl"), count, 0)
        for by in ("encoder", "words"):
            for knob, thresholds in (("relevance", RELEVANCE), ("label", LABEL)):
                for threshold in thresholds:
                    wanted: dict[str, Any] = {
                        "relevance": None,
                        "label": None,
                        "probe_least": 0,
                        "max_share": 1,
                        "novelty": None,
                    }
                    wanted |= {knob: threshold, "encoder": encoder.path if by == "encoder" else None}
                    found = dropped_of(seeds, test, encoder, makers, wanted)
                    out.setdefault(f"{count} seeds", {}).setdefault(by, {}).setdefault(knob, {})[
                        str(threshold)
                    ] = found
    return out


def dropped_of(
    seeds: Rows, test: Rows, encoder: Encoder, makers: list[dict[str, Any]], wanted: dict[str, Any]
) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="synthetic-") as name:
        common = document(Path(name), seeds, test, encoder, 0) | {"makers": makers, "checks": wanted}
        own = encoder.features if wanted["encoder"] else None
        done = synth(Synth.model_validate(common), silent, features=own)
        assert done.version is not None
        changes = (done.version.folder / "changes.jsonl").read_text().splitlines()
        gone = [json.loads(line) for line in changes]
    names = {"templates": "right", "templates 2": "wrong label", "templates 3": "other matter"}
    rules = ("other_label", "far_from_seeds")
    out = {}
    for file in done.files[2:]:
        mine = [one for one in gone if one["file"] == file.file]
        judged = file.used - sum(one["rules"][0] not in rules for one in mine)
        out[names[file.file]] = round(sum(one["rules"][0] in rules for one in mine) / judged, 3)
    probe = done.more["synthetic"].get("probe_accuracy")
    return out | ({"probe": probe} if probe is not None else {})


if __name__ == "__main__":
    main()
