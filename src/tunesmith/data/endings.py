"""Which files are files of rows, by their names."""

from __future__ import annotations

from pathlib import PurePath

PACKED = (".gz", ".zst")
"""Endings after those of a file of rows: gzip, Zstandard."""
ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


def ending_of(path: PurePath) -> str:
    """'.csv' of rows.csv and of rows.CSV.gz."""
    return PurePath(path.stem if is_packed(path) else path.name).suffix.lower()


def is_packed(path: PurePath) -> bool:
    return path.suffix.lower() in PACKED


def is_of_rows(name: str) -> bool:
    """Whether a folder or archive is read for a file of this name in it: hidden ones and descriptions are not."""
    path = PurePath(name)
    hidden = any(piece.startswith(".") or piece == "__MACOSX" for piece in path.parts)
    return ending_of(path) in ENDINGS and path.name not in NOT_ROWS and not hidden
