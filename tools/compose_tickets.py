"""Make the sample data's train.jsonl and validation.jsonl from the tickets written by hand.

The hand-written rows (tools/tickets/written_*.jsonl) are kept in parts. 80 of them, balanced by
intent, are held out whole as validation. The parts of the others are recombined: the issue (the row's
own, or one of its retellings in tools/tickets/paraphrases_*.jsonl) gives intent and area, the urgency
clause gives the urgency, an aside is a second issue that is not the label. Everything is drawn from
one seed, so a second run writes the same bytes.
Run: python tools/compose_tickets.py
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
WRITTEN = ROOT / "tools" / "tickets"
OUT = ROOT / "src" / "tunesmith" / "embedded" / "tickets"
SEED, HELD_OUT, COMPOSED, PER_ISSUE, PER_LONG_ISSUE, LONG = 20, 80, 4000, 2, 1, 40
ASIDE, OPEN, CLOSE, NOISE = 0.18, 0.2, 0.12, 0.15
URGENCY = {"low": 0.19, "normal": 0.53, "high": 0.28}

# Issues (by ticket number) whose own words are already high or low: no clause may contradict them.
HOT = {21, 24, 27, 91, 97, 108, 135, 139, 144, 148, 149, 152, 153, 172, 216, 219, 221, 253, 264, 297, 298}
HOT |= {321, 335, 366, 369, 374, 402, 410, 433, 461, 463, 480}
COOL = {36, 37, 39, 47, 48, 103, 112, 116, 158, 161, 173, 180, 181, 183, 184, 186, 192, 225, 227, 229, 231}
COOL |= {232, 233, 234, 245, 252, 274, 288, 303, 313, 317, 326, 329, 356, 367, 377, 391, 396, 406, 408}
COOL |= {413, 423, 424, 434, 437, 439, 448, 449, 450, 451, 454, 455, 469, 471}

# A high clause ("the tax office closes at noon") only fits problems of its own kind.
KIND = dict.fromkeys(["wrong_charge", "refund", "cancel", "change_plan", "payout"], "money")
KIND |= dict.fromkeys(["invoice_copy", "export", "delete_account", "feature_request"], "papers")
# Clauses and asides that lean on what they were written beside.
LEANS = re.compile(
    r"\b(he|she|his|hers?|him|they|them|both|ones?)\b|^(and )?(it|that|the (next|date|private))\b"
    r"|private|stranger|dream|hold still|what day",
    re.I,
)
# A low clause that fits any issue; the others ("purely cosmetic") stay with their own intent.
ANY_LOW = re.compile(
    r"hurry|rush|\bhaste|whenever|any time|plenty of time|your time|good time|leisure|\bwait\b|pressure"
    r"|stress|pressing|urgen|some ?day|any (day|week)|slow day|bored|biggie|chill|it suits|quiet week",
    re.I,
)
CLOSE_CLASH = re.compile(r"\b(it|this|eyes|send|HELP)\b")
# What an aside is about: it is not put beside an issue of the same topic.
PLAN = r"cancel|trial|leav|stopped|contract|\bplan\b|pay nothing|yearly|seat|downgrad"
TOPIC = {
    "login": r"password|log ?in|sign|locked",
    "crash": r"crash|freez|hung|\bapp\b|web page",
    "sync": r"google|outlook|calendar",
    "booking_error": r"book|calendar|sunday",
    "how_to": r"question",
    "payout": r"payout|reader|card",
    "reminders": r"\btext|remind|\bmails?\b",
    "export": r"export|list|copy",
    "delete_account": r"delete|erase|profile|leav",
    "team_access": r"colleague|rights|rota|sign|log in",
    "refund": r"refund|money|paid|gave|return",
    "wrong_charge": r"charg|twice|price|bill|money",
    "invoice_copy": r"invoice|receipt|bill",
    "cancel": PLAN,
    "change_plan": PLAN,
}
TRADES = [
    re.compile(p, re.I)
    for p in (
        r"\bdogs?\b|groom|agility|whippet|hund",
        r"barber|hair|salon|\bcuts\b|brows|lashes",
        r"swim|pool|surf|sail",
        r"potter|kiln|glaze|ceramic|clay|keramik",
        r"cello|violin|piano|guitar|drum|\boud\b|harp|choir|tabla|horn",
        r"physio|patient|osteopath|therap|massage|doctor|dentist",
        r"farrier|horse|riding|stable|sheep",
        r"chess",
        r"tattoo|henna",
        r"escape room|pharaoh",
        r"danc|ballet|salsa|capoeira",
        r"weav",
        r"driv",
        r"tutor|math",
        r"yoga|bowls|midwif|bellies",
        r"wine|\bvan\b|locksmith|drone|book ?binding|camps?\b",
    )
]


def load(path: Path) -> list[Row]:
    """Read a JSON Lines file, or nothing where there is none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def part(row: Row, kind: str) -> str:
    return next((text for name, text in row["parts"] if name == kind), "")


def hold_out(rows: list[Row], rng: random.Random) -> list[Row]:
    """The validation rows: as many of each intent, from the files in turn, urgencies near their shares."""
    left = list(rows)
    rng.shuffle(left)
    intents = sorted({row["intent"] for row in rows})
    files = sorted({row["file"] for row in rows})
    shares = ("normal", "low", "high", "normal", "high", "low")
    picked: list[Row] = []
    for turn in range(min(HELD_OUT, len(rows))):
        lap, place = divmod(turn, len(intents))
        want = (intents[place], files[(lap + place) % len(files)], shares[(lap + place) % len(shares)])
        best = max(
            left,
            key=lambda row: (row["intent"] == want[0], row["file"] == want[1], row["urgency"] == want[2]),
        )
        left.remove(best)
        picked.append(best)
    return picked


def temper(row: Row) -> tuple[str, bool]:
    """The urgency that the issue itself fixes ('': a clause decides), and whether it needs no clause."""
    number = int(row["id"].split("-")[1])
    if row["urgency"] != "normal" and not part(row, "urgency"):
        return str(row["urgency"]), True
    return "high" if number in HOT else "low" if number in COOL else "", False


def mixed_trades(parts: list[str]) -> bool:
    """Whether the parts speak of more than one line of work ('chess coaching' and 'my dogs')."""
    return sum(any(trade.search(p) for p in parts) for trade in TRADES) > 1


def pick_clause(row: Row, urgency: str, pool: list[Row], rng: random.Random) -> str:
    """An urgency clause with that label which can stand beside this row's issue."""
    kind = KIND.get(row["intent"], "desk")
    fits = [
        clause
        for other in pool
        if (clause := part(other, "urgency"))
        and other["urgency"] == urgency
        and (
            other["intent"] == row["intent"]
            or (
                not LEANS.search(clause)
                and (
                    ANY_LOW.search(clause) if urgency == "low" else KIND.get(other["intent"], "desk") == kind
                )
            )
        )
    ]
    return rng.choice(fits) if fits else ""


def pick_aside(row: Row, pool: list[Row], rng: random.Random) -> str:
    topic = TOPIC.get(row["intent"], r"(?!)")
    asides = [part(other, "aside") for other in pool if other["intent"] != row["intent"]]
    fits = [a for a in asides if a and not LEANS.search(a) and not re.search(topic, a, re.I)]
    return rng.choice(fits) if fits else ""


def join(parts: list[str]) -> str:
    """Join with one space; a full stop where a capital follows an open end."""
    text = ""
    for piece in (p for p in parts if p):
        if text and text[-1].isalnum() and piece[0].isupper() and not piece.startswith("I "):
            text += "."
        text += (" " if text else "") + piece
    return text


def add_noise(text: str, rng: random.Random) -> str:
    """One small slip of the keyboard, or two."""
    for _ in range(rng.choice([1, 1, 2])):
        slip = rng.choice(["drop", "swap", "lower", "apostrophe"])
        spots = [m.start() for m in re.finditer(r"(?<=[a-z])[a-z](?=[a-z])", text)]
        if slip == "lower":
            text = text.lower()
        elif slip == "apostrophe" and re.search(r"\w['’]\w", text):
            text = re.sub(r"(?<=\w)['’](?=\w)", "", text)
        elif spots:
            at = rng.choice(spots)
            text = text[:at] + (
                text[at + 1] + text[at] + text[at + 2 :] if slip == "swap" else text[at + 1 :]
            )
    return text


def compose_one(row: Row, pool: list[Row], rng: random.Random) -> tuple[list[str], str]:
    """One new order of parts around this row's issue, and its urgency."""
    fixed, carried = row["temper"]
    urgency = fixed or rng.choices(list(URGENCY), list(URGENCY.values()))[0]
    wants_clause = not carried and (urgency != "normal" or rng.random() < 0.2)
    clause = pick_clause(row, urgency, pool, rng) if wants_clause else ""
    if not carried and not clause:
        urgency = "normal"
    aside = pick_aside(row, pool, rng) if rng.random() < ASIDE else ""
    opens = [part(r, "open") for r in pool if part(r, "open")]
    opening = rng.choice(opens) if rng.random() < OPEN else ""
    closes = [
        c
        for r in pool
        if (c := part(r, "close"))
        and len(c.split()) < 7
        and not LEANS.search(c)
        and not CLOSE_CLASH.search(c)
    ]
    if opening:  # a close with a capital may sign with another name
        closes = [c for c in closes if c == c.lower()]
    close = rng.choice(closes) if closes and rng.random() < CLOSE else ""
    early = clause.endswith(":") or (clause[:1].isupper() and clause.endswith(".") and rng.random() < 0.12)
    before = rng.random() < 0.5
    return [
        opening,
        aside if before else "",
        clause if early else "",
        part(row, "issue"),
        "" if early else clause,
        "" if before else aside,
        close,
    ], urgency


def retold(rows: list[Row]) -> list[Row]:
    """Each row with its own issue and with each of its retellings, one row for each."""
    told: dict[str, list[str]] = {}
    for path in sorted(WRITTEN.glob("paraphrases_*.jsonl")):
        for row in load(path):
            told.setdefault(row["id"], []).extend(row["issues"])
    out: list[Row] = []
    for row in rows:
        for issue in (part(row, "issue"), *told.get(row["id"], [])):
            parts = [[kind, issue if kind == "issue" else text] for kind, text in row["parts"]]
            out.append(row | {"parts": parts})
    return out


def with_clauses(rows: list[Row]) -> list[Row]:
    """The rows, and more of them that only lend their new urgency clauses."""
    told = {
        row["id"]: row["urgency"]
        for path in sorted(WRITTEN.glob("paraphrases_*.jsonl"))
        for row in load(path)
        if "urgency" in row
    }
    more = [row | {"parts": [["urgency", clause]]} for row in rows for clause in told.get(row["id"], [])]
    return rows + more


def compose(rows: list[Row], taken: set[str], rng: random.Random) -> list[Row]:
    """The composed rows: every issue about equally often, no text twice."""
    issues, rows = retold(rows), with_clauses(rows)
    slots: list[Row] = []
    for turn in range(PER_ISSUE):
        short = [r for r in issues if turn < PER_LONG_ISSUE or len(part(r, "issue").split()) <= LONG]
        rng.shuffle(short)
        slots += short
    made: list[Row] = []
    seen: set[tuple[str, ...]] = set()
    for row in slots[:COMPOSED]:
        for _ in range(200):
            parts, urgency = compose_one(row, rows, rng)
            text = join(parts)
            key = tuple(sorted(p for p in parts if p))
            if key in seen or text.lower() in taken or (mixed_trades(parts) and len(key) > 1):
                continue
            seen.add(key)
            taken.add(text.lower())
            if rng.random() < NOISE:
                text = add_noise(text, rng)
                taken.add(text.lower())
            made.append(
                {
                    "id": f"co-{len(made) + 1:05d}",
                    "text": text,
                    "intent": row["intent"],
                    "urgency": urgency,
                    "area": row["area"],
                    "origin": "composed",
                }
            )
            break
    return made


def finished(row: Row) -> Row:
    """A written row as it is published: its text in place of its parts."""
    out = {"id": row["id"], "text": " ".join(text for _, text in row["parts"])}
    out |= {key: row[key] for key in ("intent", "urgency", "area", "reply") if key in row}
    return out | {"origin": "written"}


def main() -> None:
    rng = random.Random(SEED)
    files = sorted(WRITTEN.glob("written_*.jsonl"))
    rows = [row | {"file": path.name, "temper": temper(row)} for path in files for row in load(path)]
    test = {row["text"].lower() for row in load(OUT / "test.jsonl")}
    held = hold_out(rows, rng)
    held_ids = {row["id"] for row in held}
    held_parts = {text for row in held for _, text in row["parts"]}
    kept = [row for row in rows if row["id"] not in held_ids]
    pool = [row | {"parts": [p for p in row["parts"] if p[1] not in held_parts]} for row in kept]
    validation = [finished(row) for row in held]
    written = [finished(row) for row in kept]
    texts = [row["text"].lower() for row in written + validation]
    if len(set(texts)) < len(texts) or test & set(texts):
        raise SystemExit("a written ticket occurs twice, or also in test.jsonl")
    made = compose(pool, set(texts) | test, rng)
    train = written + made
    rng.shuffle(train)
    validation.sort(key=lambda row: str(row["id"]))
    for name, data in (("train", train), ("validation", validation)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in data)
        (OUT / f"{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
        print(f"{name}: {len(data)} rows {dict(Counter(row['origin'] for row in data))}")
        for field in ("intent", "urgency", "area"):
            print(f"  {field}: {dict(Counter(row[field] for row in data).most_common())}")


if __name__ == "__main__":
    main()
