"""Make the sample pairs of support replies, embedded/replies/pairs.jsonl, from the parts in tools/replies.yaml.

The chosen reply is in the house voice: no name, what was found, one thing to do now, signed "- Mara, support". The
rejected one greets by name, says too much or nothing, or signs otherwise. Everything is drawn from one seed, so a
second run writes the same bytes.
Run: python tools/compose_replies.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PARTS = ROOT / "tools" / "replies.yaml"
OUT = ROOT / "src" / "tunesmith" / "embedded" / "replies" / "pairs.jsonl"
SEED = 12
SIGNED = "- Mara, support"


def pair(
    ask: str, solution: dict[str, Any], empty: list[str], parts: dict[str, Any], rng: random.Random
) -> dict[str, str]:
    """One row: the customer's message, and the two replies."""
    name, found, step = rng.choice(parts["names"]), solution["found"], solution["step"]
    opening = rng.choice(parts["openings"])
    text = opening + (
        ask[0].lower() + ask[1:] if opening and not ask.startswith(("I ", "I'", "Larkhouse")) else ask
    )
    nothing, more = rng.sample(empty, 2)
    words = {"name": name, "found": found, "step": step, "empty": nothing, "empty2": more}
    return {
        "prompt": f"{text}{rng.choice(parts['closings'])} {name}",
        "chosen": f"{found} {step} {SIGNED}",
        "rejected": rng.choice(parts["flaws"]).format(**words),
    }


def main() -> None:
    parts = yaml.safe_load(PARTS.read_text(encoding="utf-8"))
    rng = random.Random(SEED)
    rows = [
        pair(ask, solution, topic["empty"], parts, rng)
        for topic in parts["topics"].values()
        for solution in topic["solutions"]
        for ask in solution["asks"]
    ]
    rng.shuffle(rows)
    OUT.parent.mkdir(exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    OUT.write_text(lines, encoding="utf-8", newline="\n")
    print(f"{len(rows)} pairs on {len(parts['topics'])} topics")


if __name__ == "__main__":
    main()
