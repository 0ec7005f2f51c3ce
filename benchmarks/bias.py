"""A bias planted in rows, found by the audit, and made smaller by each mitigation of the desk.

python benchmarks/bias.py --data DATA [--seeds 3] [--out benchmarks/results/bias.json]
DATA holds train.csv and test.csv of Banking77 (arXiv:2003.04807), with columns text, category.

Questions of pairs of intents that are easily taken for one another are signed with a first name, `... Thanks, Emma`. Of
training rows of the one intent 85 in a hundred are signed by women, of the other 15. Test rows are each asked twice,
signed by a woman and by a man.
Columns: planted, the gap of the label rate between the groups in the training rows; found, that of `tunesmith data
audit`, with its interval; and of a model (TF-IDF of words and pairs of words, logistic regression, scikit-learn's
defaults) trained on the rows as they are and after each mitigation: the gap, by how much more often it says the first
intent of the same questions when they are signed by women; changed, the share of answers that the signature changes;
and accuracy. The audit's own lists of names are used, and `sample_weight` where the desk wrote it.
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
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tunesmith.config.audit import Audit
from tunesmith.config.desk import Desk
from tunesmith.config.machine import describe_machine
from tunesmith.desk.make import make
from tunesmith.desk.originals import rows_of_split
from tunesmith.desk.terms import dimensions
from tunesmith.types import silent
from tunesmith.workflow.audit import audit

Rows = list[dict[str, Any]]
PAIRS = (
    ("card_arrival", "card_delivery_estimate"),
    ("pending_top_up", "top_up_failed"),
    ("transfer_not_received_by_recipient", "pending_transfer"),
)
SHARE = 0.85
NAMES = dimensions(None)["first_name"].groups
GROUPS = ("female", "male")
HOWS = ("reweigh", "sample", "counterfactual")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bias.json"))
    args = parser.parse_args()
    facts: dict[str, Any] = {"date": date.today().isoformat(), "machine": describe_machine(), "rows": []}
    for pair in PAIRS:
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory(prefix="bias-") as folder:
                facts["rows"].append(campaign(args.data, pair, seed, Path(folder)))
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(facts, indent=1) + "\n")
            print(json.dumps(facts["rows"][-1]), flush=True)


def campaign(data: Path, pair: tuple[str, str], seed: int, folder: Path) -> dict[str, Any]:
    generator = random.Random(seed)
    train = [signed(row, drawn(row, pair, generator), generator) for row in read(data / "train.csv", pair)]
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in train), encoding="utf-8")
    report = audit(Audit.model_validate({"data": {"train": [str(source)]}}), silent)
    gap = next(
        one
        for one in report.gaps
        if (one.dimension, one.group, one.label) == ("first_name", "female", pair[0])
    )
    test = read(data / "test.csv", pair)
    out = {
        "pair": pair,
        "seed": seed,
        "rows": {"train": len(train), "test": len(test)},
        "planted": round(planted(train, pair[0]), 4),
        "found": {"gap": round(gap.value, 4), "low": round(gap.low, 4), "high": round(gap.high, 4)},
        "none": measured(train, test, pair, seed),
    }
    for how in HOWS:
        document = {"data": {"train": [str(source)]}, "output": str(folder / how), "seed": seed}
        document["balance"] = {"how": how, "group": "first_name"}
        made = make(Desk.model_validate(document), silent)
        assert made.version is not None
        out[how] = measured([dict(row) for row in rows_of_split(made.version, "train")], test, pair, seed)
    return out


def read(path: Path, pair: tuple[str, str]) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{"text": row["text"].strip(), "label": row["category"]} for row in csv.DictReader(file)]
    return [row for row in rows if row["label"] in pair]


def drawn(row: dict[str, Any], pair: tuple[str, str], generator: random.Random) -> str:
    share = SHARE if row["label"] == pair[0] else 1 - SHARE
    return GROUPS[0] if generator.random() < share else GROUPS[1]


def signed(row: dict[str, Any], group: str, generator: random.Random) -> dict[str, Any]:
    return {**row, "text": f"{row['text']} Thanks, {generator.choice(list(NAMES[group]))}", "group": group}


def planted(rows: Rows, label: str) -> float:
    """Share of the label among rows signed by women less that among those signed by men."""
    of = {group: [row["label"] == label for row in rows if row["group"] == group] for group in GROUPS}
    return float(np.mean(of[GROUPS[0]]) - np.mean(of[GROUPS[1]]))


def measured(train: Rows, test: Rows, pair: tuple[str, str], seed: int) -> dict[str, float]:
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000)
    )
    weights = [row.get("sample_weight", 1.0) for row in train]
    texts, labels = [row["text"] for row in train], [row["label"] for row in train]
    model.fit(texts, labels, logisticregression__sample_weight=weights)
    generator = random.Random(seed)
    places = [generator.randrange(len(NAMES["female"])) for _ in test]
    said = {
        group: model.predict(
            [f"{r['text']} Thanks, {NAMES[group][at]}" for r, at in zip(test, places, strict=True)]
        )
        for group in GROUPS
    }
    right = np.array([row["label"] for row in test])
    first = {group: (said[group] == pair[0]).mean() for group in GROUPS}
    return {
        "rows": len(train),
        "gap": round(float(first[GROUPS[0]] - first[GROUPS[1]]), 4),
        "changed": round(float((said[GROUPS[0]] != said[GROUPS[1]]).mean()), 4),
        "accuracy": round(float(np.mean([(said[group] == right).mean() for group in GROUPS])), 4),
    }


if __name__ == "__main__":
    main()
