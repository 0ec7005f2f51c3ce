"""The rows of sentiment control: what its classifiers, its start and its recipe are trained on.

python benchmarks/sentiment_rows.py --data DATA --out FOLDER
DATA holds sst2/*.tsv, the public sentences of film reviews (label, tab, text). Writes labelled sentences in two halves
(labelled-judge.jsonl, labelled-gold.jsonl) and those of dev (labelled-dev.jsonl); and sentences of 6 to 18 words cut in
two after the third, each beginning once in all of begun-train.jsonl, begun-dev.jsonl and begun-test.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
WORDS, SHORTEST, LONGEST = 3, 6, 18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    write_rows(args.data, args.out)


def write_rows(data: Path, scratch: Path) -> None:
    """What classifiers, start and recipe are trained on: labelled sentences in two halves, and sentences cut in two."""
    scratch.mkdir(parents=True, exist_ok=True)
    train, dev, test = (sentences(data / "sst2" / f"{name}.tsv") for name in ("train", "dev", "test"))
    random.Random(0).shuffle(train)
    half = len(train) // 2
    for name, rows in (("judge", train[:half]), ("gold", train[half:]), ("dev", dev)):
        write(scratch / f"labelled-{name}.jsonl", rows)
    seen: set[str] = set()
    for name, rows in (("train", train), ("dev", dev), ("test", test)):
        write(scratch / f"begun-{name}.jsonl", begun(rows, seen))


def sentences(path: Path) -> list[dict[str, str]]:
    """Each once, with its first label."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        label, text = line.split("\t")
        found.setdefault(text, ("negative", "positive")[int(label)])
    return [{"text": text, "label": label} for text, label in found.items()]


def begun(rows: Sequence[dict[str, str]], seen: set[str]) -> Rows:
    """First words and the rest of sentences that begin as none that was seen."""
    found = []
    for words in (row["text"].split() for row in rows):
        prompt = " ".join(words[:WORDS])
        if SHORTEST <= len(words) <= LONGEST and prompt not in seen:
            seen.add(prompt)
            found.append({"prompt": prompt, "completion": " ".join(words[WORDS:])})
    return found


def write(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
