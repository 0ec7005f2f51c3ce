"""Originals that a data set does not keep, read again from where its rows came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.data.readers import read_rows, sha256
from tunesmith.desk.reading import plain
from tunesmith.desk.versions import Version
from tunesmith.errors import DataError, RowError


def read_again(made: Version, wanted: Mapping[int, tuple[str, int]]) -> dict[int, dict[str, Any]]:
    """number -> columns. wanted: number -> file (or query, or other address) and line. Raises DataError for what is
    gone or another one."""
    known = {one["file"]: one["sha256"] for one in made.manifest["sources"]}
    out: dict[int, dict[str, Any]] = {}
    for file in sorted({file for file, _ in wanted.values()}):
        lines = {line: number for number, (of, line) in wanted.items() if of == file}
        if fault := _fault(file, known[file]):
            raise DataError(
                f"{len(lines):,} rows were scrubbed or show what was, and {file} {fault}",
                "that file as it was: the data set keeps no originals (scrub.keep_originals: false)",
                "put it back; or scrub with scrub.keep_originals=true, and guard changes.jsonl as you guard the rows",
            )
        for line, values in read_rows(file):
            found = None if isinstance(values, RowError) else plain(values)
            if line in lines and isinstance(found, dict):
                out[lines[line]] = found
    return out


def _fault(file: str, known: str) -> str | None:
    try:
        return None if sha256(file) == known else "is not the file that they were read from"
    except DataError as error:
        return f"is gone ({error.got})"
