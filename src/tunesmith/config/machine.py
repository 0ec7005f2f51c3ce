"""What the machine offers: memory, cores, number formats. Container limits count, not only the hardware."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_CGROUP_USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def _number(paths: tuple[str, ...]) -> int | None:
    for path in paths:
        try:
            return int(Path(path).read_text())
        except (OSError, ValueError):  # absent, or "max": no limit
            continue
    return None


def available_memory() -> int:
    """Bytes that can still be taken: the system's free memory, or what is left of the container's limit."""
    free = int(psutil.virtual_memory().available)
    limit, used = _number(_CGROUP_LIMITS), _number(_CGROUP_USED)
    return free if limit is None or used is None else max(0, min(free, limit - used))


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
