"""Checkpoints: whole or absent. Safetensors and JSON only, a manifest with SHA-256 of every file.

A checkpoint is written aside, synced, renamed; the name `step-000200` therefore means whole. Loading
verifies every byte; a bad one is named and the one before it is used.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tunesmith import storage
from tunesmith.errors import CheckpointError
from tunesmith.train.tensor_file import parts_of

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state.json"
TENSORS = ".safetensors"
PREFIX = "step-"


@dataclass(frozen=True)
class Snapshot:
    """What one checkpoint holds. groups: file stem -> named tensors; state: JSON."""

    groups: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in one folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def path(self, step: int) -> Path:
        return self.folder / f"{PREFIX}{step:06d}"

    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first."""
        return sorted(int(p.name.removeprefix(PREFIX)) for p in self.folder.glob(f"{PREFIX}[0-9]*"))

    def save(self, step: int, snapshot: Snapshot, best: int | None) -> Path:
        """Write a checkpoint and then remove those that are neither new nor best."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = json.dumps(snapshot.state, indent=1, sort_keys=True).encode()
        num_bytes = len(state) + sum(
            t.nbytes for tensors in snapshot.groups.values() for t in tensors.values()
        )
        aside = self.folder / f".{self.path(step).name}.tmp"
        try:
            self._sweep()
            storage.need_space(self.folder, num_bytes)
            aside.mkdir()
            for name, tensors in snapshot.groups.items():
                storage.write_parts(aside / f"{name}{TENSORS}", parts_of(tensors))
            storage.write_file(aside / STATE, state)
            digests = {file.name: storage.digest(file) for file in sorted(aside.iterdir())}
            manifest = {"format": FORMAT, "step": step, "sha256": digests}
            storage.write_file(aside / MANIFEST, json.dumps(manifest, indent=1).encode())
            storage.sync_folder(aside)
            storage.remove_folder(self.path(step))  # an unverified one of the same step, after a fallback
            storage.rename(aside, self.path(step))
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            if storage.is_disk_full(error):
                raise storage.disk_full(self.folder, num_bytes) from error
            raise
        for old in set(self.steps()) - retained(self.steps(), best, self.keep):
            storage.remove_folder(self.path(old))
        return self.path(step)

    def load(self, step: int) -> Snapshot:
        """Verify and read one checkpoint; CheckpointError names the file that is not as it was written.

        Its tensors are those of the files, mapped: whoever keeps them copies them.
        """
        folder = self.path(step)
        digests = self._manifest(folder)["sha256"]
        for name, written in digests.items():
            try:
                found = storage.digest(folder / name)
            except OSError as error:
                raise CheckpointError(
                    f"{folder / name}, which {MANIFEST} lists, cannot be read: {error.strerror}"
                ) from error
            if found != written:
                raise CheckpointError(
                    f"{folder / name} is damaged: its SHA-256 differs from the manifest's",
                    "the bytes that were written",
                    "an older checkpoint is used, if there is one",
                )
        files = [folder / name for name in digests if name.endswith(TENSORS)]
        groups = {file.name.removesuffix(TENSORS): load_file(file) for file in files}
        return Snapshot(groups, json.loads((folder / STATE).read_bytes()))

    def load_latest(self) -> tuple[int, Snapshot, list[str]] | None:
        """The newest whole checkpoint, and a message for each newer one that is damaged."""
        problems: list[str] = []
        for step in reversed(self.steps()):
            try:
                return step, self.load(step), problems
            except CheckpointError as error:
                problems.append(error.got)
        if problems:
            raise CheckpointError(
                "no checkpoint of this run is whole:\n    " + "\n    ".join(problems),
                "one whole checkpoint",
                "restore the folder, or start again with --force",
            )
        return None

    def _manifest(self, folder: Path) -> dict[str, Any]:
        path = folder / MANIFEST
        try:
            text = path.read_bytes()
            manifest = json.loads(text)
            # The manifest guards the files; its own bytes are guarded by being exactly what save() writes.
            whole = json.dumps(manifest, indent=1).encode() == text and manifest["format"] == FORMAT
            whole = whole and f"{PREFIX}{manifest['step']:06d}" == folder.name and STATE in manifest["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        if not whole:
            raise CheckpointError(f"{path} is damaged", f"a manifest of format {FORMAT}")
        return manifest  # type: ignore[no-any-return]

    def _sweep(self) -> None:
        """Remove what a crash left half-written or half-deleted."""
        for leftover in (*self.folder.glob(".*.tmp"), *self.folder.glob(".*.deleted")):
            shutil.rmtree(leftover)


def retained(steps: Iterable[int], best: int | None, keep: int) -> set[int]:
    """The steps to keep: the newest `keep`, and the best one."""
    newest = sorted(steps)[-keep:]
    return {*newest, *([best] if best is not None else [])}


def is_better(value: float, best: float | None, higher: bool, min_delta: float = 0.0) -> bool:
    """NaN is never better; a tie keeps the earlier; min_delta is what an improvement must exceed."""
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value > best + min_delta if higher else value < best - min_delta
