"""Archives of files of rows, read as folders are: `logs.zip` holds `logs.zip/2026/march.jsonl`.

No member is ever written under its own name: those that hold rows are unpacked once, in pieces, into a folder of this
process under names of our own. An archive with a member that leads out of it, a link, a device, an archive inside, or
that grows as no text does is refused whole, before anything of it is read.
"""

from __future__ import annotations

import errno
import hashlib
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from tunesmith.data.scratch import scratch
from tunesmith.data.sources import BOMB_BYTES, BOMB_RATIO, CHUNK, byte_chunks, open_regular
from tunesmith.errors import DataError, ResourceError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
OTHERS = (".7z", ".rar", ".bz2", ".xz", ".zst", ".tbz", ".txz", ".jar", ".whl")
MAX_MEMBERS, MAX_BYTES = 100_000, 64 * 2**30
MAX_HEADER = 2**20
"""Bytes of a name or of other facts on a member of a tar."""

Wanted = Callable[[str], bool]


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS) and path.is_file()


def parted(address: str) -> tuple[Path, str] | None:
    """The archive and the member that an address such as `logs.zip/march.jsonl` names; None where it names neither."""
    path = Path(address)
    for archive in (path, *path.parents):
        if is_archive(archive):
            return archive, path.relative_to(archive).as_posix() if archive != path else ""
    return None


def unpacked(archive: Path, wanted: Wanted) -> dict[str, Path]:
    """Members that hold rows, by name, in the order of the archive -> where they lie.

    Raises DataError for an archive that is refused (see above) or damaged.
    """
    before = archive.stat()
    stamp = f"{archive.resolve()} {before.st_size} {before.st_mtime_ns}"
    folder = scratch() / hashlib.sha256(stamp.encode()).hexdigest()[:32]
    if (folder / "whole").exists():
        listed = (folder / "whole").read_text(encoding="utf-8").split("\0")[:-1]
        return {name: folder / _own_name(name) for name in listed}
    folder.mkdir(exist_ok=True)
    names = []
    with open_regular(archive) as stream, _damage_told(archive):
        members = _of_zip if archive.suffix.lower() == ".zip" else _of_tar
        for name, size, chunks in members(archive, stream):
            if wanted(name):
                with (folder / _own_name(name)).open("wb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                    if file.tell() != size:
                        raise DataError(
                            f"{archive}: '{name}' ends in the middle", fix="copy the archive again"
                        )
                names.append(name)
    (folder / "whole").write_text("".join(f"{name}\0" for name in names), encoding="utf-8")
    return {name: folder / _own_name(name) for name in names}


def _own_name(member: str) -> str:
    """A name without anything of the member's but its ending."""
    endings = "".join(PurePosixPath(member).suffixes[-2:]).lower()
    return hashlib.sha256(member.encode("utf-8", "surrogateescape")).hexdigest()[:32] + endings


@contextmanager
def _damage_told(archive: Path) -> Iterator[None]:
    """What the standard library raises over bytes that are no archive, which is documented nowhere."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ResourceError(f"{archive}: no room to unpack it in {scratch()}", "free space") from None
        raise DataError(
            f"{archive}: not a whole archive ({error})", "a .zip or .tar", "copy it again"
        ) from None


# What is refused -----------------------------------------------------------------------------------------


_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OSError),
    *(ValueError, OverflowError, IndexError, RuntimeError),
)


class _Checked:
    """Looks at each member before it is opened."""

    def __init__(self, archive: Path) -> None:
        self.archive, self.packed = archive, archive.stat().st_size
        self.seen: set[str] = set()
        self.size = 0

    def __call__(self, name: str, size: int, refused: str) -> None:
        """refused: what the member is, where it is neither a file nor a folder."""
        shown = ascii(name[:100])
        pieces = name.replace("\\", "/").split("/")
        if ".." in pieces or name.startswith(("/", "\\")) or ":" in pieces[0] or "\0" in name:
            raise self._refused(f"the member {shown} leads out of the archive")
        if refused:
            raise self._refused(f"the member {shown} is {refused}")
        if name.lower().endswith((*ENDINGS, *OTHERS)):
            raise self._refused(f"the member {shown} is an archive inside an archive")
        if name in self.seen:
            raise self._refused(f"two members are called {shown}")
        self.seen.add(name)
        self.size += size
        if self.size > BOMB_BYTES and self.size > BOMB_RATIO * self.packed:
            raise self._refused(f"it grows more than {BOMB_RATIO}-fold when unpacked (a decompression bomb?)")
        if self.size > MAX_BYTES or len(self.seen) > MAX_MEMBERS:
            raise self._refused(f"more than {MAX_BYTES // 2**30} GiB, or {MAX_MEMBERS:,} members")

    def _refused(self, why: str) -> DataError:
        return DataError(
            f"{self.archive}: {why}",
            "files of rows, and folders of them",
            "look at it yourself, and name the files of rows that you unpack from it",
        )


Members = Iterator[tuple[str, int, Iterable[bytes]]]
"""(name, bytes, content) of each file."""


def _of_zip(path: Path, stream: IO[bytes]) -> Members:
    check = _Checked(path)
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            odd = "encrypted" if info.flag_bits & 1 else _kind(kind)
            check(info.orig_filename, info.file_size, odd)
        for info in infos:
            if not info.is_dir():
                with archive.open(info) as member:
                    yield info.filename, info.file_size, iter(lambda: member.read(CHUNK), b"")


def _kind(mode: int) -> str:
    if mode in (0, stat.S_IFREG, stat.S_IFDIR):
        return ""
    return "a link" if mode == stat.S_IFLNK else "a pipe or device"


class _Info(tarfile.TarInfo):
    """Does not read a header of a gigabyte into memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in (*tarfile.REGULAR_TYPES, *_EMPTY) and self.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


_EMPTY = (
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
)


def _of_tar(path: Path, stream: IO[bytes]) -> Members:
    """Checked and read in one go each: a tar has no list of its members. First it is gone through once, to check."""
    zipped = path.suffix.lower() in (".gz", ".tgz")
    check = _Checked(path)
    for info, _ in _tar_members(path, stream, zipped):
        odd = "a link" if info.issym() or info.islnk() else "" if info.isreg() or info.isdir() else "a device"
        check(info.name, info.size, "a sparse file" if info.issparse() else odd)
    stream.seek(0)
    for info, member in _tar_members(path, stream, zipped):
        if member is not None:
            yield info.name, info.size, iter(lambda: member.read(CHUNK), b"")  # noqa: B023


def _tar_members(
    path: Path, stream: IO[bytes], zipped: bool
) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    source = _Reader(byte_chunks(str(path), stream, zipped))
    with tarfile.open(fileobj=source, mode="r|", tarinfo=_Info) as archive:  # type: ignore[call-overload]
        for info in archive:
            yield info, archive.extractfile(info) if info.isreg() else None
            archive.members = []  # else it keeps every one


class _Reader:
    """Chunks as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks, self.held = chunks, b""

    def read(self, size: int) -> bytes:
        parts, found = [self.held], len(self.held)
        while found < size and (chunk := next(self.chunks, b"")):
            parts.append(chunk)
            found += len(chunk)
        whole = b"".join(parts)
        self.held = whole[size:]
        return whole[:size]
