"""Puts hostile inputs through the desk, or the loader of training: each in a process of its own that is forked from a
warm one, watched for its memory and time, and that reads a good file after it.

python -m tests.hostile.campaign --serve        answers numbers on standard input with lines of JSON
python -m tests.hostile.campaign --full --record benchmarks/results
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from tests.hostile import chats, containers, texts
from tests.hostile.inputs import ALL, GOOD, OTHER, Hostile, jsonl
from tunesmith.config.desk import Desk
from tunesmith.config.machine import describe_machine
from tunesmith.config.run import DataConfig
from tunesmith.data.load import load_splits
from tunesmith.data.readers import read_rows
from tunesmith.desk.make import Made, make
from tunesmith.errors import DataError

GENERATORS = (texts, chats, containers)
MEMORY, SWAP = 512, 8 * 2**30
"""MiB that an input may take at most; bytes of addresses that a process may ask for, so that the machine lives."""


def faults_of(hostile: Hostile, found: dict[str, Any]) -> list[str]:
    """What of the result is not as the list wants it; nothing where all is."""
    faults = []
    wanted = hostile.comes_of_it
    matched = {
        next((want for want in wanted if _is(want, said)), said): n
        for said, n in found["comes_of_it"].items()
    }
    if matched != wanted:
        faults.append(f"comes of it: {found['comes_of_it']}, not {wanted}")
    if hostile.left >= 0 and found["left"] != hostile.left:
        faults.append(f"{found['left']} rows are left, not {hostile.left}")
    if found["seconds"] > hostile.seconds:
        faults.append(f"{found['seconds']} s, not {hostile.seconds}")
    if found["mib"] > MEMORY:
        faults.append(f"{found['mib']} MiB, not {MEMORY}")
    if not found["lives"]:
        faults.append("the process did not read a good file after it")
    return faults


def _is(want: str, said: str) -> bool:
    """Messages of files and warnings are wanted by some of their words, counts by their name."""
    kind, _, words = want.partition(" ")
    return want == said or (kind in ("file", "warned") and said.startswith(kind) and words in said)


def run(hostile: Hostile, full: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tunesmith-hostile-") as name:
        folder = Path(name)
        (folder / "in").mkdir()
        _written(hostile, folder / "in", full)
        size = sum(path.stat().st_size for path in (folder / "in").iterdir() if path.is_file())
        started = time.monotonic()
        process = os.fork()
        if process == 0:
            _child(hostile, folder)
        status, peak, seconds = _watched(process)
        wall = time.monotonic() - started
        said = folder / "said.json"
        found: dict[str, Any] = {"comes_of_it": {"died": status}, "left": 0, "lives": False, "own_mib": 0}
        if said.exists():
            found = json.loads(said.read_text())
    mib = max(found.pop("own_mib"), peak)
    return {**found, "bytes": size, "seconds": round(seconds, 2), "wall": round(wall, 1), "mib": mib}


def _written(hostile: Hostile, folder: Path, full: bool) -> None:
    """In a process of its own, whose memory is no matter."""
    process = os.fork()
    if process == 0:
        try:
            hostile.write(folder, full)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(process, 0)[1] == 0, hostile


def _child(hostile: Hostile, folder: Path) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_AS, (SWAP, SWAP))
        os.chdir(folder)
        said: Counter[str] = Counter()
        try:
            left = (_desk if hostile.train is None else _train)(hostile, folder, said)
        except DataError as error:
            left = 0
            said["file " + str(error).replace("\n", " ").replace(f"{folder}/", "")] += 1
        peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
        lives = len(list(read_rows(jsonl(folder, [GOOD, OTHER], "good.jsonl")))) == 2
        whole = {"comes_of_it": said, "left": left, "lives": lives, "own_mib": peak}
        (folder / "said.json").write_text(json.dumps(whole))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _watched(process: int) -> tuple[int, int, float]:
    """Its exit status, the most memory (MiB, shared pages counted once) that it and its children held at a time, and
    the seconds that they had a processor for: a machine that does other things besides makes no input slow."""
    peak, started = 0.0, time.monotonic()
    while True:
        ended, status, used = os.wait4(process, os.WNOHANG)
        if ended:
            return status, round(peak / 1024), used.ru_utime + used.ru_stime
        peak = max(peak, sum(map(_held, _family(process))))
        time.sleep(min(0.5, 0.02 + (time.monotonic() - started) / 50))  # looking takes time too


def _family(process: int) -> list[int]:
    found = [process]
    for one in found:
        with suppress(OSError):
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found


def _held(process: int) -> int:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/smaps_rollup").read_text().split("Pss:")[1].split()[0])
    return 0


# Through the desk, and through the loader ----------------------------------------------------------------


def _desk(hostile: Hostile, folder: Path, said: Counter[str]) -> int:
    progress: Counter[str] = Counter()
    sink = _Sink(folder / "in", progress)
    made = make(Desk.model_validate(document(hostile, folder)), sink, dry_run=True)
    for file in made.files:
        said.update({f"refused {reason}": count for reason, count in file.refused.items()})
        said.update({f"read {what}": count for what, count in file.repaired.items()})
    for step in made.steps:
        said.update({f"dropped {rule}": count for rule, count in step.dropped.items()})
        said.update({f"changed {rule}": count for rule, count in step.changed.items()})
    _accounted(made)
    if "progress" in hostile.comes_of_it:
        said.update(progress)
    return sum(made.rows.values())


def document(hostile: Hostile, folder: Path) -> dict[str, Any]:
    """The recipe that the input is put through."""
    return {"output": str(folder / "out"), "data": {**_files(folder), **hostile.data}, **hostile.steps}


def _files(folder: Path) -> dict[str, list[str]]:
    files = sorted(path for path in (folder / "in").iterdir() if path.suffix)
    named = {part: [str(path) for path in files if path.stem == part] for part in ("validation", "test")}
    return {"train": [str(path) for path in files if path.stem not in named], **named}


def _accounted(made: Made) -> None:
    """Every row that was read is left or counted."""
    read, used = sum(file.rows for file in made.files), sum(file.used for file in made.files)
    refused = sum(file.refused.total() for file in made.files)
    dropped = sum(step.dropped.total() for step in made.steps)
    assert read == used + refused, made
    assert used == sum(made.rows.values()) + dropped, made


class _Sink:
    """Takes note of progress; where the input is one that changes, changes it at the first sign of it."""

    def __init__(self, folder: Path, said: Counter[str]) -> None:
        self.folder, self.said = folder, said

    def __call__(self, kind: str, /, **fields: Any) -> None:
        if kind == "progress":
            self.said["progress"] = 1
            if (self.folder / "changes").exists():
                with (self.folder / "rows.jsonl").open("a") as file:
                    file.write(json.dumps(GOOD) + "\n")


def _train(hostile: Hostile, folder: Path, said: Counter[str]) -> int:
    given = dict(hostile.train or {})
    max_length = given.pop("max_length", None)
    splits = load_splits(DataConfig.model_validate({**_files(folder), **given}), 0, folder)
    if max_length is not None:
        from tests.data.chats import renderer
        from tunesmith.data.tokens import tokenise

        tokenise(splits.train, renderer("embedded"), "assistant", max_length, "cut", splits.account)
    summary = splits.account.summary()
    said.update({f"refused {reason}": count for reason, count in summary["dropped"].items()})
    said.update({f"noted {what}": count for what, count in summary["notes"].items() if count})
    said.update(f"warned {warning}" for warning in splits.warnings)
    return int(summary["used"])


# ---------------------------------------------------------------------------------------------------------


def serve(full: bool) -> None:
    print("ready", flush=True)
    for number in map(int, sys.stdin):
        print(json.dumps(run(ALL[number], full)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--full", action="store_true", help="every input at full size")
    parser.add_argument(
        "--small", type=int, nargs="*", default=[], help="numbers that are not to be at full size"
    )
    parser.add_argument("--only", type=int, nargs="*", help="numbers")
    parser.add_argument("--record", type=Path, help="folder for a dated JSON of the results")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if given.serve:
        return serve(given.full)
    results, failed = [], 0
    for number in given.only or sorted(ALL):
        full = given.full and number not in given.small
        found = run(ALL[number], full)
        faults = faults_of(ALL[number], found)
        failed += bool(faults)
        results.append(
            {"number": number, "name": ALL[number].name, "full": full, "holds": not faults, **found}
        )
        print(number, ALL[number].name, found["seconds"], "s", found["mib"], "MiB", *faults, flush=True)
    print(f"{len(results) - failed} of {len(results)} hold")
    if given.record:
        day = date.today().isoformat()
        facts = {"date": day, "machine": describe_machine(), "inputs": results}
        given.record.mkdir(parents=True, exist_ok=True)
        (given.record / f"hostile-{day}.json").write_text(
            json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        )
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
