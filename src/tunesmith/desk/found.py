"""What a file of rows is: its format and encoding as they lie on the disk, and what its columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.data.addresses import file_named
from tunesmith.data.columns import SHAPES
from tunesmith.data.columns import Mapping as Meaning
from tunesmith.data.endings import ending_of, is_packed
from tunesmith.data.sources import byte_chunks, packing
from tunesmith.desk.looks import Column
from tunesmith.desk.rows import Shape

HEAD = 65_536
"""Bytes of a file by which line ends are told."""
_TEXT = {".jsonl": "JSON Lines", ".csv": "CSV with commas", ".tsv": "CSV with tabs", ".json": "JSON Lines"}
_BINARY = {".parquet": "Parquet", ".arrow": "Arrow"}


def format_of(address: str) -> dict[str, Any]:
    """format and encoding in words, and bytes of the file. It was read before: it is there, and not empty."""
    path = file_named(address)
    zipped = is_packed(path)
    with path.open("rb") as stream:
        head = next(byte_chunks(str(path), stream, zipped))[:HEAD]
    ending = ending_of(path)
    binary = ending in _BINARY
    name = _BINARY[ending] if binary else _TEXT[ending]
    if ending == ".json" and head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        name = "one JSON array"
    encoding = "binary" if binary else _encoding(head)
    return {
        "format": name + (f", {packing(str(path))}" if zipped else ""),
        "encoding": encoding,
        "bytes": path.stat().st_size,
    }


def _encoding(head: bytes) -> str:
    mark = ", byte order mark" if head.startswith(b"\xef\xbb\xbf") else ""
    ends = [
        name
        for name, count in (
            ("CRLF", head.count(b"\r\n")),
            ("LF", head.count(b"\n") - head.count(b"\r\n")),
            ("CR", head.removesuffix(b"\r").count(b"\r") - head.removesuffix(b"\r").count(b"\r\n")),
        )
        if count > 0
    ]
    return f"UTF-8{mark}, lines end in {' and '.join(ends)}" if ends else f"UTF-8{mark}"


def columns_of(shape: Shape, columns: Mapping[str, Column], rows: int) -> list[dict[str, Any]]:
    """Each column: the part it plays in training (empty: none), types of its values, nulls of all rows."""
    parts = parts_of(shape.meaning)
    return [
        {
            "column": name,
            "part": parts.get(name, ""),
            "types": dict(one.types.most_common()),
            "nulls": one.nulls + rows - one.rows,
            "share_of_nulls": round((one.nulls + rows - one.rows) / max(rows, 1), 4),
            "example": one.example,
        }
        for name, one in columns.items()
    ]


def parts_of(meaning: Meaning) -> dict[str, str]:
    """column -> the part it plays."""
    parts = {column: part for part, column in meaning.columns.items()}
    parts |= dict.fromkeys(meaning.json_fields, "field of the JSON answer")
    return parts | dict.fromkeys(meaning.targets, "target")


def otherwise(meaning: Meaning) -> str:
    """How to say that columns mean something else."""
    shapes = [shape for shape in SHAPES if shape.kind == meaning.kind]
    parts = list(dict.fromkeys(part for shape in shapes for part in shape.parts))
    return (
        f"data.columns.PART=COLUMN (parts of {meaning.kind} rows: {', '.join(parts)}), or data.format=KIND "
        f"({', '.join(dict.fromkeys(shape.kind for shape in SHAPES))})"
    )
