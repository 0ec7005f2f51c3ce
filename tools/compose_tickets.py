"""Make the sample data's train.jsonl from the tickets written by hand.

Each hand-written ticket (tools/tickets/train_*.jsonl) comes with its main issue and further wordings of such an issue.
A composed ticket is one of these, with clauses of tools/tickets/phrases.yaml that make it urgent or not. In the
second part of the file it often has a second matter, told alike, which is not the label: words beside it say that
it is solved, can wait or is not the question, and mostly it comes first. The easier tickets come first, for training
in that order. Everything is drawn from one seed, so a second run writes the same bytes.
Run: python tools/compose_tickets.py
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
PARTS = ROOT / "tools" / "tickets"
OUT = ROOT / "src" / "tunesmith" / "embedded" / "tickets"
SEED, SINGLE, MIXED = 20, 1600, 2400
URGENCY = {"low": 0.25, "normal": 0.45, "high": 0.3}
# Shares. Of mixed tickets: with a second matter; of those: the main matter comes last, the other one has urgency words
# of its own.
SECOND, MAIN_LAST, OTHER_URGENCY = 0.8, 0.85, 0.5
# Of all: a greeting, a close; words after a normal issue, urgency before the issue; all lower case, one typo.
OPEN, CLOSE, TAIL, EARLY, LOWER, TYPO = 0.12, 0.12, 0.15, 0.25, 0.12, 0.08


def load(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def fill(text: str, phrases: Row, rng: random.Random) -> str:
    """Replace {soon}, {later} and {name} by one of their words."""
    return re.sub(r"\{(soon|later|name)\}", lambda match: rng.choice(phrases[match[1]]), text)


def add_typo(text: str, rng: random.Random) -> str:
    """One letter left out, or two swapped, inside a word."""
    spots = [match.start() for match in re.finditer(r"(?<=[a-z])[a-z](?=[a-z])", text)]
    if not spots:
        return text
    at = rng.choice(spots)
    return text[:at] + (text[at + 1] + text[at] + text[at + 2 :] if rng.random() < 0.5 else text[at + 1 :])


def with_urgency(issue: str, urgency: str, phrases: Row, rng: random.Random) -> str:
    """The issue and the words that make it urgent or not; without such words it is `normal`."""
    if urgency == "normal" and rng.random() > TAIL:
        return issue
    words = fill(rng.choice(phrases[urgency]), phrases, rng)
    if urgency == "normal" or rng.random() > EARLY:
        return f"{issue} {words}" if words[-1] in ".!?" else f"{issue} {words}."
    return f"{words if words[-1] in '.!?' else words + ':'} {issue}"


def sentence(text: str) -> str:
    return text if text[-1] in ".!?:" else f"{text}."


def with_second(main: str, intent: str, issues: list[Row], phrases: Row, rng: random.Random) -> str:
    """The main matter and one of another intent, told alike; words right beside the other one put it aside."""
    other = rng.choice([row["text"] for row in issues if row["intent"] != intent])
    if rng.random() < OTHER_URGENCY:
        other = with_urgency(other, rng.choice(["low", "high"]), phrases, rng)

    def words(kind: str) -> str:
        return fill(rng.choice(phrases[kind]), phrases, rng)

    if rng.random() >= MAIN_LAST:
        return join(
            [main, *([words("other_later"), other] if rng.random() < 0.6 else [other, words("other_after")])]
        )
    before = [words("other_before"), other] if rng.random() < 0.4 else [other, words("other_after")]
    return join([*before, words("main_before") if rng.random() < 0.5 else "", main])


def join(parts: list[str]) -> str:
    return " ".join([*(sentence(part) for part in parts[:-1] if part), parts[-1]])


def compose_one(row: Row, second: float, issues: list[Row], phrases: Row, rng: random.Random) -> Row:
    urgency = rng.choices(list(URGENCY), list(URGENCY.values()))[0]
    text = with_urgency(row["text"], urgency, phrases, rng)
    if rng.random() < second:
        text = with_second(text, row["intent"], issues, phrases, rng)
    if rng.random() < OPEN:
        text = fill(rng.choice(phrases["open"]), phrases, rng) + " " + text
    if rng.random() < CLOSE:
        text += " " + fill(rng.choice(phrases["close"]), phrases, rng)
    if rng.random() < LOWER:
        text = text.lower()
    if rng.random() < TYPO:
        text = add_typo(text, rng)
    return {
        "id": "",
        "text": text,
        "intent": row["intent"],
        "urgency": urgency,
        "area": row["area"],
        "origin": "composed",
    }


def compose(
    count: int, second: float, issues: list[Row], phrases: Row, taken: set[str], rng: random.Random
) -> list[Row]:
    """`count` rows, every issue about equally often, no text twice and none of `taken`, which grows."""
    made: list[Row] = []
    queue: list[Row] = []
    while len(made) < count:
        if not queue:
            queue = list(issues)
            rng.shuffle(queue)
        row = compose_one(queue.pop(), second, issues, phrases, rng)
        if row["text"].lower() not in taken:
            taken.add(row["text"].lower())
            made.append(row)
    return made


def main() -> None:
    rng = random.Random(SEED)
    written = [row for path in sorted(PARTS.glob("train_*.jsonl")) for row in load(path)]
    phrases = yaml.safe_load((PARTS / "phrases.yaml").read_text(encoding="utf-8"))
    issues = [
        {"text": text, "intent": row["intent"], "area": row["area"]}
        for row in written
        for text in (row["issue"], *row["variants"])
    ]
    kept = ("text", "intent", "urgency", "area", "reply")
    rows = [
        {"id": f"tr-{number:04d}"} | {key: row[key] for key in kept if key in row} | {"origin": "written"}
        for number, row in enumerate(written, 1)
    ]
    held = {row["text"].lower() for name in ("validation", "test") for row in load(OUT / f"{name}.jsonl")}
    texts = [row["text"].lower() for row in rows]
    if len(set(texts)) < len(texts) or held & set(texts):
        raise SystemExit("a written ticket occurs twice, or also among those held out")
    taken = held | set(texts)
    single = compose(SINGLE, 0.0, issues, phrases, taken, rng)
    mixed = rows + compose(MIXED, SECOND, issues, phrases, taken, rng)
    rng.shuffle(mixed)
    rows = single + mixed
    composed = (row for row in rows if row["origin"] == "composed")
    for number, row in enumerate(composed, 1):
        row["id"] = f"co-{number:05d}"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (OUT / "train.jsonl").write_text(lines, encoding="utf-8", newline="\n")
    print(f"train: {len(rows)} rows {dict(Counter(row['origin'] for row in rows))}, {len(issues)} issues")
    for field in ("intent", "urgency", "area"):
        print(f"  {field}: {dict(Counter(row[field] for row in rows).most_common())}")


if __name__ == "__main__":
    main()
