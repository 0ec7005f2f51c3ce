"""Work that may end the process it runs in, done in another one.

Libraries below Python can abort on a damaged file where nothing can be caught: Arrow 26 does so when it is asked for a
column chunk of a Parquet file whose footer contradicts itself.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn


class Ended(Exception):
    """A signal ended the process that did the work, or it met an error."""


def apart(work: Callable[[], Any]) -> Any:
    """What `work` returns, something that JSON can say. Elsewhere than on Linux, where a fork is not safe or not
    there, it is done in this process."""
    if sys.platform != "linux":
        return work()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the work needs none of theirs
        process = os.fork()
    if process == 0:
        os.close(reading)
        _child(work, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(process, 0)
    if status:
        raise Ended
    return json.loads(said)


def _child(work: Callable[[], Any], writing: int) -> NoReturn:
    """Never returns: what the parent was about to do is not this process's. What a library says as it dies is not for
    the parent's screen."""
    status = 1
    try:
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        said = json.dumps(work()).encode()
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(said)
        status = 0
    finally:
        os._exit(status)
