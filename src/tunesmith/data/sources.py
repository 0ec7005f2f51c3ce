"""Bytes from a file that may be anything: checked before the first row, read in bounded pieces."""

from __future__ import annotations

import difflib
import gzip
import os
import stat
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO

from tunesmith.errors import DataError, RowError
from tunesmith.types import RowRef

zstd: ModuleType | None
try:
    zstd = import_module("backports.zstd")
except ImportError:
    zstd = None
_DAMAGED: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile)
if zstd is not None:
    _DAMAGED += (zstd.ZstdError,)

MAX_LINE = 64 * 2**20  # bytes of one record, after decompression
CHUNK = 2**20
BOM = b"\xef\xbb\xbf"
BOMB_BYTES, BOMB_RATIO = 256 * 2**20, 500  # text compresses some 3 to 50 times; gzip can reach 1,032

SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "a Parquet file", "give it the ending .parquet"),
    (b"ARROW1", "an Arrow file", "give it the ending .arrow"),
    (b"\x1f\x8b", "a gzip file", "give it the ending .gz"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "give it the ending .zst"),
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)", "unpack it, or save the sheet as CSV"),
    (b"\x80\x02", "a Python pickle", "pickles can run code and are never read: export as JSONL"),
    (b"\x80\x03", "a Python pickle", "pickles can run code and are never read: export as JSONL"),
    (b"\x80\x04", "a Python pickle", "pickles can run code and are never read: export as JSONL"),
    (b"\x80\x05", "a Python pickle", "pickles can run code and are never read: export as JSONL"),
    (b"\xff\xfe", "UTF-16 or UTF-32 text", "iconv -f utf-16 -t utf-8 (or utf-32)"),
    (b"\xfe\xff", "UTF-16 text", "iconv -f utf-16 -t utf-8"),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "iconv -f utf-32 -t utf-8"),
    (b"{\x00", "UTF-16 text without a mark", "iconv -f utf-16le -t utf-8"),
    (b"\x00{", "UTF-16 text without a mark", "iconv -f utf-16be -t utf-8"),
    (b"<!doctype html", "an HTML page", "the download gave a page (an error? a log-in?): fetch the file"),
    (b"<html", "an HTML page", "the download gave a page (an error? a log-in?): fetch the file"),
)


class UnreadableRow(RowError):
    """A row that could not even be read. raw: what stands in the file, cut to 2 kB."""

    def __init__(self, error: RowError, file: str, line: int, raw: str) -> None:
        super().__init__(error.reason, error.got, file=file, line=line, fix=error.fix)
        self.field = error.field
        self.raw = raw[:2048]


def located(error: RowError, ref: RowRef) -> RowError:
    """The same error, naming the row it is about."""
    named = RowError(error.reason, error.got, file=ref.file, line=ref.line, fix=error.fix)
    named.field = error.field  # its name already stands in `got`
    return named


@contextmanager
def open_regular(path: Path, name: str = "") -> Iterator[IO[bytes]]:
    """The file, if it is a regular file with something in it, and unchanged while it was read.

    Raises DataError for a missing file (naming the nearest names of that folder), a folder, a pipe or device,
    an empty file, one that may not be read, or one that changed meanwhile. name: what messages call it.
    """
    name = name or str(path)
    try:
        # Not blocking, so that a pipe without a writer cannot hang us before it is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DataError(f"{name}: no such file", _names_near(path), "correct the path") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be opened ({error.strerror})", "a readable file") from None
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(before.st_mode) else "a pipe or device"
        fix = "name the files in it" if stat.S_ISDIR(before.st_mode) else "write the rows to a file first"
        raise DataError(f"{name}: is {kind}", "a regular file", fix)
    with os.fdopen(descriptor, "rb") as stream:
        if before.st_size == 0:
            raise DataError(f"{name}: the file is empty", "at least one row")
        yield stream
        after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise changed(name)


def changed(name: str) -> DataError:
    return DataError(f"{name}: the file changed while it was read", fix="run again when nothing writes to it")


def _names_near(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"a file that exists; the folder {folder} does not exist either"
    names = sorted(entry.name for entry in folder.iterdir())
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    if close:
        return f"a file that exists; did you mean {' or '.join(close)}?"
    return f"a file that exists; {folder} holds " + (", ".join(names[:8]) or "nothing")


def byte_chunks(path: str, stream: IO[bytes], zipped: bool) -> Iterator[bytes]:
    """The content in pieces of 1 MiB, unpacked by the ending of `path`; raises DataError for damaged content or a
    decompression bomb."""
    if not zipped:
        while chunk := stream.read(CHUNK):
            yield chunk
        return
    produced = 0
    try:
        with _opened(path, stream) as unzipped:
            while chunk := unzipped.read(CHUNK):
                produced += len(chunk)
                if produced > BOMB_BYTES and produced > BOMB_RATIO * stream.tell():
                    raise DataError(
                        f"{path}: grows more than {BOMB_RATIO}-fold when unpacked (a decompression bomb?)",
                        fix="unpack it yourself and look at it",
                    )
                yield chunk
    except _DAMAGED as error:
        raise DataError(
            f"{path}: damaged {packing(path)} after {produced:,} bytes ({error})",
            f"a whole {'.zst' if packing(path) == 'Zstandard' else '.gz'} file",
            "copy it again",
        ) from None


def packing(path: str) -> str:
    return "Zstandard" if path.lower().endswith(".zst") else "gzip"


def _opened(path: str, stream: IO[bytes]) -> IO[bytes]:
    if packing(path) == "gzip":
        return gzip.GzipFile(fileobj=stream, mode="rb")  # type: ignore[return-value]
    if zstd is None:
        raise DataError(f"{path}: Zstandard is not installed", fix="pip install 'tunesmith[zstd]'")
    opened: IO[bytes] = zstd.ZstdFile(stream)
    return opened


def refuse_foreign(path: str, head: bytes) -> None:
    """Raises DataError where the first bytes say that this is not the text its name promises."""
    start = head[:512].lstrip().lower()
    for signature, what, fix in SIGNATURES:
        if head.startswith(signature) or start.startswith(signature):
            raise DataError(f"{path}: looks like {what}", "UTF-8 text, as its name says", fix)


def lines(
    path: str, chunks: Iterator[bytes], notes: Counter[str] | None = None, number: int = 1
) -> Iterator[tuple[int, bytes | None]]:
    """(line number, line with its end). Ends are LF, CRLF or CR; U+2028 and its like are none. number: of the first.

    None stands for a line over MAX_LINE, skipped without being held. A UTF-8 byte order mark is dropped. notes: counts
    byte_order_mark and mixed_line_ends.
    """
    size = 0
    kept: list[bytes] = []
    held = b""  # a CR at the end of a chunk, whose LF may come with the next one
    first = number == 1
    ends = set()
    for chunk in chunks:
        if first:
            chunk, first = without_mark(chunk, notes), False
            refuse_foreign(path, chunk)
        chunk = held + chunk
        held = b"\r" if chunk.endswith(b"\r") else b""
        if held:
            chunk = chunk[:-1]
        ends |= _ends_in(chunk)
        for part in chunk.splitlines(keepends=True):
            size += len(part)
            if size <= MAX_LINE:
                kept.append(part)
            if part.endswith((b"\n", b"\r")):
                yield number, b"".join(kept) if size <= MAX_LINE else None
                number, size = number + 1, 0
                kept.clear()
    if held:
        kept.append(held)
        size += 1
    if size:
        yield number, b"".join(kept) if size <= MAX_LINE else None
    if len(ends) > 1 and notes is not None:
        notes["mixed_line_ends"] += 1


def without_mark(head: bytes, notes: Counter[str] | None) -> bytes:
    """The first bytes of a text without a UTF-8 byte order mark, which is counted."""
    if head.startswith(BOM) and notes is not None:
        notes["byte_order_mark"] += 1
    return head.removeprefix(BOM)


def _ends_in(chunk: bytes) -> set[str]:
    """The kinds of line ends in it."""
    both, lf, cr = (chunk.count(end) for end in (b"\r\n", b"\n", b"\r"))
    found = {"CRLF": both, "LF": lf - both, "CR": cr - both}
    return {name for name, count in found.items() if count}


def too_long() -> RowError:
    size = f"more than {MAX_LINE // 2**20} MiB"
    return RowError("line_too_long", f"one row of {size}", fix="split it or leave it out")


def decode(line: bytes) -> str:
    """UTF-8 text of a line; raises RowError (invalid_utf8, nul_byte)."""
    if b"\x00" in line:
        at = line.index(0) + 1
        raise RowError("nul_byte", f"a NUL byte at byte {at}", fix="the file is damaged or is not text")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            "invalid_utf8",
            f"byte {error.start + 1} (0x{line[error.start]:02x}) is not UTF-8",
            fix="convert the file, for example: iconv -f latin1 -t utf-8",
        ) from None
