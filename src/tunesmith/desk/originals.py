"""Originals that a data set does not keep, read again from the files that its rows came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.data.readers import read_rows, sha256
from tunesmith.desk.reading import plain
from tunesmith.desk.versions import Version
from tunesmith.errors import DataError, RowError


def read_again(made: Version, wanted: Mapping[int, tuple[str, int]]) -> dict[int, dict[str, Any]]:
    """number -> columns. wanted: number -> file and line. Raises DataError for a file that is gone or another one."""
    known = {Path(one["file"]).resolve(): one["sha256"] for one in made.manifest["sources"]}
    out: dict[int, dict[str, Any]] = {}
    for file in sorted({file for file, _ in wanted.values()}):
        lines = {line: number for number, (of, line) in wanted.items() if of == file}
        path = Path(file)
        if not path.is_file() or sha256(file) != known[path.resolve()]:
            raise DataError(
                f"{len(lines):,} rows were scrubbed or show what was, and {file} is "
                + ("not the file that they were read from" if path.is_file() else "gone"),
                "that file as it was: the data set keeps no originals (scrub.keep_originals: false)",
                "put it back; or scrub with scrub.keep_originals=true, and guard changes.jsonl as you guard the rows",
            )
        for line, values in read_rows(file):
            found = None if isinstance(values, RowError) else plain(values)
            if line in lines and isinstance(found, dict):
                out[lines[line]] = found
    return out
