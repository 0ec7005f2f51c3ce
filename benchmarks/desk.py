"""The data desk beside the usual tools: the same rows cleaned, de-duplicated exactly and nearly, and scrubbed.

python benchmarks/desk.py --corpus docs.jsonl.gz [--rows 1000000] [--peer-rows 20000] [--repeats 1]
  [--out benchmarks/results/desk.json]
Rows: a prompt and a completion of together 60 to 120 words, in pieces of 8 to 15 words from as many places of the
corpus, so that a million of them are not near each other but where that is planted (longer pieces of four million words
would overlap); one in fifty a near-copy of an earlier one (two words changed), one in fifty an exact copy; one in ten
with a mail address, a phone or card number.
ours: `tunesmith data make --inspect` with clean, scrub and dedup; ours-apart: `data inspect`, then `data make`, seconds
of both. peer: Hugging Face
datasets (map and filter, a process a core) for the rules of cleaning that are one-liners (Unicode, white space, HTML),
datasketch's MinHash and MinHashLSH (128 permutations, threshold 0.8) on the same sequences of five letters, and
Presidio's AnalyzerEngine row by row with its pattern recognisers on a blank pipeline. The peer runs on fewer rows; rows
a second are compared. One row a run: system, rows, seconds, rows_per_s, peak_rss_gb (all processes), load, findings.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import yaml

from tunesmith.config.machine import describe_machine

PLANTED = (
    "write to {0}.{1}@mail.example please",
    "call me on +44 20 7946 0{2:03d}",
    "the card is 4111 1111 1111 1111",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer-rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--systems", default="ours,peer")
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/desk.json"))
    args = parser.parse_args()
    found = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    with tempfile.TemporaryDirectory(prefix="desk-", dir=args.scratch) as name:
        for repeat in range(args.repeats):
            for system in args.systems.split(","):
                count = args.rows if system.startswith("ours") else args.peer_rows
                path = Path(name) / f"rows-{count}.jsonl"
                if not path.exists():
                    write_rows(path, args.corpus, count)
                row = {"system": system, "rows": count, "repeat": repeat} | run(system, path, Path(name))
                print(row)
                found |= {"machine": describe_machine(), "date": date.today().isoformat()}
                found["rows"].append(row)
                args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found["rows"]))


def write_rows(path: Path, corpus: Path, count: int) -> None:
    words: list[str] = []
    with gzip.open(corpus, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            words += (row.get("text") or " ".join(m["content"] for m in row["messages"])).split()
            if len(words) > 4_000_000:
                break
    draw = random.Random(0)
    earlier: list[str] = []
    with path.open("w", encoding="utf-8") as out:
        for number in range(count):
            kind = draw.random()
            if kind < 0.02 and earlier:
                text = draw.choice(earlier)
            elif kind < 0.04 and earlier:
                copy = draw.choice(earlier).split()
                for _ in range(2):
                    copy[draw.randrange(len(copy))] = draw.choice(words)
                text = " ".join(copy)
            else:
                text = drawn(words, draw)
                if draw.random() < 0.1:
                    text += " " + draw.choice(PLANTED).format(
                        draw.choice("abc"), draw.choice("xyz"), number % 1000
                    )
                if number < 5000:
                    earlier.append(text)
            parts = text.split()
            half = len(parts) // 2
            row = {"prompt": " ".join(parts[:half]), "completion": " ".join(parts[half:])}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def drawn(words: list[str], draw: random.Random) -> str:
    """60 to 120 words in pieces of 8 to 15 from as many places, so that no two rows are alike by chance."""
    most = draw.randint(60, 120)
    text: list[str] = []
    while len(text) < most:
        at = draw.randrange(len(words) - 15)
        text += words[at : at + draw.randint(8, 15)]
    return " ".join(text[:most])


def run(system: str, path: Path, folder: Path) -> dict[str, Any]:
    if system.startswith("ours"):
        target = folder / f"out-{time.time_ns()}"
        recipe = folder / "desk.yaml"
        steps: dict[str, Any] = {"clean": {}, "scrub": {}, "dedup": {}}
        recipe.write_text(yaml.safe_dump({"output": str(target), "data": {"train": [str(path)]}, **steps}))
        make = ["-m", "tunesmith.cli.main", "data", "make", str(recipe), "--json", "--quiet"]
        look = ["-m", "tunesmith.cli.main", "data", "inspect", str(path), "--json", "--quiet"]
        commands = [look, make] if system == "ours-apart" else [[*make, "--inspect"]]
        parts = [measured([sys.executable, *command]) for command in commands]
        dropped = {step["step"]: step["dropped"] for step in json.loads(parts[-1]["said"])["steps"]}
        said = {"seconds": round(sum(one["seconds"] for one in parts), 1), "found": dropped}
        said |= {"peak_rss_gb": max(one["peak_rss_gb"] for one in parts)}
        if len(parts) > 1:
            said["inspect_seconds"] = parts[0]["seconds"]
    else:
        cache = str(folder / f"cache-{time.time_ns()}")  # what an earlier run has put down is not taken again
        command = [sys.executable, str(Path(__file__).with_name("desk_peers.py")), str(path)]
        said = measured(command, {"HF_DATASETS_CACHE": cache})
        said["found"] = json.loads(said.pop("said").splitlines()[-1])
    count = sum(1 for _ in path.open("rb"))
    return said | {"rows_per_s": round(count / said["seconds"], 1), "load": os.getloadavg()[0]}


def measured(command: list[str], more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Seconds, and the most memory that the process and all its children hold at a time (proportional shares)."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        **(more or {}),
    }
    started = time.time()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        peak, ended = [0.0], threading.Event()

        def watch() -> None:
            while not ended.wait(
                2
            ):  # to ask for the memory of a family of processes takes a tenth of a second
                peak[0] = max(peak[0], held(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        said, _ = process.communicate()
        ended.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return {"seconds": round(time.time() - started, 1), "peak_rss_gb": round(peak[0] / 1e9, 2), "said": said}


def held(pid: int) -> float:
    """Bytes; pages that processes share count once (PSS)."""
    total = 0.0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for one in family:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| system | rows | seconds | rows/s | peak memory | load |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r['system']} | {r['rows']:,} | {r['seconds']:.0f} | {r['rows_per_s']:,.0f} "
        f"| {r['peak_rss_gb']:.2f} GB | {r['load']:.1f} |"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
