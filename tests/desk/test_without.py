"""Scrubbing finds what it finds without the libraries that take seconds to load, which can still be loaded after it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from tunesmith.config.desk import Scrub
from tunesmith.desk.scrub import Scrubbing

scrubbing = Scrubbing.of(Scrub())
print([one.kind for one in scrubbing.finder.found("call me on +44 20 7946 0123")])
print(sorted({"torch", "transformers"} & sys.modules.keys()))
import torch
print(torch.ones(2).sum().item())
"""


def test_scrubbing_loads_neither_torch_nor_transformers() -> None:
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["['PHONE']", "[]", "2.0"]
