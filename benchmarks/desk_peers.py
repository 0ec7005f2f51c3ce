"""The usual tools put together: `desk_peers.py ROWS.jsonl` prints what they found. See desk.py."""

from __future__ import annotations

import html
import json
import os
import re
import sys
import unicodedata
from functools import cache

import spacy
from datasets import load_dataset
from datasketch import MinHash, MinHashLSH
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import SpacyNlpEngine

PERMUTATIONS, THRESHOLD, SHINGLE = 128, 0.8, 5
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


def main() -> None:
    rows = load_dataset("json", data_files=sys.argv[1], split="train")
    cores = os.cpu_count() or 1
    rows = rows.map(clean, num_proc=cores)
    seen: set[str] = set()

    def is_new(row: dict[str, str]) -> bool:
        if key(row) in seen:
            return False
        seen.add(key(row))
        return True

    before = len(rows)
    rows = rows.filter(is_new)
    exact = before - len(rows)
    sketches = rows.map(sketch, num_proc=cores)
    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    scheme = MinHash(num_perm=PERMUTATIONS).scheme
    gone = []
    for at, row in enumerate(sketches):
        one = MinHash(num_perm=PERMUTATIONS, hashvalues=row["sketch"], scheme=scheme)
        if lsh.query(one):
            gone.append(at)
        else:
            lsh.insert(str(at), one)
    dropped = set(gone)
    rows = rows.select([at for at in range(len(rows)) if at not in dropped])
    scrubbed = rows.map(scrub, num_proc=cores)
    changed = sum(
        a["prompt"] != b["prompt"] or a["completion"] != b["completion"]
        for a, b in zip(rows, scrubbed, strict=True)
    )
    print(json.dumps({"exact": exact, "near": len(gone), "scrubbed": changed, "left": len(scrubbed)}))


def clean(row: dict[str, str]) -> dict[str, str]:
    return {
        name: " ".join(TAG.sub("", html.unescape(unicodedata.normalize("NFC", text))).split())
        for name, text in row.items()
    }


def key(row: dict[str, str]) -> str:
    return f"{row['prompt']}\x1f{row['completion']}".casefold()


def sketch(row: dict[str, str]) -> dict[str, list[int]]:
    text = f"{row['prompt']}\n{row['completion']}".casefold()
    one = MinHash(num_perm=PERMUTATIONS)
    one.update_batch([text[i : i + SHINGLE].encode() for i in range(max(1, len(text) - SHINGLE + 1))])
    return {"sketch": one.hashvalues.tolist()}


@cache
def analyser() -> AnalyzerEngine:
    class Blank(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
            self.nlp = {"en": spacy.blank("en")}

        def load(self) -> None:
            pass

    return AnalyzerEngine(nlp_engine=Blank(), supported_languages=["en"])


def scrub(row: dict[str, str]) -> dict[str, str]:
    """Presidio's default loop: the analyser with all its English pattern recognisers; findings masked by kind."""
    return {name: masked(text) for name, text in row.items()}


def masked(text: str) -> str:
    found = sorted(analyser().analyze(text, "en"), key=lambda one: one.start, reverse=True)
    for one in found:
        text = f"{text[: one.start]}<{one.entity_type}>{text[one.end :]}"
    return text


if __name__ == "__main__":
    main()
