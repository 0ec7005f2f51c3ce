"""Safetensors files without a copy of what is written."""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch
from torch import Tensor

DTYPES = {
    torch.int16: "I16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
"""As safetensors calls them."""


def parts_of(tensors: dict[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Of a safetensors file, from where the tensors lie. The library's own writer hides which error the disk gave, and
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
    yield len(text).to_bytes(8, "little")
    yield text
    yield from (t.cpu().reshape(-1).view(torch.uint8).numpy().data for t in tensors.values() if t.numel())
