"""Many rows shared out among processes: Python's own work on a row takes one core, however many there are.

The processes are forked, so they have the rows without a copy, and run nothing but this work. What they make of a part
they write into files, which the parent takes in the order of the rows. A part that a process did not end (it met an
error, or was killed) the parent does itself: it meets an error as if it had been alone.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.machine import physical_cores

Made = tuple[Mapping[str, NDArray[Any]], Any]
"""Arrays by name, and what JSON can say beside them."""
Work = Callable[[range], Made]
SAID = "said.json"
STOP = "stop"
"""A file that says that no further part is wanted."""


@dataclass(frozen=True)
class Sharing:
    """processes: how many; least: rows from which they pay; part: rows that are worked on at a time."""

    processes: int
    least: int = 50_000
    part: int = 10_000

    @classmethod
    def by_cores(cls) -> Sharing:
        """One process for each core; none elsewhere than on Linux, where a fork is not safe or not there."""
        return cls(physical_cores() if sys.platform == "linux" else 1)

    def pays(self, count: int) -> bool:
        return self.processes > 1 and count >= self.least


ALONE = Sharing(1)


class Beforehand:
    """Parts that other processes make while this one still collects what comes after them. offer: says how much there
    is by now. made: ends that, and gives the parts that are done."""

    def __init__(self, work: Work, sharing: Sharing, folder: Path) -> None:
        self._work, self._sharing, self._folder = work, sharing, folder
        self._running: set[int] = set()

    def offer(self, count: int, last: bool) -> None:
        """range(count) is there, and last: nothing will follow. One process less than there are cores is at it: this
        one has work of its own."""
        if not self._sharing.pays(count):
            return
        self._running = {process for process in self._running if os.waitpid(process, os.WNOHANG)[0] == 0}
        stop = count if last else count - count % self._sharing.part
        tasks = [task for task in _tasks(stop, self._sharing, self._folder) if not task[1].exists()]
        if tasks and (last or len(self._running) < self._sharing.processes - 1):
            self._running.add(_forked(tasks, self._work))

    def made(self) -> list[tuple[int, Made]]:
        """Where each part that is there begins, and what was made of it."""
        (self._folder / STOP).touch()
        while self._running:
            os.waitpid(self._running.pop(), 0)
        found = [(int(folder.name), folder) for folder in self._folder.iterdir() if (folder / SAID).exists()]
        return [(start, _read(folder)) for start, folder in sorted(found)]

    def end(self) -> None:
        _killed(self._running)


@contextmanager
def beforehand(work: Work, sharing: Sharing) -> Iterator[Beforehand]:
    """No process of it is left at the end."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-rows-") as name:
        started = Beforehand(work, sharing, Path(name))
        try:
            yield started
        finally:
            started.end()


def shared_out(
    count: int, work: Work, sharing: Sharing, meanwhile: Callable[[], object] | None = None
) -> list[Made]:
    """What `work` makes of each part of range(count), in order. meanwhile: what this process does while the others
    work."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-rows-") as name:
        tasks = _tasks(count, sharing, Path(name))
        _run(min(sharing.processes, len(tasks)), tasks, work, meanwhile)
        return [_read(folder) if (folder / SAID).exists() else work(part) for part, folder in tasks]


Task = tuple[range, Path]
"""A part, and the folder that it goes to."""


def _tasks(count: int, sharing: Sharing, folder: Path) -> list[Task]:
    parts = [range(at, min(at + sharing.part, count)) for at in range(0, count, sharing.part)]
    return [(part, folder / str(part.start)) for part in parts]


def _run(
    processes: int,
    tasks: Sequence[Task],
    work: Work,
    meanwhile: Callable[[], object] | None,
) -> None:
    """Ends when every process has ended, however it did."""
    running: set[int] = set()
    try:
        for _ in range(processes):
            running.add(_forked(tasks, work))
        if meanwhile is not None:
            meanwhile()
        for process in tuple(running):
            os.waitpid(process, 0)
            running.remove(process)
    finally:
        _killed(running)


def _killed(running: set[int]) -> None:
    while running:
        process = running.pop()
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _forked(tasks: Sequence[Task], work: Work) -> int:
    """A process that works on these."""
    with _tokenizers_alone(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of threads: what runs below needs none of theirs
        process = os.fork()
        if process == 0:
            _child(tasks, work)
    return process


def _child(tasks: Sequence[Task], work: Work) -> NoReturn:
    """Works on parts that no other process has taken, one after another: none waits for one on a busier core. Never
    returns: what the parent was about to do is not this process's."""
    parent = os.getppid()
    try:
        gc.freeze()  # the parent's rows, which a search for garbage would copy
        for part, folder in tasks:
            if os.getppid() != parent or (folder.parent / STOP).exists():
                break
            if _taken(folder):
                _write(folder, *work(part))
    finally:
        os._exit(0)


def _taken(folder: Path) -> bool:
    """Whether this process is the one that makes the part."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _write(folder: Path, arrays: Mapping[str, NDArray[Any]], said: Any) -> None:
    """What is said goes last: a folder that holds it is whole."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    (folder / SAID).write_text(json.dumps(said))


def _read(folder: Path) -> Made:
    arrays = {path.stem: np.load(path, allow_pickle=False) for path in folder.glob("*.npy")}
    return arrays, json.loads((folder / SAID).read_text())


@contextmanager
def _tokenizers_alone() -> Iterator[None]:
    """Inside, a process that is forked tokenises on its one core: its threads did not come with it."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
