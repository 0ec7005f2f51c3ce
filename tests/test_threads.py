"""Threads that wait do not spin: set before PyTorch is imported, and only where the user has not said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("said", "found"), [(None, "4000"), ("5", "5")])
def test_waiting_threads_do_not_spin_unless_told_to(said: str | None, found: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    if said is not None:
        environment["GOMP_SPINCOUNT"] = said
    code = "import tunesmith, os, sys; assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found
