"""A run is a folder: config.yaml, events.jsonl, checkpoints/, model/, report/. One process at a time."""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith.errors import RunError

LOCK = ".lock"


def _strict(value: Any) -> Any:
    """The value with texts for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _numbers(value: Any) -> Any:
    """The inverse of `_strict`."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


class RunFolder:
    """The paths of a run, its lock and its events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.events = path / "events.jsonl"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.report = path / "report"
        self.dropped = path / "dropped.jsonl"
        self.vllm = path / "vllm"

    def is_started(self) -> bool:
        return self.config.exists()

    def is_finished(self) -> bool:
        return (self.report / "metrics.json").exists()

    def is_foreign(self) -> bool:
        """Something is here, and nothing says that a run made it."""
        if not self.path.is_dir() or self.config.exists() or self.events.exists():
            return False
        return any(path.name != LOCK for path in self.path.iterdir())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; a second process is refused. The lock goes with the process, however it dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise RunError(
                    f"{self.path} is in use by process {file.read().strip() or 'unknown'}",
                    "one process for a run folder",
                    "wait for it, stop it, or choose another --name",
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def emit(self, kind: str, /, **fields: Any) -> None:
        """Append one event: `kind`, `time` (seconds since 1970) and its fields.

        A number that is not finite is written as the text "NaN", "Infinity" or "-Infinity", as in metrics.json.
        """
        event = _strict({"kind": kind, "time": round(time.time(), 3), **fields})
        line = json.dumps(event, default=str, allow_nan=False).encode()
        with self.events.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # what a crash left of an event does not take this one with it
                    line = b"\n" + line
            file.write(line + b"\n")

    def read_events(self, *kinds: str) -> list[dict[str, Any]]:
        """Events of these kinds, oldest first; a line cut off by a crash is passed over."""
        if not self.events.exists():
            return []
        events = []
        for line in self.events.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # only a crash in the middle of an append leaves such a line
            if event["kind"] in kinds:
                events.append(event)
        return events

    def curve(self, kind: str) -> list[dict[str, Any]]:
        """Events that carry a step, one a step: where a resumed run took a step again, the later one. Numbers
        that are not finite are numbers again."""
        by_step = {event["step"]: _numbers(event) for event in self.read_events(kind)}
        return [by_step[step] for step in sorted(by_step)]
