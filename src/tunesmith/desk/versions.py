"""A data set as a folder of versions: each is whole or not there, and none is ever changed.

    tickets/
      current              number of the version that is used
      versions/0001/       train.jsonl, validation.jsonl, test.jsonl: the rows
                           origins.jsonl: of each row its file and line
                           changes.jsonl: every row that was changed or dropped, as it was (scrubbed: masked), and why
                           refused.jsonl: rows that could not be read
                           manifest.json: hashes, counts, every step; card.md, card.html: the same for people

A version is made in a folder whose name begins with a dot, and gets its name when all is on the disk: a crash at any
moment leaves the versions before it as they were, and nothing that looks like a new one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from tunesmith.data.folders import CURRENT, VERSIONS
from tunesmith.data.strict_json import parse_object
from tunesmith.errors import DataError, ResourceError
from tunesmith.storage import digest, is_disk_full, made_folder, sync_folder, write_whole

MANIFEST = "manifest.json"
ORIGINS, CHANGES, REFUSED = "origins.jsonl", "changes.jsonl", "refused.jsonl"
MAKING = ".making-"
"""Before the number of the process that makes a version."""
FORMAT = 1


@dataclass(frozen=True)
class Version:
    folder: Path

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @property
    def manifest(self) -> dict[str, Any]:
        return parse_object((self.folder / MANIFEST).read_text(encoding="utf-8"))

    def check(self) -> None:
        """Raises DataError for a file that is missing or not as the manifest says."""
        for name, facts in self.manifest["files"].items():
            path = self.folder / name
            if not path.is_file():
                raise DataError(
                    f"{path}: missing", "every file that the manifest lists", "make the version again"
                )
            if digest(path) != facts["sha256"]:
                raise DataError(f"{path}: not the file that the manifest lists", fix="make the version again")


@dataclass
class Draft:
    """A version that is being made. folder: for its files; version: once it is one."""

    folder: Path
    version: Version | None = None


@dataclass(frozen=True)
class DataSet:
    """folder: of the data set."""

    folder: Path

    def versions(self) -> list[Version]:
        folder = self.folder / VERSIONS
        names = sorted(p for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []
        return [Version(path) for path in names]

    def version(self, number: int | None = None) -> Version:
        """The current one, or that of this number. Raises DataError where there is none."""
        if number is None:
            path = self.folder / CURRENT
            if not path.is_file():
                raise DataError(f"{self.folder}: no data set of the desk", f"a folder with a file {CURRENT}")
            number = int(path.read_text().strip())
        found = next((one for one in self.versions() if one.number == number), None)
        if found is None:
            known = ", ".join(str(one.number) for one in self.versions()) or "none"
            raise DataError(f"{self.folder}: no version {number}", f"one of: {known}")
        return found

    @contextmanager
    def making(self) -> Iterator[Draft]:
        """The next version: it becomes one when the block ends without an error."""
        folder = made_folder(self.folder / VERSIONS)
        _sweep(folder)
        target = made_folder(folder / f"{MAKING}{os.getpid()}-{uuid4().hex}")
        try:
            draft = Draft(target)
            yield draft
            number = self._publish(target)
        except BaseException as error:
            shutil.rmtree(target, ignore_errors=True)
            if isinstance(error, OSError) and is_disk_full(error):
                raise ResourceError(
                    f"the disk under {folder} is full",
                    "room for the rows twice, once as they are worked on",
                    "free some, and run it again; versions before are as they were",
                ) from error
            raise
        write_whole(self.folder / CURRENT, f"{number:04d}\n")
        draft.version = self.version(number)

    def _publish(self, target: Path) -> int:
        for path in sorted(target.iterdir()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(target)
        while True:
            number = max((one.number for one in self.versions()), default=0) + 1
            try:
                target.rename(target.with_name(f"{number:04d}"))
            except OSError:  # another process has just made a version of this number
                if not target.with_name(f"{number:04d}").exists():
                    raise
                continue
            sync_folder(target.parent)
            return number


def _sweep(folder: Path) -> None:
    """Takes away what processes left that died while they made a version."""
    for path in folder.glob(f"{MAKING}*"):
        if not psutil.pid_exists(int(path.name.removeprefix(MAKING).partition("-")[0])):
            shutil.rmtree(path, ignore_errors=True)


def manifest_text(manifest: dict[str, Any]) -> str:
    return json.dumps({"format": FORMAT, **manifest}, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
