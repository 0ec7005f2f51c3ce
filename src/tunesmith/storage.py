"""The few storage operations that checkpoints and versions of data are made of, each durable before it returns;
and a folder for what is only tried."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.errors import ResourceError, TunesmithError


def write_file(path: Path, data: bytes) -> None:
    write_parts(path, [data])


def write_whole(path: Path, data: bytes | str | Iterable[bytes]) -> None:
    """Written aside and renamed: under its name the file is whole, what it was, or absent; also where two processes
    write it. data: the content, or parts of it, one after the other."""
    aside = path.with_name(f".{path.name}-{os.getpid()}.tmp")
    content = data.encode("utf-8") if isinstance(data, str) else data
    try:
        write_parts(aside, [content] if isinstance(content, bytes) else content)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    rename(aside, path)


def made_folder(path: Path) -> Path:
    """Made, with those above it, where it is not there. Raises ResourceError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{path}: no folder can be made there ({error.strerror})", "a folder that you may write to"
        ) from error
    return path


@contextmanager
def passing_folder() -> Iterator[Path]:
    """A folder that is gone afterwards, but where an error sends its reader to a file of it."""
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-"))
    named = False
    try:
        yield folder
    except TunesmithError as error:
        named = str(folder) in str(error)
        raise
    finally:
        if not named:
            shutil.rmtree(folder)


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """One after the other, without a copy of them all."""
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    source.rename(target)
    sync_folder(target.parent)


def remove_folder(folder: Path) -> None:
    """Rename first, so that a folder with a checkpoint's name is never half there."""
    if folder.exists():
        doomed = folder.with_name(f".{folder.name}.deleted")
        if doomed.exists():
            shutil.rmtree(doomed)
        rename(folder, doomed)
        shutil.rmtree(doomed)


def need_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise disk_full(folder, num_bytes)


def disk_full(folder: Path, num_bytes: int) -> ResourceError:
    free = shutil.disk_usage(folder).free
    return ResourceError(
        f"the disk under {folder} is full: {free / 1e6:.1f} MB are free",
        f"{num_bytes / 1e6:.1f} MB for the next checkpoint",
        f"free at least {max(num_bytes - free, 0) / 1e6:.1f} MB and resume; the last checkpoint is intact",
    )


def is_disk_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
