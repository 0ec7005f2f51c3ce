"""The few storage operations that a checkpoint is made of, each durable before it returns."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from tunesmith.errors import ResourceError

DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
"""As safetensors calls them."""


def write_file(path: Path, data: bytes) -> None:
    _write(path, [data])


def write_whole(path: Path, data: bytes) -> None:
    """Written aside and renamed: under its name the file is whole or absent."""
    aside = path.with_name(f".{path.name}.tmp")
    write_file(aside, data)
    rename(aside, path)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file, from where the tensors lie. The library's own writer hides which error the disk gave, and
    its `save` makes a copy, which would double the memory of a run."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = (t.reshape(-1).view(torch.uint8).numpy().data for t in tensors.values() if t.numel())
    _write(path, [len(text).to_bytes(8, "little"), text, *data])


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> None:
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
