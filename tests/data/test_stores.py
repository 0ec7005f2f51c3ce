"""Files of object stores and files that a pattern fits; nothing else that has a :// in it is fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tunesmith.data.addresses import sha256
from tunesmith.data.folders import absolute, missing, sources_of
from tunesmith.data.readers import read_rows
from tunesmith.errors import DataError

ROW = json.dumps({"text": "a"}).encode() + b"\n"


@pytest.fixture
def store() -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    for name, count in (("logs/march.jsonl", 2), ("logs/april.jsonl", 1), ("rows.csv", 1)):
        memory.pipe(f"/bucket/{name}", b"text\na\n" if name.endswith("csv") else ROW * count)
    yield "memory://bucket"
    memory.rm("/bucket", recursive=True)


def files(entry: str, part: str = "") -> list[str]:
    return [source.file for source in sources_of([entry], part)]


def test_a_file_a_folder_and_a_pattern(store: str) -> None:
    both = [f"{store}/logs/april.jsonl", f"{store}/logs/march.jsonl"]
    assert files(f"{store}/logs") == files(f"{store}/logs/*.jsonl") == both
    assert files(both[0]) == both[:1]
    assert len(list(read_rows(both[1]))) == 2
    assert next(read_rows(f"{store}/rows.csv")) == (2, {"text": "a"})


def test_what_is_hashed_is_what_is_read(store: str, tmp_path: Path) -> None:
    address = f"{store}/logs/march.jsonl"
    (tmp_path / "a.jsonl").write_bytes(ROW * 2)
    assert sha256(address) == sha256(tmp_path / "a.jsonl")
    fsspec.filesystem("memory").pipe("/bucket/logs/march.jsonl", ROW * 5)
    assert len(list(read_rows(address))) == 2


def test_what_is_not_there_is_told_with_what_is(store: str) -> None:
    with pytest.raises(DataError, match=r"did you mean march\.jsonl"):
        files(f"{store}/logs/mrch.jsonl")
    with pytest.raises(DataError, match="fits no file"):
        files(f"{store}/logs/*.csv")
    with pytest.raises(DataError, match="rows in files of several"):
        files(store)
    assert absolute(f"{store}/x.jsonl*2") == f"{store}/x.jsonl*2"
    assert missing([f"{store}/x.jsonl"]) == []


REFUSED = (
    "http://169.254.169.254/latest/meta-data/rows.jsonl",
    "https://example.com/rows.jsonl",
    "HTTP://localhost/rows.jsonl",
    "ftp://host/rows.jsonl",
    "sftp://host/rows.jsonl",
    "ssh://host/rows.jsonl",
    "zip://rows.jsonl::http://localhost/a.zip",
    "memory://a.zip::http://localhost/b.jsonl",
    "simplecache::http://localhost/rows.jsonl",
    "github://owner:name@/rows.jsonl",
    "reference://rows.jsonl",
    "dask://rows.jsonl",
    "git://rows.jsonl",
    "local://etc/passwd",
    "s3://key:secret@bucket/rows.jsonl",
)


@pytest.mark.parametrize("address", REFUSED)
def test_nothing_else_is_fetched(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it went to the network"))
    for ask in (lambda: files(address), lambda: next(read_rows(address))):
        with pytest.raises(DataError) as error:
            ask()
        assert "secret" not in str(error.value)


def test_a_store_whose_package_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(DataError, match="pip install s3fs"):
        files("s3://bucket/rows.jsonl")


def test_file_addresses_are_paths(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(ROW)
    assert files(f"file://{tmp_path}/rows.jsonl") == [f"{tmp_path}/rows.jsonl"]
    assert missing([f"file://{tmp_path}/rows.jsonl", "file:///nowhere/a.jsonl"]) == [
        "file:///nowhere/a.jsonl"
    ]


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("logs/b.jsonl", "logs/a.jsonl", "logs/more/c.jsonl", "logs/.d.jsonl", "logs/a.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"text\na\n" if name.endswith("csv") else ROW)
    monkeypatch.chdir(tmp_path)
    assert files("logs/*.jsonl") == ["logs/a.jsonl", "logs/b.jsonl"]
    assert files("logs/**/*.jsonl") == ["logs/a.jsonl", "logs/b.jsonl", "logs/more/c.jsonl"]
    assert files("logs/[ab].jsonl*0.5", "train") == ["logs/a.jsonl", "logs/b.jsonl"]
    assert absolute("logs/*.jsonl*2") == f"{tmp_path}/logs/*.jsonl*2"
    assert missing(["logs/*.jsonl", "logs/*.tsv"]) == ["logs/*.tsv"]
    with pytest.raises(DataError, match="fits no file"):
        files("logs/*.tsv")
    with pytest.raises(DataError, match="is listed twice"):
        sources_of(["logs/*.jsonl", "./logs/a.jsonl"])
