"""What the machine offers: memory, cores and number formats. A container's limits count."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

import psutil

DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"
"""What may be asked for as the device that a model computes on."""


def trim_memory() -> None:
    """Gives back what this process has freed and its allocator keeps, where that can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


LIMIT, USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def available_memory() -> int:
    """Bytes that can still be taken: the system's, or what is left of the control group's limit."""
    free = int(psutil.virtual_memory().available)
    if USED.exists() and (limit := _group_limit()) is not None:
        free = min(free, limit - int(USED.read_text()))
    return max(free, 0)


def total_memory() -> int:
    """Bytes, taken or not: the system's, or the control group's limit."""
    total, limit = int(psutil.virtual_memory().total), _group_limit()
    return total if limit is None else min(total, limit)


def _group_limit() -> int | None:
    said = LIMIT.read_text().strip() if LIMIT.exists() else "max"
    return None if said == "max" else int(said)


def physical_cores() -> int:
    """Cores, without hyper-threads, that this process may use; at least 1."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 natively; emulated, it is slower than float32."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False
    return any(
        flag in line.split()
        for line in text.splitlines()
        if line.startswith("flags")
        for flag in ("avx512_bf16", "amx_bf16")
    )


def describe_machine() -> str:
    """The processor's name, whether it multiplies bfloat16 natively, its cores and memory, in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    memory = psutil.virtual_memory().total / 2**30
    name += " with bfloat16" if cpu_has_bf16() else ""
    return f"{name}, {physical_cores()} cores, {memory:.0f} GiB, {platform.system()}"
