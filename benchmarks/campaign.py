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
from tunesmith.core.device import has_bf16

Facts = dict[str, Any]


def compared(
    args: argparse.Namespace,
    made: Callable[[str, Path], Facts],
    run: Callable[[str, Facts, argparse.Namespace], Facts],
    size: Facts,
    device: str = "cpu",
) -> list[Facts]:
    """A row of every system at every workload, `args.repeats` times, and what `args.out` has beside it of this size,
    these numbers and this machine.

    made: name of a workload, and a folder of its own -> what a run needs of it; its `gate`, where it has one, is told.
    size: of the workloads; rows of another size, of other numbers or of another machine are others. args: threads,
    dtype, workloads, systems, repeats, out.
    """
    torch.set_num_threads(args.threads)
    found: Facts = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    alike = {**size, "dtype": args.dtype, "threads": args.threads, "machine": machine(device)}
    for name in args.workloads.split(","):
        with tempfile.TemporaryDirectory(prefix=f"{args.out.stem}-") as scratch:
            ready = made(name, Path(scratch))
            if "gate" in ready:
                found.setdefault("gate", {})[f"{name}, {args.layers} layers, {args.dtype}"] = ready["gate"]
            for repeat, system in order(args.systems.split(","), args.repeats):
                key = {"workload": name, **alike, "system": system, "repeat": repeat}
                record(found, args.out, key, partial(run, system, ready, args))
    return [row for row in found["rows"] if alike.items() <= row.items()]


def fastest(device: str = "cpu") -> str:
    """The numbers that the machine multiplies fastest, of those that models are trained in."""
    return "bfloat16" if has_bf16(torch.device(device)) else "float32"


def numerics(tuning: str, dtype: str, autocast: bool, kept: str) -> str:
    """What weights are computed in and kept in, in words. autocast: float32 weights, cast at each use. kept: with full
    tuning in bfloat16, what they and AdamW's state are kept in."""
    if autocast:
        return "fp32, autocast"
    if dtype == "float32":
        return "fp32"
    return kept if tuning == "full" else "adapters fp32"


def machine(device: str) -> str:
    here = describe_machine()
    return here if device == "cpu" else f"{torch.cuda.get_device_name(device)}; {here}"


def record(found: Facts, out: Path, key: Facts, run: Callable[[], Facts]) -> None:
    """Run what the file has not yet, and write it down at once."""
    if any(key.items() <= row.items() for row in found["rows"]):
        return
    row = key | {"date": date.today().isoformat()} | run()
    found["rows"].append(row)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print({k: v for k, v in row.items() if k not in ("losses", "at")}, flush=True)


def order(systems: list[str], repeats: int) -> list[tuple[int, str]]:
    """A B ... B A ...: what slows the machine down for a while hits all alike."""
    return [(r, s) for r in range(repeats) for s in (systems if r % 2 == 0 else systems[::-1])]
