"""The process in which a step is tried before a run; what it does is in `probe`.

It may be started before anything else: while the run's process loads libraries and rows, this one loads its own on
another core.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

Child = subprocess.Popen[str]


def start() -> Child:
    """A child that loads its libraries and waits for what it is to measure. It ends when its input is closed."""
    return subprocess.Popen(
        [sys.executable, "-m", "tunesmith.train.probe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TQDM_DISABLE": "1"},
    )


@contextmanager
def standing_by() -> Iterator[Child]:
    """Such a child, ended with the block also where nobody asked it."""
    with start() as child:
        try:
            yield child
        finally:
            child.kill()
