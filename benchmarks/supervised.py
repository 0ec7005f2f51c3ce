"""The supervised recipes on public data, full-parameter and LoRA, in one table.

python benchmarks/supervised.py --data DATA [--rows N] [--threads N] [--out benchmarks/results]

DATA holds gsm8k/, sgd/ and corpus/docs.jsonl.gz (rows with `text` or `messages` and a `source`): all of GSM8K is
used, and so many dialogues and documents as ROWS says, or fewer of each with --rows. Writes supervised-DATE.json
(one row a run) after each run; runs that it already has are not repeated. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

import tunesmith
from tunesmith.config.load import load_run
from tunesmith.config.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
ROWS = {"gsm8k": 7_473, "dialogue": 2_500, "pretrain": 1_000}


def slice_of_corpus(corpus: Path, target: Path, rows: int) -> str:
    """The first `rows` plain-text documents of one source: of the first that has so many, or else of the largest."""
    by_source: dict[str, list[str]] = {}
    with gzip.open(corpus, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if "text" in row:
                by_source.setdefault(row["source"], []).append(row["text"])
    source = max(by_source, key=lambda s: min(len(by_source[s]), rows))
    texts = by_source[source][:rows]
    target.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return source


def runs(data: Path, scratch: Path, most: int | None) -> list[tuple[str, str, list[str]]]:
    """(task, recipe, overrides)"""
    rows = {task: min(count, most or count) for task, count in ROWS.items()}
    documents = scratch / "documents.jsonl"
    source = slice_of_corpus(data / "corpus" / "docs.jsonl.gz", documents, rows["pretrain"])
    gsm8k, sgd = data / "gsm8k", data / "sgd"
    return [
        ("tickets", "tickets", []),
        (
            "gsm8k",
            "gsm8k",
            [
                f"data.train={gsm8k / 'train.jsonl'}",
                f"data.test={gsm8k / 'test.jsonl'}",
                f"data.limit={rows['gsm8k']}",
            ],
        ),
        (
            "dialogue",
            "dialogue",
            [
                f"data.train={sgd / 'train.jsonl.gz'}",
                f"data.test={sgd / 'test.jsonl.gz'}",
                f"data.limit={rows['dialogue']}",
            ],
        ),
        (f"pretrain ({source})", "pretrain", [f"data.train={documents}"]),
    ]


def row_of(task: str, tuning: str, report: Any) -> dict[str, Any]:
    def value(system: str, metric: str) -> float | None:
        found = next((s for s in report.systems if s.name == system), None)
        return found.metrics[metric].value if found and metric in found.metrics else None

    metric = report.primary
    return {
        "task": task,
        "tuning": tuning,
        "trainable": report.model.trainable,
        "metric": metric,
        "base": value("base", metric),
        "tuned": value("tuned", metric),
        "base_perplexity": value("base", "perplexity"),
        "tuned_perplexity": value("tuned", "perplexity"),
        "general_before": report.forgetting.before if report.forgetting else None,
        "general_after": report.forgetting.after if report.forgetting else None,
        "train_seconds": round(report.cost.seconds["train"], 1),
        "tokens_per_second": round(report.cost.tokens_per_second),
        "peak_memory_gb": round(report.cost.peak_memory_bytes / 1e9, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="most training rows of a task (default: as ROWS says)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--threads", type=int, help="as train.threads")
    parser.add_argument("--only", default="", help="run only tasks whose name begins so")
    given = parser.parse_args()
    os.chdir(ROOT)
    target = given.out / f"supervised-{date.today().isoformat()}.json"
    results = json.loads(target.read_text())["runs"] if target.exists() else []
    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as name:
        scratch = Path(name)
        for task, recipe, overrides in runs(given.data.resolve(), scratch, given.rows):
            if not task.startswith(given.only):
                continue
            for tuning in ("full", "lora"):
                if any((r["task"], r["tuning"]) == (task, tuning) for r in results):
                    continue
                extra = [f"name={recipe}-{tuning}", f"output={scratch}", f"method.tuning={tuning}"]
                extra += [f"train.threads={given.threads}"] if given.threads else []
                extra += ["train.learning_rate=null"] if tuning == "lora" else []
                run = load_run(ROOT / "recipes" / f"{recipe}.yaml", [*overrides, *extra])
                report = tunesmith.train(run).report
                results.append(row_of(task, tuning, report))
                print(json.dumps(results[-1]), flush=True)
                write(target, results, given.rows)


def write(target: Path, results: list[dict[str, Any]], most: int | None) -> None:
    facts = {
        "date": date.today().isoformat(),
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "rows": {task: min(count, most or count) for task, count in ROWS.items()},
        "runs": results,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
