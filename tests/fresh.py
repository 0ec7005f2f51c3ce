"""Running a script in a process of its own, in which nothing of this project was ever imported, from a folder in which
nothing of it can be imported by being near.

Importing the libraries is what takes time: one process (`fresh_server`) does that, and scripts run in forks of it.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

SERVER = Path(__file__).with_name("fresh_server.py")


def ask(script: ModuleType, asked: Any, home: Path, answers: str) -> dict[str, Tensor]:
    """Write `asked` to home/cases.json, run the script on it, and read the tensors that it writes to home/`answers`."""
    cases = home / "cases.json"
    cases.write_text(json.dumps(asked))
    stdin, stdout = _server().stdin, _server().stdout
    assert stdin is not None
    assert stdout is not None
    stdin.write(json.dumps([str(Path(str(script.__file__)).resolve()), str(cases)]) + "\n")
    stdin.flush()
    status, said = json.loads(stdout.readline())
    assert status == 0, said
    return load_file(home / answers)


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-P", str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )

    def end() -> None:
        server.communicate()

    atexit.register(end)
    return server
