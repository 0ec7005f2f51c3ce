"""Where the bytes of rows lie: the address of a file -> a file on this machine.

An address is a path, a path into an archive (`logs.zip/march.jsonl`), a `sql:` query or a URL of a store; `folders`
makes them of what `data.train` and its kin name. What is fetched or unpacked is so once, so that what is hashed is what
is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.data import archives, sql_rows, stores
from tunesmith.data.endings import is_of_rows
from tunesmith.data.sources import CHUNK, changed, open_regular
from tunesmith.errors import DataError, near_miss

SCHEMES = ("hub:", sql_rows.SQL)


def is_remote(address: str) -> bool:
    """Whether it names something that is no file or folder of this machine."""
    return address.startswith(SCHEMES) or (stores.is_url(address) and not address.startswith("file:///"))


def file_named(address: str) -> Path:
    """The file that holds what this address names. Raises DataError where it can not be had."""
    if address.startswith(sql_rows.SQL):
        return sql_rows.fetched(address)
    if stores.is_url(address):
        return stores.fetched(address)
    path = Path(address)
    if path.exists() or (found := archives.parted(address)) is None:
        return path
    archive, member = found
    members = archives.unpacked(archive, is_of_rows)
    if member not in members:
        raise DataError(f"{address}: no such member", near_miss(member, members), "correct the path")
    return members[member]


def sha256(address: str | Path) -> str:
    """Hex SHA-256 of what an address names, as it lies there."""
    digest = hashlib.sha256()
    with open_regular(file_named(str(address)), str(address)) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def unchanged(address: str) -> Iterator[None]:
    """Raises DataError where the file is another one at the end than at the beginning: what was hashed was not read."""
    before = _stamp(address)
    yield
    if _stamp(address) != before:
        raise changed(address)


def _stamp(address: str) -> tuple[int, int, int] | None:
    found = None if is_remote(address) else archives.parted(address)
    try:
        facts = os.stat(address if found is None else found[0])
    except OSError:
        return None  # what is fetched is a copy of our own; of what is missing those say so who open it
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
