"""From a file of short rows to token rows, first and again, beside `datasets`; and the time to the first step.

python benchmarks/data.py [--rows 1000000] [--repeats 3] [--peer-python PYTHON] [--systems ours-head,...]
  [--out benchmarks/results/data.json]
Systems: ours-generate and ours-head (a class written, a class of a head), each fresh and then from the cache;
peer-generate and peer-head: the same texts through `datasets` on all cores with the embedded tokenizer, as TRL's
SFTTrainer (a template for each row) and as the Trainer's examples (`map(batched=True)`) do it, without splits,
duplicates or checks of rows; start: a process that trains one step on 100 rows. One row a run, each a process of its
own: system, rows, cpu_seconds (its children's too), wall_seconds, peak_rss_gb. Beside other work only the CPU seconds
mean something.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

SYSTEMS = "ours-generate,ours-head,peer-generate,peer-head,start"
FOLDER = Path(__file__).parents[1] / "src" / "tunesmith" / "embedded"
CLASSES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--peer-python", default=sys.executable, help="a Python that has datasets and transformers"
    )
    parser.add_argument("--systems", default=SYSTEMS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/data.json"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measured(*args.child)))
        return
    from tunesmith.config.machine import describe_machine  # a peer's process may have none of ours

    found = json.loads(args.out.read_text()) if args.out.exists() else []
    with tempfile.TemporaryDirectory(prefix="data-") as scratch:
        files = {count: write_rows(Path(scratch), count) for count in (args.rows, 100)}
        today = date.today().isoformat()
        here = {"cores": os.cpu_count(), "machine": describe_machine(), "date": today}
        for system in args.systems.split(",") * args.repeats:
            file = files[100] if system == "start" else files[args.rows]
            for again in (False, True) if system.startswith("ours") else (False,):
                python = args.peer_python if system.startswith("peer") else sys.executable
                done = subprocess.run(
                    [python, __file__, "--child", system, str(file), scratch],
                    env={
                        **os.environ,
                        "XDG_CACHE_HOME": f"{scratch}/{len(found) - again}",
                        "HF_DATASETS_CACHE": f"{scratch}/hf",
                    },
                    capture_output=True,
                    text=True,
                )
                if done.returncode:
                    sys.exit(f"{system}: {done.stderr[-2000:]}")
                row = {"system": system, "cached": again, **json.loads(done.stdout.splitlines()[-1])}
                found.append(row | here | {"load": os.getloadavg()[0]})
                print(json.dumps(found[-1]), flush=True)
                args.out.write_text(json.dumps(found, indent=1) + "\n")


def write_rows(folder: Path, count: int) -> Path:
    """Texts of 4 to 10 words of the general sample and one of 20 classes, seeded."""
    rng = random.Random(7)
    words = [word for word in (FOLDER / "general.txt").read_text().split() if word.isalpha()]
    path = folder / f"rows-{count}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(count):
            writer.writerow(
                [" ".join(rng.choices(words, k=rng.randint(4, 10))), f"class_{rng.randrange(CLASSES)}"]
            )
    return path


def measured(system: str, file: str, scratch: str) -> dict[str, Any]:
    """What one process takes, its imports not counted but for `start`."""
    work = {
        "ours-generate": lambda: ours(file, scratch, {}),
        "ours-head": lambda: ours(file, scratch, {"method": {"type": "classify"}}),
        "peer-generate": lambda: peer(file, written),
        "peer-head": lambda: peer(file, asked),
        "start": lambda: start(file, scratch),
    }[system]()
    before, began = cpu_seconds(), time.perf_counter()
    rows = work()
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "rows": rows,
        "cpu_seconds": round(cpu_seconds() - before, 2),
        "wall_seconds": round(time.perf_counter() - began, 2),
        "peak_rss_gb": round(peak * 1024 / 1e9, 2),
    }


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def ours(file: str, scratch: str, settings: dict[str, Any]) -> Any:
    from tunesmith.config.run import Run
    from tunesmith.types import silent
    from tunesmith.workflow.prepare import prepare

    run = Run.model_validate({"data": {"train": [file]}, **settings})
    return lambda: sum(map(len, prepare(run, Path(scratch) / "run", silent).rows.values()))


def peer(file: str, encode: Any) -> Any:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "base-8m")

    def work() -> int:
        rows = load_dataset("csv", data_files=file, split="train")
        done = rows.map(
            encode,
            batched=encode is asked,
            fn_kwargs={"tokenizer": tokenizer},
            num_proc=os.cpu_count(),
            load_from_cache_file=False,
        )
        return len(done)

    return work


def asked(rows: dict[str, Any], tokenizer: Any) -> Any:
    return tokenizer(rows["text"], truncation=True, max_length=1024)


def written(row: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """As TRL 1.16 prepares a prompt and its completion: both rendered and tokenised, the prompt again by itself."""
    prompt = [{"role": "user", "content": row["text"]}]
    whole = [*prompt, {"role": "assistant", "content": row["label"]}]
    begin = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = tokenizer.apply_chat_template(whole, return_dict=True)["input_ids"]
    return {"input_ids": ids, "completion_mask": [0] * len(begin) + [1] * (len(ids) - len(begin))}


def start(file: str, scratch: str) -> Any:
    command = [
        sys.executable,
        "-m",
        "tunesmith.cli.main",
        "train",
        "--data",
        file,
        "--output",
        f"{scratch}/runs",
    ]
    settings = ["train.max_steps=1", "data.validation_fraction=0", "data.test_fraction=0", "--name", "start"]

    def work() -> int:
        subprocess.run([*command, *settings], check=True, capture_output=True)
        return 100

    return work


if __name__ == "__main__":
    main()
