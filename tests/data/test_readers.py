"""Hostile files: each is refused with file, line and reason, or read with its rows whole. Numbers as in the list."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesmith.data import sources
from tunesmith.data.readers import read_rows
from tunesmith.errors import DataError, RowError

GOOD = b'{"text": "good"}\n'


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> list[tuple[int, object]]:
    """Rows as dicts, errors as their reasons."""
    return [(line, row.reason if isinstance(row, RowError) else row) for line, row in read_rows(path)]


# Rows ------------------------------------------------------------------------------------------------

BAD_LINES = {
    "03 NUL byte": (b'{"text": "a\x00"}', "nul_byte"),
    "04 invalid UTF-8": (b'{"text": "\xff\xfe"}', "invalid_utf8"),
    "05 lone surrogate": (b'{"text": "\\ud800"}', "lone_surrogate"),
    "06 Latin-1": ('{"text": "café"}'.encode("latin-1"), "invalid_utf8"),
    "17 100,000 deep": (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
    "17 100 deep": (b'{"text": ' + b"[" * 100 + b"]" * 100 + b"}", "too_deep"),
    "18 too many keys": (b'{"text": [' + b"0," * 1_000_001 + b"0]}", "too_many_values"),
    "19 duplicate keys": (b'{"text": "a", "text": "b"}', "duplicate_key"),
    "19 duplicate keys inside": (b'{"text": {"a": 1, "a": 1}}', "duplicate_key"),
    "20 an array": (b'[{"text": "a"}]', "not_an_object"),
    "21 concatenated": (b'{"text": "a"}{"text": "b"}', "concatenated_json"),
    "22 comment": (b"// text", "bad_json"),
    "24 scalar": (b"3", "not_an_object"),
    "24 null": (b"null", "not_an_object"),
    "25 NaN": (b'{"text": NaN}', "not_finite"),
    "25 Infinity": (b'{"text": -Infinity}', "not_finite"),
    "26 1e400": (b'{"text": 1e400}', "not_finite"),
    "27 5,000 digits": (b'{"text": ' + b"9" * 5000 + b"}", "huge_integer"),
    "15 cut off in the middle": (b'{"text": "a', "bad_json"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_and_reading_goes_on(tmp_path: Path, name: str) -> None:
    line, reason = BAD_LINES[name]
    path = write(tmp_path, "rows.jsonl", GOOD + line + b"\n" + GOOD)
    assert read(path) == [(1, {"text": "good"}), (2, reason), (3, {"text": "good"})]
    error = next(row for _, row in read_rows(path) if isinstance(row, RowError))
    assert str(error).startswith(f"{path}:2: ")


def test_15_a_cut_off_last_line(tmp_path: Path) -> None:
    assert read(write(tmp_path, "rows.jsonl", GOOD + b'{"text": "ha'))[1] == (2, "cut_off")


def test_14_a_last_line_without_its_end_is_whole(tmp_path: Path) -> None:
    assert read(write(tmp_path, "rows.jsonl", GOOD + GOOD.strip()))[1] == (2, {"text": "good"})


def test_1_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    bom = b"\xef\xbb\xbf"
    assert read(write(tmp_path, "rows.jsonl", bom + GOOD)) == [(1, {"text": "good"})]
    assert read(write(tmp_path, "rows.csv", bom + b"text\ngood\n")) == [(2, {"text": "good"})]


def test_7_mixed_line_ends_count_as_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", b'{"a": 1}\r\n{"a": 2}\r{"a": 3}\n\n{"a": 4}')
    assert read(path) == [(1, {"a": 1}), (2, {"a": 2}), (3, {"a": 3}), (5, {"a": 4})]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_7_line_ends_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(sources, "CHUNK", size)
    content = b"a\r\nb\rc\n\r\nd\r\r\n"
    monkeypatch.setattr(sources, "refuse_foreign", lambda path, head: None)
    chunks = (content[i : i + size] for i in range(0, len(content), size))
    assert list(sources.lines(Path("x"), chunks)) == list(
        enumerate((line.encode() for line in content.decode().splitlines(keepends=True)), 1)
    )


def test_8_unicode_line_separators_do_not_split(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x1cf"
    path = write(tmp_path, "rows.jsonl", json.dumps({"text": text}, ensure_ascii=False) + "\n")
    assert read(path) == [(1, {"text": text})]
    assert read(write(tmp_path, "rows.csv", f"text\n{text}\n")) == [(2, {"text": text})]


def test_9_bidi_and_zero_width_are_kept(tmp_path: Path) -> None:
    text = "a\u202eb\u200bc"
    assert read(write(tmp_path, "rows.jsonl", json.dumps({"text": text}))) == [(1, {"text": text})]


# Files -----------------------------------------------------------------------------------------------

FOREIGN = {
    "02 UTF-16": ('{"text": "a"}\n'.encode("utf-16"), "UTF-16"),
    "02 UTF-16 without a mark": ('{"text": "a"}\n'.encode("utf-16-le"), "UTF-16"),
    "02 UTF-32": ('{"text": "a"}\n'.encode("utf-32"), "UTF-32"),
    "12 empty": (b"", "empty"),
    "13 white space": (b"\n  \n\t\r\n", "not one row"),
    "20 one array": (b'[\n{"text": "a"},\n{"text": "b"}]', "JSON array"),
    "20 one array on a line": (b'[{"text": "a"}]', "JSON array"),
    "20 a pretty object": (b'{\n  "text": "a"\n}', "several lines"),
    "23 HTML": (b"\n<!DOCTYPE html>\n<html>404</html>", "HTML"),
    "56 zip": (b"PK\x03\x04....", "zip"),
    "65 pickle": (pickle.dumps({"text": "a"}), "pickle"),
    "59 Parquet": (b"PAR1....", "Parquet"),
    "55 gzip": (gzip.compress(GOOD), "gzip"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    content, word = FOREIGN[name]
    path = write(tmp_path, "rows.jsonl", content)
    with pytest.raises(DataError, match=word) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "tickets.jsonl", GOOD)
    with pytest.raises(DataError, match=r"did you mean tickets\.jsonl"):
        read(tmp_path / "ticket.jsonl")
    with pytest.raises(DataError, match=r"folder .* does not exist"):
        read(tmp_path / "nowhere" / "rows.jsonl")


def test_67_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    for name in ("pipe.jsonl", "folder.jsonl", "zero.jsonl"):
        with pytest.raises(DataError, match=r"is a (pipe|folder)"):
            read(tmp_path / name)


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'\.xlsx' files"):
        read(write(tmp_path, "rows.xlsx", b"PK"))


def test_66_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", GOOD * 3)
    rows = read_rows(path)
    next(rows)
    path.write_bytes(GOOD * 4)
    with pytest.raises(DataError, match="changed while"):
        list(rows)


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz", "rows.csv.gz", "rows.parquet.gz"])
def test_gz_is_read_like_plain(tmp_path: Path, name: str) -> None:
    plain = tmp_path / name.removesuffix(".gz")
    if ".parquet" in name:
        pq.write_table(pa.table({"text": ["good", "b"]}), plain)
    else:
        plain.write_bytes(b"text\ngood\nb\n" if ".csv" in name else GOOD + b'{"text": "b"}\n')
    write(tmp_path, name, gzip.compress(plain.read_bytes()))
    assert read(tmp_path / name) == read(plain)
    assert [row for _, row in read(plain)] == [{"text": "good"}, {"text": "b"}]


@pytest.mark.parametrize("name", ["rows.jsonl.zst", "rows.csv.ZST"])
def test_zst_is_read_like_plain_and_held_to_the_same_limits(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    zstd = pytest.importorskip("backports.zstd")
    content = GOOD if "jsonl" in name else b"prompt,completion\na,b\nc,d\n"
    plain = write(tmp_path, name[:-4], content)
    packed = zstd.compress(content[:20]) + zstd.compress(content[20:])  # two frames
    assert list(read_rows(write(tmp_path, name, packed))) == list(read_rows(plain))
    whole = zstd.compress(GOOD * 1000)
    for damaged in (whole[:-4], whole[: len(whole) // 2], b"garbage!" * 9):
        with pytest.raises(DataError, match="damaged Zstandard"):
            list(read_rows(write(tmp_path, "rows.jsonl.zst", damaged)))
    monkeypatch.setattr(sources, "BOMB_BYTES", 2**20)
    with pytest.raises(DataError, match="decompression bomb"):
        list(read_rows(write(tmp_path, "rows.jsonl.zst", zstd.compress(b" " * 2**26))))
    monkeypatch.setattr(sources, "zstd", None)
    with pytest.raises(DataError, match="zstd"):
        list(read_rows(write(tmp_path, "rows.jsonl.zst", whole)))


def test_truncated_and_corrupt_gz(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD * 1000)
    for damaged in (packed[:-20], packed[:-5] + b"\x00" * 5, packed[:30] + b"\xff" * 10 + packed[40:]):
        with pytest.raises(DataError, match="damaged gzip"):
            read(write(tmp_path, "rows.jsonl.gz", damaged))


def test_16_a_line_too_long_is_skipped_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_LINE", 100)
    monkeypatch.setattr(sources, "CHUNK", 64)
    path = write(tmp_path, "rows.jsonl", GOOD + b'{"text": "' + b"a" * 1000 + b'"}\n' + GOOD)
    assert read(path) == [(1, {"text": "good"}), (2, "line_too_long"), (3, {"text": "good"})]


MEMORY = """
import sys
from tunesmith.data.readers import read_rows
from tunesmith.errors import DataError
try:
    for line, row in read_rows(sys.argv[1]):
        print(getattr(row, "reason", "row"))
except DataError as error:
    print("DataError", str(error)[:300])
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def peak(path: Path) -> tuple[str, int]:
    """(what was reported, peak resident memory in MiB) of reading in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    *said, memory = done.stdout.split("\n")[:-1]
    return "\n".join(said), int(memory) // 1024


def test_16_55_a_gigabyte_in_one_line_of_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(300):
            file.write(b"a" * 2**20)
    said, memory = peak(path)
    assert "decompression bomb" in said
    assert memory < 512


def test_18_a_million_keys_stay_in_memory(tmp_path: Path) -> None:
    keys = ",".join(f'"key number {i}": {i}' for i in range(999_000))
    said, memory = peak(write(tmp_path, "rows.jsonl", "{" + keys + "}\n"))
    assert (said, memory < 512) == ("row", True)


def test_61_a_parquet_bomb_stays_in_memory(tmp_path: Path) -> None:
    # One value of 20 MB in the dictionary, named by 150 rows: 3 GB for a reader that writes the values out.
    path = tmp_path / "rows.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 150, pa.int32()), pa.array(["a" * 20_000_000]))
    pq.write_table(pa.table({"text": column}), path, store_schema=False)
    said, memory = peak(path)
    assert said.count("row") == 150
    assert memory < 512


def test_61_a_parquet_column_that_grows_too_much(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"text": ["a" * 1000] * 100_000})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, data_page_size=2**24)
    with pytest.raises(DataError, match="'text' grows"):
        read(path)


def test_reading_does_not_load_torch_or_transformers() -> None:
    code = "import sys, tunesmith.data.readers, tunesmith.data.formats, tunesmith.data.split as s; " + (
        "print([m for m in ('torch', 'transformers', 'pyarrow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# CSV -------------------------------------------------------------------------------------------------


def test_csv_rows_are_strings_and_an_empty_field_is_an_empty_string(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", 'text,label\na,1\n"b, ""c""",\n\n=cmd|x,2\n')
    assert read(path) == [
        (2, {"text": "a", "label": "1"}),
        (3, {"text": 'b, "c"', "label": ""}),
        (5, {"text": "=cmd|x", "label": "2"}),  # 63: a formula is text
    ]


def test_64_ragged_rows_and_quoted_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", 'text,label\na\n"b\r\nc",2\nd,e,f\n"g"h,3\ni,4\n')
    assert read(path) == [
        (2, "ragged_row"),
        (3, {"text": "b\r\nc", "label": "2"}),
        (5, "ragged_row"),
        (6, "bad_quote"),
        (7, {"text": "i", "label": "4"}),
    ]


@pytest.mark.parametrize(
    "tail", ['"b,2\nc,3\n', '"b,2\nc,3\n"d",4\n'], ids=["to the end", "to the next quote"]
)
def test_64_an_open_quote_never_swallows_rows_in_silence(tmp_path: Path, tail: str) -> None:
    path = write(tmp_path, "rows.csv", "text,label\na,1\n" + tail)
    with pytest.raises(DataError, match=r"rows\.csv:3: a quoted field"):
        read(path)


def test_csv_bad_bytes_are_row_errors(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", b"text,label\ncaf\xe9,1\na\x00,2\nb,3\n")
    assert read(path) == [(2, "invalid_utf8"), (3, "nul_byte"), (4, {"text": "b", "label": "3"})]


@pytest.mark.parametrize(
    "header, word",
    [
        ("text,text", "more than once"),
        ("text,", "no name"),
        ("1,2", "looks like a row"),
        ("a long first row " * 10 + ",x", "looks like a row"),
        ("text;label", "not separated by commas"),
        ("text\tlabel", "not separated by commas"),
    ],
)
def test_csv_headers_that_are_none(tmp_path: Path, header: str, word: str) -> None:
    with pytest.raises(DataError, match=word):
        read(write(tmp_path, "rows.csv", header + "\na,b\n"))


def test_a_csv_of_only_a_header_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not one row"):
        read(write(tmp_path, "rows.csv", "text,label\n"))


def test_a_long_csv_field_is_read(tmp_path: Path) -> None:
    text = "a" * 300_000  # beyond the csv module's own limit
    assert read(write(tmp_path, "rows.csv", f"text,label\n{text},1\n"))[0][1] == {"text": text, "label": "1"}


# Parquet ---------------------------------------------------------------------------------------------


def test_parquet_types_and_nulls(tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": "a", "weight": None}], None]
    table = pa.table(
        {"messages": messages, "n": [1, None], "x": [0.5, None], "b": [True, None], "s": ["é", None]}
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet") == list(enumerate(table.to_pylist(), 1))


def test_60_truncated_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [str(i) for i in range(1000)]}), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for damaged in (
        whole[:-10],
        whole[: len(whole) // 2],
        whole[:100] + b"\xff" * 400 + whole[500:],
        b"PAR1",
    ):
        with pytest.raises(DataError, match=r"rows\.parquet"):
            read(write(tmp_path, "rows.parquet", damaged))


def test_59_a_parquet_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="not one row"):
        read(tmp_path / "rows.parquet")


@pytest.mark.parametrize("name", [b"arrow.py_extension_type", b"unknown.type"])
def test_62_extension_types_are_refused(tmp_path: Path, name: bytes) -> None:
    meta = {b"ARROW:extension:name": name, b"ARROW:extension:metadata": pickle.dumps(print)}
    schema = pa.schema([pa.field("text", pa.string(), metadata=meta)])
    pq.write_table(pa.table({"text": ["a"]}, schema=schema), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="extension type"):
        read(tmp_path / "rows.parquet")


def test_parquet_strings_that_are_not_utf8(tmp_path: Path) -> None:
    strings = pa.array([b"good", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": strings}), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet") == [(1, {"text": "good"}), (2, "invalid_utf8")]
