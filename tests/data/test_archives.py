"""Archives are read as folders are; whatever leads out of them, links, nests or grows as no text does is refused."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.run import DataConfig
from tunesmith.data import archives, sources
from tunesmith.data.account import Account
from tunesmith.data.addresses import sha256
from tunesmith.data.folders import absolute, missing, sources_of
from tunesmith.data.load import read_examples
from tunesmith.data.readers import read_rows
from tunesmith.errors import DataError

ROW = b'{"prompt": "Q", "completion": "A"}\n'
FILES = {"logs/march.jsonl": ROW * 2, "logs/april.jsonl": ROW, "README.md": b"#", "logs/.x.jsonl": b"?"}


def zipped(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes] = FILES, **fields: Any) -> Path:
    """fields: of every member."""
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content if info.isreg() else b""))
    return path


def packed(path: Path, files: dict[str, bytes] = FILES) -> Path:
    return zipped(path, files) if path.suffix == ".zip" else tarred(path, files)


def files(entry: str | Path, part: str = "") -> list[str]:
    return [source.file for source in sources_of([str(entry)], part)]


KINDS = ("a.zip", "a.tar", "a.tar.gz", "a.tgz")


@pytest.mark.parametrize("name", KINDS)
def test_an_archive_is_its_files_and_each_has_its_own_hash(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / name)
    found = files(path)
    assert found == [f"{path}/logs/april.jsonl", f"{path}/logs/march.jsonl"]
    assert [len(list(read_rows(file))) for file in found] == [1, 2]
    plain = tmp_path / "march.jsonl"
    plain.write_bytes(ROW * 2)
    assert sha256(found[1]) == sha256(plain)
    assert files(f"{path}/logs") == found
    assert files(f"{path}/logs/march.jsonl") == found[1:]
    account = Account("stop")
    assert len(read_examples([str(path)], DataConfig(), account)[0]) == 3
    assert set(account.files) == set(found)


@pytest.mark.parametrize("name", KINDS)
def test_splits_of_an_archive(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / name, {"train.jsonl": ROW, "test.jsonl": ROW})
    assert files(path, "test") == files(f"{path}#test") == [f"{path}/test.jsonl"]
    with pytest.raises(DataError, match=r"no split 'tset'\n.*did you mean 'test'"):
        files(f"{path}#tset")


def test_a_row_that_cannot_be_read_is_named_by_archive_member_and_line(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"rows.jsonl": ROW + b"{\n"})
    (_, good), (line, bad) = read_rows(f"{path}/rows.jsonl")
    assert isinstance(good, dict)
    assert str(bad).startswith(f"{path}/rows.jsonl:{line}: ")


def test_every_kind_of_file_is_read_out_of_an_archive(tmp_path: Path) -> None:
    for name, content in (("a.csv", b"text\na\n"), ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n'))):
        path = zipped(tmp_path / f"{name}.zip", {name: content})
        assert [row for _, row in read_rows(files(path)[0])] == [{"text": "a"}]


def test_paths_into_archives_are_made_absolute_and_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(tmp_path / "a.zip")
    monkeypatch.chdir(tmp_path)
    assert absolute("a.zip/logs/march.jsonl") == f"{tmp_path}/a.zip/logs/march.jsonl"
    assert absolute("a.zip#train*2") == f"{tmp_path}/a.zip#train*2"
    assert missing(["a.zip", "a.zip/logs", "b.zip", "b.zip/logs"]) == ["b.zip", "b.zip/logs"]
    with pytest.raises(DataError, match=r"no such member\n.*did you mean 'logs/march.jsonl'"):
        files("a.zip/logs/mrch.jsonl")


def test_an_archive_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"rows.jsonl": ROW})
    before = sha256(f"{path}/rows.jsonl")
    zipped(path, {"rows.jsonl": ROW * 3})
    assert sha256(f"{path}/rows.jsonl") != before


# Refused -------------------------------------------------------------------------------------------------

OUT = (
    *(
        "../x.jsonl",
        "a/../../x.jsonl",
        "/etc/x.jsonl",
        "..\\x.jsonl",
        "C:\\x.jsonl",
        "\\\\host\\x.jsonl",
        "a/..",
    ),
    *("..", "./../x.jsonl", "C:x.jsonl"),
)


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("kind", KINDS)
def test_no_name_leads_out(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = packed(tmp_path / "in" / kind, {"rows.jsonl": ROW, name: ROW})
    with pytest.raises(DataError, match="leads out of the archive"):
        files(path)
    assert sorted(one.name for one in tmp_path.rglob("*")) == sorted(["in", kind])


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
    ],
)
def test_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes, word: str) -> None:
    for name in ("a.tar", "a.tgz"):
        path = tarred(tmp_path / name, {"rows.jsonl": ROW}, type=kind, linkname="/etc/passwd", size=0)
        with pytest.raises(DataError, match=word):
            files(path)


def test_links_pipes_and_passwords_in_a_zip(tmp_path: Path) -> None:
    for mode, word in ((0o120777, "a link"), (0o010666, "a pipe or device")):
        info = zipfile.ZipInfo("rows.jsonl")
        info.external_attr = mode << 16
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(info, "/etc/passwd")
        with pytest.raises(DataError, match=word):
            files(tmp_path / "a.zip")
    whole = bytearray(zipped(tmp_path / "a.zip", {"rows.jsonl": ROW}).read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(whole)
    with pytest.raises(DataError, match="is encrypted"):
        files(tmp_path / "b.zip")


@pytest.mark.parametrize("inner", ["b.zip", "b.tar.gz", "b.7z", "B.ZIP", "b.jsonl.bz2"])
def test_archives_inside(tmp_path: Path, inner: str) -> None:
    for kind in ("a.zip", "a.tgz"):
        with pytest.raises(DataError, match="an archive inside an archive"):
            files(packed(tmp_path / kind, {"rows.jsonl": ROW, inner: b""}))


def test_bombs_whatever_their_headers_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "BOMB_BYTES", 2**20)
    monkeypatch.setattr(sources, "BOMB_BYTES", 2**20)
    blank = {"rows.jsonl": b" " * 8 * 2**20}
    for kind in ("a.zip", "a.tgz"):
        with pytest.raises(DataError, match="bomb"):
            files(packed(tmp_path / kind, blank))
    # A size that the list of members makes small: no more than that is ever unpacked, and the sum is wrong then.
    whole = zipped(tmp_path / "a.zip", blank).read_bytes()
    small = whole.replace(struct.pack("<L", 8 * 2**20), struct.pack("<L", 10))
    assert small != whole
    (tmp_path / "b.zip").write_bytes(small)
    with pytest.raises(DataError, match="not a whole archive"):
        files(tmp_path / "b.zip")


def test_a_header_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("name")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + b"\0" * 4096)
    with pytest.raises(DataError, match="a header of 1,073,741,824 bytes"):
        files(tmp_path / "a.tar")


def test_too_many_members_and_names_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("a.zip", "a.tar"):
        monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
        with pytest.raises(DataError, match="more than 64 GiB, or 2 members"):
            files(packed(tmp_path / kind, {f"{i}.jsonl": ROW for i in range(3)}))
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for _ in range(2):
            info = tarfile.TarInfo("rows.jsonl")
            info.size = len(ROW)
            archive.addfile(info, io.BytesIO(ROW))
    with pytest.raises(DataError, match=r"two members are called 'rows\.jsonl'"):
        files(tmp_path / "twice.tar")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_archives(tmp_path: Path, kind: str) -> None:
    whole = packed(tmp_path / kind, {"rows.jsonl": bytes(range(256)) * 300}).read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:40], b"x" * 2000):
        (tmp_path / f"b{kind}").write_bytes(damaged)
        with pytest.raises(DataError, match=f"b{kind}"):
            files(tmp_path / f"b{kind}")


def test_places_that_lie_outside_of_the_archive(tmp_path: Path) -> None:
    """Found by fuzzing: the standard library raises OSError for a member that begins before the file does."""
    whole = bytearray(zipped(tmp_path / "a.zip", {"rows.jsonl": ROW}).read_bytes())
    end = whole.index(b"PK\x05\x06")
    for at, value in ((end + 16, 2**31), (end + 12, 2**31), (whole.index(b"PK\x01\x02") + 42, 2**32 - 2)):
        damaged = bytes(whole[:at]) + struct.pack("<L", value) + bytes(whole[at + 4 :])
        (tmp_path / "b.zip").write_bytes(damaged)
        with pytest.raises(DataError, match="not a whole archive"):
            files(tmp_path / "b.zip")


def test_an_archive_without_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file of rows in it"):
        files(zipped(tmp_path / "a.zip", {"README.md": b"#"}))
