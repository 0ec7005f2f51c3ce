"""What comparisons of systems have in common: what was run is written down at once, and not run again."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tunesmith.config.machine import describe_machine

Facts = dict[str, Any]


def compared(
    args: argparse.Namespace,
    made: Callable[[str, Path], Facts],
    run: Callable[[str, Facts, argparse.Namespace], Facts],
    size: Facts,
    device: str = "cpu",
) -> Facts:
    """The results in `args.out`, with a row of every system at every workload, `args.repeats` times.

    made: name of a workload, and a folder of its own -> what a run needs of it; its `gate`, where it has one, is told.
    size: of the workloads; rows of another size are others. args: threads, workloads, systems, repeats, out.
    """
    torch.set_num_threads(args.threads)
    found: Facts = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    for name in args.workloads.split(","):
        with tempfile.TemporaryDirectory(prefix=f"{args.out.stem}-") as scratch:
            ready = made(name, Path(scratch))
            found |= {
                "machine": machine(device),
                "date": date.today().isoformat(),
                "threads": args.threads,
            }
            if "gate" in ready:
                found.setdefault("gate", {})[f"{name}, {args.layers} layers"] = ready["gate"]
            for repeat, system in order(args.systems.split(","), args.repeats):
                key = {"workload": name, **size, "system": system, "repeat": repeat}
                record(found, args.out, key, partial(run, system, ready, args))
    return found


def machine(device: str) -> str:
    here = describe_machine()
    return here if device == "cpu" else f"{torch.cuda.get_device_name(device)}; {here}"


def record(found: Facts, out: Path, key: Facts, run: Callable[[], Facts]) -> None:
    """Run what the file has not yet, and write it down at once."""
    if any(key.items() <= row.items() for row in found["rows"]):
        return
    row = key | run()
    found["rows"].append(row)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print({k: v for k, v in row.items() if k not in ("losses", "at")}, flush=True)


def order(systems: list[str], repeats: int) -> list[tuple[int, str]]:
    """A B ... B A ...: what slows the machine down for a while hits all alike."""
    return [(r, s) for r in range(repeats) for s in (systems if r % 2 == 0 else systems[::-1])]
