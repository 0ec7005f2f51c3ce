"""Reading run folders without loading torch: config.yaml, events.jsonl, report/metrics.json."""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.config.document import read_document
from tunesmith.errors import RunError, near_miss


@dataclass(frozen=True)
class RunFolder:
    """What a run's files say.

    status: 'finished' (it has its report), 'running' (a process holds it) or 'stopped'.
    best: the evaluation last marked best. metrics: report/metrics.json. damaged: event lines that are no JSON
    (a crash can leave one at the end).
    """

    path: Path
    config: dict[str, Any]
    status: str
    step: int = 0
    total: int | None = None
    loss: float | None = None
    best: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    damaged: int = 0

    @property
    def name(self) -> str:
        return self.path.name

    def setting(self, dotted: str) -> Any:
        """A value of config.yaml, None where it has none."""
        value: Any = self.config
        for part in dotted.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "path": str(self.path),
            "status": self.status,
            "step": self.step,
            "total": self.total,
            "loss": self.loss,
            "best": self.best or None,
            "metrics": self.metrics or None,
            "damaged_event_lines": self.damaged,
            "config": self.config,
        }


def list_runs(root: Path) -> list[RunFolder]:
    """Every run directly inside a folder, by name. Raises RunError where there is no such folder."""
    if not root.is_dir():
        raise RunError(
            f"no folder at {root}", "the folder that holds the runs", "name it: tunesmith runs list FOLDER"
        )
    return [read_run(path) for path in sorted(root.iterdir()) if (path / "config.yaml").is_file()]


def read_run(folder: Path) -> RunFolder:
    """Raises RunError where the folder is no run's, ConfigError where its config.yaml is no YAML."""
    if not (folder / "config.yaml").is_file():
        siblings = [p.parent.name for p in folder.parent.glob("*/config.yaml")]
        raise RunError(
            f"{folder} is no run folder: it has no config.yaml",
            near_miss(folder.name, siblings) if siblings else "the folder of a run",
            f"list the runs: tunesmith runs list {folder.parent}",
        )
    events, damaged = read_events(folder / "events.jsonl")
    steps = [e for e in events if e["kind"] == "step"]
    last = steps[-1] if steps else {}
    metrics = _read_metrics(folder / "report" / "metrics.json")
    return RunFolder(
        path=folder,
        config=read_document(folder / "config.yaml").values,
        status="finished" if metrics else "running" if _is_held(folder / ".lock") else "stopped",
        step=last.get("step", 0),
        total=last.get("total"),
        loss=last.get("loss"),
        best=next((e for e in reversed(events) if e["kind"] == "evaluation" and e.get("best")), {}),
        metrics=metrics,
        damaged=damaged,
    )


def _is_held(lock: Path) -> bool:
    """Whether a process holds the run: a shared lock, given back at once, is refused."""
    if not lock.is_file():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_events(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Events in order, and the number of lines that are no event."""
    events: list[dict[str, Any]] = []
    damaged = 0
    if not path.is_file():
        return events, damaged
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if isinstance(event, dict) and isinstance(event.get("kind"), str):
                events.append(event)
            else:
                damaged += bool(line.strip())
    return events, damaged


def _read_metrics(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"{path} is no JSON: {error}", "metrics.json as the run wrote it", "remove it"
        ) from None
    if not isinstance(metrics, dict):
        raise RunError(f"{path} is no JSON object", "metrics.json as the run wrote it", "remove it")
    return metrics
