"""`s3://bucket/logs/*.jsonl` and its like -> files of rows, fetched whole to this machine before they are read.

Only object stores are read, by fsspec and the package of each store; nothing is fetched from web addresses, which can
lead into a private network. Keys stand in the environment or in the store's own files, never in an address.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from tunesmith.data.scratch import scratch
from tunesmith.data.sources import CHUNK
from tunesmith.errors import DataError, TunesmithError, near_miss

PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "memory": "fsspec",
}
"""Protocols that are read -> what reads them."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_WILD = re.compile(r"[*?\[]")


def is_url(address: str) -> bool:
    return _URL.match(address) is not None


def local_path(address: str) -> str:
    """Of file:// addresses the path; any other address itself."""
    return address.removeprefix("file://") if address.startswith("file:///") else address


def listed(address: str) -> list[str] | None:
    """Addresses of the files that a pattern fits or that lie in a folder, in order; None where it names a file."""
    with _said(address):
        store, path = _store(address)
        protocol = address.split("://")[0]
        if _WILD.search(path):
            found = sorted(store.glob(path))
            if not found:
                raise DataError(f"{address}: fits no file", _near(store, path), "correct the pattern")
        elif store.isfile(path):
            return None
        else:
            found = sorted(store.find(path))
            if not found:
                raise DataError(
                    f"{address}: no such file or folder", _near(store, path), "correct the address"
                )
        return [f"{protocol}://{str(one).lstrip('/')}" for one in found]


def fetched(address: str) -> Path:
    """A copy on this machine, made once for as long as the process lives."""
    name = hashlib.sha256(address.encode()).hexdigest()[:32]
    target = scratch() / (name + "".join(PurePosixPath(address).suffixes[-2:]).lower())
    if target.exists():
        return target
    with _said(address):
        store, path = _store(address)
        if not store.exists(path):
            raise DataError(f"{address}: no such file", _near(store, path), "correct the address")
        part = target.with_name(f"part-{target.name}")
        with store.open(path, "rb") as source, part.open("wb") as file:
            while chunk := source.read(CHUNK):
                file.write(chunk)
        if part.stat().st_size != store.size(path):
            raise DataError(
                f"{address}: changed while it was fetched", fix="run again when nothing writes to it"
            )
        part.replace(target)
    return target


def _store(address: str) -> tuple[Any, str]:
    """The store's fsspec file system, and the path in it. Raises DataError for what is not read."""
    import fsspec

    found = _URL.match(address)
    assert found is not None, address
    protocol, rest = found[1].lower(), found[2]
    if protocol not in PACKAGES:
        web = protocol in ("http", "https", "ftp")
        raise DataError(
            f"{_bare(address)}: rows are not fetched by {protocol}",
            f"one of {', '.join(f'{name}://' for name in PACKAGES)}",
            "download the file and name it here" if web else near_miss(protocol, PACKAGES),
        )
    if "::" in rest:
        raise DataError(f"{_bare(address)}: one address inside another (::)", "one address", "fetch it first")
    if "@" in rest.split("/")[0] and protocol in ("s3", "gs", "gcs"):
        raise DataError(
            f"{_bare(address)}: a key in the address",
            "a bucket and a path; keys are read from the environment or the store's own files",
            "leave it out",
        )
    return fsspec.filesystem(protocol), rest


def _bare(address: str) -> str:
    """Without what may be a key or password."""
    return re.sub(r"//[^/@]*@", "//***@", address)


def _near(store: Any, path: str) -> str:
    folder = path.rstrip("/").rpartition("/")[0]
    if not store.exists(folder):
        return f"something that exists; {folder or 'the bucket'} does not either"
    names = [str(one["name"]).rpartition("/")[2] for one in store.ls(folder, detail=True)]
    close = difflib.get_close_matches(path.rpartition("/")[2], names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"{folder} holds " + (", ".join(sorted(names)[:8]) or "nothing")


@contextmanager
def _said(address: str) -> Iterator[None]:
    """Whatever a store's package raises becomes a DataError that names it."""
    try:
        yield
    except TunesmithError:
        raise
    except ImportError as error:
        package = PACKAGES.get(address.split("://")[0].lower(), "fsspec")
        raise DataError(
            f"{_bare(address)}: {package} is not installed", fix=f"pip install {package}"
        ) from error
    except Exception as error:  # each store's package has exceptions of its own
        raise DataError(
            f"{_bare(address)}: the store refuses ({type(error).__name__}: {str(error)[:200]})",
            "an address that you may read from here",
            "check the address, and the keys in your environment",
        ) from error
