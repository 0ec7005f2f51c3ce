"""Running a script in a process of its own, from a folder in which nothing of this project can be imported by being
near."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file
from torch import Tensor


def ask(script: ModuleType, asked: Any, home: Path, answers: str) -> dict[str, Tensor]:
    """Write `asked` to home/cases.json, run the script on it, and read the tensors that it writes to home/`answers`."""
    cases = home / "cases.json"
    cases.write_text(json.dumps(asked))
    done = subprocess.run(
        [sys.executable, "-P", str(Path(str(script.__file__)).resolve()), str(cases)],
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(home / answers)
