"""Kernels of our own for CPUs (*.cpp), compiled on first use and kept; without a compiler PyTorch's own are used.

`library()` is the loaded library or None, `why_not()` the reason in words. The library is built for this very processor
(-march=native) into $XDG_CACHE_HOME/tunesmith (~/.cache/tunesmith), under a name made of all that decides its content.
TUNESMITH_NATIVE=0 turns it off.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
FLAGS = (
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-std=c++17"),
    *("-fPIC", "-fvisibility=hidden"),
)
WIDE = "-mprefer-vector-width=512"
"""Where the processor has tiles: elsewhere compilers keep to narrower vectors for a reason."""
TIME_LIMIT = 120
"""Seconds that the compiler may take."""


def library() -> ctypes.CDLL | None:
    return _load()[0]


def why_not() -> str:
    """Why there is no library; empty where there is one."""
    return _load()[1]


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("TUNESMITH_NATIVE") == "0":
        return None, "TUNESMITH_NATIVE=0"
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None, "no C++ compiler (g++ or clang++) was found"
    try:
        path = _folder() / f"kernels-{_fingerprint(compiler)}.so"
        _compile_once(compiler, path)
        return ctypes.CDLL(str(path)), ""
    except subprocess.CalledProcessError as error:
        return None, f"{compiler} failed: {(error.stderr.strip().splitlines() or ['no message'])[0][:200]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{compiler} or its library could not be used: {error}"


def _folder() -> Path:
    """Where libraries are kept: the user's cache, or a folder of this user's where that cannot be written."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunesmith"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="tunesmith-"))


def _fingerprint(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    texts = [path.read_text() for path in (*SOURCES, *HEADERS)]
    parts = [*texts, " ".join(_flags()), version, platform.machine(), _processor(), *map(str, _openmp())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What it can do, in its own words."""
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists():
        return platform.processor()
    return next((x for x in cpu.read_text().splitlines() if x.startswith(("flags", "Features"))), "")


def _flags() -> tuple[str, ...]:
    return (*FLAGS, WIDE) if "amx_tile" in _processor().split() else FLAGS


def _openmp() -> list[Path]:
    """PyTorch's own OpenMP runtime, where it brings one: a second one in the process would fight for the cores."""
    return sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))[:1]


def _compile_once(compiler: str, path: Path) -> None:
    """A process that starts beside another waits for what that one builds; where the file system has no locks, both
    build."""
    if path.exists():
        return
    with path.with_suffix(".lock").open("w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _compile(compiler, path)


def _compile(compiler: str, path: Path) -> None:
    """Each file by a process of its own, on all cores; the library is built aside and renamed, so that another process
    sees a whole one or none."""

    def run(*command: str | Path) -> None:
        subprocess.run([compiler, *command], capture_output=True, text=True, check=True, timeout=TIME_LIMIT)

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        scratch = Path(folder)
        objects = [scratch / f"{source.stem}.o" for source in SOURCES]
        pairs = zip(SOURCES, objects, strict=True)
        list(pool.map(lambda pair: run(*_flags(), "-c", pair[0], "-o", pair[1]), pairs))
        run(*_flags(), "-shared", *objects, "-o", scratch / path.name, *_openmp(), "-lm")
        (scratch / path.name).replace(path)
