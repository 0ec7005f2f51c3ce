"""Make the sample word problems of one step, recipes/data/sums_*.jsonl, in the shape of GSM8K's rows.

Every problem adds, takes away or multiplies two small numbers; its answer is the sum and, after ####, the number. No
question stands in two files, the pairs of numbers do. Everything is drawn from one seed, so a second run writes the
same bytes.
Run: python tools/compose_sums.py
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "recipes" / "data"
SEED = 5
ROWS = {"train": 600, "practice": 600, "validation": 60, "test": 200}
"""train: worked answers to learn the form from; practice: more questions, to be asked of the model."""

NAMES = (
    "Aino",
    "Bogdan",
    "Chiara",
    "Dewi",
    "Emeka",
    "Farida",
    "Goran",
    "Hana",
    "Ivo",
    "Jolene",
    "Kofi",
    "Lucia",
)
THINGS = ("tickets", "lamps", "mugs", "chairs", "towels", "keys", "candles", "books", "plants", "mats")
STORIES = {
    "+": (
        "{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?",
        "There are {a} {things} on the shelf. {name} puts {b} beside them. How many are on the shelf?",
        "{name} counted {a} {things} in one room and {b} in the other. How many {things} are there in all?",
        "In the morning {name} sold {a} {things}, in the afternoon {b}. How many {things} were sold that day?",
    ),
    "-": (
        "{name} has {a} {things} and gives away {b}. How many {things} are left?",
        "A box holds {a} {things}. {name} takes out {b}. How many {things} are still in it?",
        "{name} needs {a} {things} and has {b}. How many {things} are missing?",
        "Of {a} {things} in the studio {b} are broken. How many {things} can {name} still use?",
    ),
    "*": (
        "{name} fills {a} boxes with {b} {things} each. How many {things} are that?",
        "There are {a} rooms with {b} {things} in each. How many {things} must {name} clean?",
        "{name} buys {b} {things} on each of {a} days. How many {things} does {name} buy?",
        "Each of {a} guests gets {b} {things} from {name}. How many {things} does {name} need?",
    ),
}


def numbers(sign: str, rng: random.Random) -> tuple[int, int, int]:
    """Two numbers and what they come to."""
    if sign == "*":
        a, b = rng.randint(2, 5), rng.randint(2, 9)
        return a, b, a * b
    a, b = rng.randint(2, 12), rng.randint(2, 9)
    return (a, b, a + b) if sign == "+" else (a + b, b, a)


def problems(rng: random.Random) -> Iterator[dict[str, str]]:
    """Without end, and no question twice."""
    seen: set[str] = set()
    while True:
        sign = rng.choice(list(STORIES))
        a, b, result = numbers(sign, rng)
        words = {"name": rng.choice(NAMES), "things": rng.choice(THINGS), "a": a, "b": b}
        question = rng.choice(STORIES[sign]).format(**words)
        if question not in seen:
            seen.add(question)
            yield {"question": question, "answer": f"{a} {sign} {b} = {result}\n#### {result}"}


def main() -> None:
    made = problems(random.Random(SEED))
    for split, count in ROWS.items():
        lines = [json.dumps(next(made)) + "\n" for _ in range(count)]
        (OUT / f"sums_{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    print(f"{sum(ROWS.values())} problems")


if __name__ == "__main__":
    main()
