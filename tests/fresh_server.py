"""Run by itself, without Tunesmith: import what stock software needs, and run scripts, each in a fork.

A line of standard input is [script, path of its argument]; the answer is a line, [exit status, end of what it printed].
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO

import peft  # noqa: F401
import sentence_transformers  # noqa: F401


def run(script: str, argument: str, log: IO[bytes]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
            os.chdir(Path(argument).parent)
            sys.argv = [script, argument]
            runpy.run_path(script, run_name="__main__")
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    for line in sys.stdin:
        with tempfile.TemporaryFile() as log:
            status = run(*json.loads(line), log)
            log.seek(0)
            said = log.read().decode(errors="replace")
        print(json.dumps([status, said[-3000:]]), flush=True)


if __name__ == "__main__":
    main()
