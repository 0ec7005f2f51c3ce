"""Freed blocks are kept for the next layer, in a process of its own: the C library's settings hold for all of one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import resource
from tunesmith.core.device import keep_freed_blocks
import torch
keep_freed_blocks()
def faults(elements):
    torch.ones(elements)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(elements)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(2**20), faults(2**23))
"""


def faults(**environment: str) -> tuple[int, int]:
    """Of twenty tensors of 4 MiB one after another, and of 32 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    small, large = map(int, done.stdout.split())
    return small, large


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_blocks_are_kept_unless_the_user_says_otherwise() -> None:
    small, large = faults()
    assert small < 10_000, "4 MiB are 1,024 pages: 20 times as many, were they all given back"
    assert large > 20 * 1_000, "large ones go back"
    assert faults(MALLOC_MMAP_THRESHOLD_="131072")[0] > 20 * 1_000
