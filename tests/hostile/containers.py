"""Hostile inputs 55 to 68: containers."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.inputs import GOOD, OTHER, hostile, jsonl, line, raw

ROWS = line(GOOD) + line(OTHER)


def member(archive: tarfile.TarFile, name: str, content: bytes = ROWS, **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    info.size = len(content) if info.isreg() else 0
    archive.addfile(info, io.BytesIO(content))


@hostile(55, "Zip bomb", "a decompression bomb", 0, "The archive is refused before it is unpacked.")
def zip_bomb(folder: Path, full: bool) -> None:
    with zipfile.ZipFile(folder / "rows.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("rows.jsonl", "w", force_zip64=True) as file:
            for _ in range(4096 if full else 300):
                file.write(b" " * 2**20)


@hostile(
    56,
    "Zip-slip",
    "leads out of the archive",
    0,
    "The archive is refused; members are never written by their names.",
)
def zip_slip(folder: Path, full: bool) -> None:
    with zipfile.ZipFile(folder / "rows.zip", "w") as archive:
        archive.writestr("rows.jsonl", ROWS)
        archive.writestr("../../outside.jsonl", ROWS)


@hostile(57, "Links in a tar", "is a link", 0, "The archive is refused.")
def links(folder: Path, full: bool) -> None:
    with tarfile.open(folder / "rows.tar", "w") as archive:
        member(archive, "rows.jsonl")
        member(archive, "passwords.jsonl", type=tarfile.SYMTYPE, linkname="/etc/passwd")


@hostile(58, "Archive inside an archive", "an archive inside an archive", 0, "The archive is refused.")
def nested_archive(folder: Path, full: bool) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("rows.jsonl", ROWS)
    with zipfile.ZipFile(folder / "rows.zip", "w") as archive:
        archive.writestr("inner.zip", inner.getvalue())


@hostile(
    59,
    "Parquet with the wrong schema",
    {"dropped not_a_string": 3},
    0,
    "Rows whose text is a number are dropped.",
)
def wrong_schema(folder: Path, full: bool) -> None:
    pq.write_table(pa.table({"text": [1, 2, 3], "label": ["a", "b", "a"]}), folder / "rows.parquet")


@hostile(60, "Parquet with a truncated footer", "not a whole Parquet file", 0, "The file is refused.")
def truncated(folder: Path, full: bool) -> None:
    pq.write_table(pa.table({"text": ["a"] * 100, "label": ["b"] * 100}), folder / "rows.parquet")
    whole = (folder / "rows.parquet").read_bytes()
    raw(folder, whole[:-20], "rows.parquet")


@hostile(61, "Parquet bomb", "grows more than 500-fold", 0, "The file is refused by what its footer says.")
def parquet_bomb(folder: Path, full: bool) -> None:
    with pq.ParquetWriter(
        folder / "rows.parquet", pa.schema([("text", pa.string())]), compression="zstd", use_dictionary=False
    ) as writer:
        for _ in range(10 if full else 1):
            writer.write_table(pa.table({"text": ["a" * 1000] * 100_000}), row_group_size=100_000)


@hostile(62, "Arrow extension type", "extension type", 0, "The file is refused; nothing of it is unpickled.")
def extension_type(folder: Path, full: bool) -> None:
    meta = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(print),
    }
    schema = pa.schema([pa.field("text", pa.string(), metadata=meta)])
    with pa.ipc.new_stream(str(folder / "rows.arrow"), schema) as writer:
        writer.write_table(pa.table({"text": ["a"]}, schema=schema))


@hostile(
    63, "CSV formula", {}, 2, "Text like any other: nothing is carried out, and no spreadsheet is written."
)
def formula(folder: Path, full: bool) -> None:
    raw(
        folder, "text,label\n=cmd|' /C calc'!A0 my invoice,billing\nThe reader is dead,hardware\n", "rows.csv"
    )


@hostile(
    64,
    "Ragged CSV, quoted line ends",
    {"refused ragged_row": 1},
    2,
    "Quoted ends are text; the ragged row is refused.",
)
def ragged(folder: Path, full: bool) -> None:
    raw(
        folder, 'text,label\n"My invoice\nis wrong",billing\na,b,c\nThe reader is dead,hardware\n', "rows.csv"
    )


@hostile(65, "A pickle named .jsonl", "a Python pickle", 0, "The file is refused; pickles are never read.")
def pickled(folder: Path, full: bool) -> None:
    raw(folder, pickle.dumps({"text": "a"}))


@hostile(
    66,
    "A file that changes while it is read",
    "the file changed while it was read",
    0,
    "Nothing is made of it.",
)
def changing(folder: Path, full: bool) -> None:
    jsonl(folder, [{**GOOD, "text": f"Ticket {i}"} for i in range(12_000)])
    (folder / "changes").touch()  # the campaign then adds a row at the first sign of progress


@hostile(67, "A pipe, /dev/zero", "is a pipe or device", 0, "The file is refused at once.")
def pipe(folder: Path, full: bool) -> None:
    os.mkfifo(folder / "rows.jsonl")


@hostile(68, "HTML and script in fields", {"changed html": 1}, 2, "Becomes the text that a browser shows.")
def script(folder: Path, full: bool) -> None:
    text = "<script>alert(1)</script><p onclick='steal()'>My invoice is <b>wrong</b></p>"
    jsonl(folder, [GOOD, {"text": text, "label": "billing"}])
