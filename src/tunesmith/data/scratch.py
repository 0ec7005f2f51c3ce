"""A folder for what is fetched or unpacked: this process's own, gone when it ends."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path


@functools.cache
def scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-fetched-"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not by a process that was forked from it
        shutil.rmtree(folder, ignore_errors=True)
