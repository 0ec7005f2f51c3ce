"""Number of parameters of a stored model, from the headers of its safetensors files: no tensor is read."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def known_parameters(path: Path) -> int:
    """Parameters in a model folder (one file or shards) or in one safetensors file. Tied weights count once.

    Raises ModelError where there is no safetensors file or a header is damaged.
    """
    return sum(_count(file) for file in _files(path))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    index, single = path / "model.safetensors.index.json", path / "model.safetensors"
    if not index.is_file() and single.is_file():
        return [single]
    if not index.is_file():
        raise ModelError(
            f"{path} has no model.safetensors",
            "a model folder with safetensors weights",
            "check the path of the model",
        )
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError):
        raise ModelError(
            f"{index} can not be read", "JSON with a weight_map", "copy the model again"
        ) from None
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise ModelError(
            f"{path} lacks {missing[0]}", f"all {len(names)} shards of {index.name}", "copy the model again"
        )
    return [path / name for name in names]


def _count(file: Path) -> int:
    header = _header(file)
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _header(file: Path) -> dict[str, Any]:
    """The JSON header: 8 bytes of little-endian length, then that many bytes."""
    damaged = ModelError(
        f"{file} is damaged or no safetensors file", "a safetensors header", "copy the model again"
    )
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise damaged
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER, file.stat().st_size - 8):
            raise damaged
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            raise damaged from None
    if not isinstance(header, dict):
        raise damaged
    return header
