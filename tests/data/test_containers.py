"""JSON arrays, tab-separated values and Arrow files: strict, in bounded memory, every row with its number."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data import json_arrays
from tunesmith.data.json_arrays import array_rows
from tunesmith.data.readers import read_rows
from tunesmith.errors import DataError, RowError

TEXT = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=5)


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> list[tuple[int, object]]:
    """Rows as dicts, errors as their reasons."""
    return [(line, row.reason if isinstance(row, RowError) else row) for line, row in read_rows(path)]


@given(ROWS, st.booleans(), st.sampled_from([None, 1]), st.integers(1, 9))
def test_an_array_is_what_json_says_however_it_comes_in(
    rows: list[Any], escape: bool, indent: int | None, size: int
) -> None:
    content = json.dumps(rows, ensure_ascii=escape, indent=indent).encode()
    chunks = (content[i : i + size] for i in range(0, len(content), size))
    assert list(array_rows(Path("a.json"), chunks)) == list(enumerate(rows, 1))


@pytest.mark.parametrize("size", range(1, 12))
def test_an_escape_may_lie_on_the_edge_of_a_chunk(size: int) -> None:
    rows = [{"a": '"]'}, {"a\\": "\\"}, {"a": '\\",'}, {"a": '\\\\"'}]
    content = json.dumps(rows).encode()
    for first in range(1, size + 1):
        chunks = [content[:first], *(content[i : i + size] for i in range(first, len(content), size))]
        assert list(array_rows(Path("a.json"), iter(chunks))) == list(enumerate(rows, 1))


def test_rows_of_an_array_are_read_strictly_one_by_one(tmp_path: Path) -> None:
    elements = [
        '{"a": 1}',
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        "3",
        '{"a": [1}}',
        "{'a': 1}",
        '{"a": "]},"}',
        "null",
    ]
    path = write(tmp_path, "a.json", "\ufeff [\r\n" + " ,\n".join(elements) + "\n]\n")
    strict = ["duplicate_key", "not_finite", "not_an_object", "bad_json", "bad_json"]
    assert read(path) == list(enumerate([{"a": 1}, *strict, {"a": "]},"}, "not_an_object"], 1))
    assert str(next(row for _, row in read_rows(path) if isinstance(row, RowError))).startswith(f"{path}:2: ")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("[]", "not one row"),
        ("[ ]", "not one row"),
        ('[{"a": 1}', "ends in the middle, after 0 rows"),
        ('[{"a": 1}, {"a": 2}', "ends in the middle, after 1 rows"),
        ('[{"a": "', "ends in the middle"),
        ('[{"a": 1}] x', "more follows"),
        ('[{"a": 1}]\n[{"a": 2}]', "more follows"),
        ('{\n "a": 1\n}', "several lines"),
        ("<html>", "HTML"),
    ],
)
def test_arrays_that_are_none(tmp_path: Path, content: str, word: str) -> None:
    with pytest.raises(DataError, match=word):
        read(write(tmp_path, "a.json", content))


def test_a_comma_too_many_is_a_bad_row(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.json", '[{"a": 1},]')) == [(1, {"a": 1}), (2, "bad_json")]
    assert read(write(tmp_path, "a.json", '[,{"a": 1}]')) == [(1, "bad_json"), (2, {"a": 1})]


def test_an_element_too_long_is_skipped_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_arrays, "MAX_LINE", 100)
    path = write(tmp_path, "a.json", json.dumps([{"a": 1}, {"a": "x" * 200}, {"a": 2}]))
    assert read(path) == [(1, {"a": 1}), (2, "line_too_long"), (3, {"a": 2})]


def test_json_lines_and_gz_in_json(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.json", '\n{"a": 1}\n{"a": 2}')) == [(2, {"a": 1}), (3, {"a": 2})]
    assert read(write(tmp_path, "a.json.gz", gzip.compress(b' \n[{"a": 1}]'))) == [(1, {"a": 1})]


def test_tsv(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", 'text\tlabel\na, b\t1\n"c\td"\t\nx\n')
    assert read(path) == [
        (2, {"text": "a, b", "label": "1"}),
        (3, {"text": "c\td", "label": ""}),
        (4, "ragged_row"),
    ]
    with pytest.raises(DataError, match="not separated by tabs"):
        read(write(tmp_path, "b.tsv", "text,label\na,b\n"))
    with pytest.raises(DataError, match=r"b\.tsv:2: a quoted field"):
        read(write(tmp_path, "b.tsv", 'text\tlabel\n"a\tb\nc\td\n'))


HF = {"info": {"features": {
    "label": {"names": ["bad", "good"], "_type": "ClassLabel"},
    "ner_tags": {"feature": {"names": ["O", "B-X"], "_type": "ClassLabel"}, "_type": "Sequence"},
    "old": [{"names": ["O", "B-X"], "_type": "ClassLabel"}],
    "text": {"dtype": "string", "_type": "Value"},
}}}  # fmt: skip


def table(**meta: Any) -> pa.Table:
    columns = {
        "text": ["a", "b", None],
        "label": [1, 0, -1],
        "ner_tags": [[0, 1], [], None],
        "old": [[1]] * 3,
    }
    return pa.table(columns).replace_schema_metadata(meta or None)


@pytest.mark.parametrize("ending", ["parquet", "stream.arrow", "file.arrow"])
def test_class_numbers_are_read_as_the_names_that_are_written_with_them(tmp_path: Path, ending: str) -> None:
    for named in (
        table(huggingface=json.dumps(HF)),
        table(),
        table(huggingface="[]"),
        table(huggingface="x"),
    ):
        path = tmp_path / f"a.{ending}"
        if ending == "parquet":
            pq.write_table(named, path)
        else:
            new = pa.ipc.new_file if ending.startswith("file") else pa.ipc.new_stream
            with new(str(path), named.schema) as writer:
                writer.write_table(named, max_chunksize=2)
        rows: list[Any] = named.to_pylist()
        if named.schema.metadata and named.schema.metadata[b"huggingface"].startswith(b"{"):
            rows = [
                {"text": "a", "label": "good", "ner_tags": ["O", "B-X"], "old": ["B-X"]},
                {"text": "b", "label": "bad", "ner_tags": [], "old": ["B-X"]},
                {"text": None, "label": None, "ner_tags": None, "old": ["B-X"]},
            ]
        assert read(path) == list(enumerate(rows, 1))


def test_damaged_arrow(tmp_path: Path) -> None:
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table().schema) as writer:
        writer.write_table(table())
    whole = (tmp_path / "a.arrow").read_bytes()
    for damaged in (
        whole[:-60],
        whole[: len(whole) // 2],
        b"x" * 100,
        whole[:20] + b"\xff" * 40 + whole[60:],
    ):
        with pytest.raises(DataError, match=r"b\.arrow"):
            read(write(tmp_path, "b.arrow", damaged))
    with pytest.raises(DataError, match="as they are"):
        read(write(tmp_path, "b.arrow.gz", gzip.compress(whole)))
    extension = pa.field("text", pa.string(), metadata={b"ARROW:extension:name": b"arrow.py_extension_type"})
    odd = pa.table({"text": ["a"]}, schema=pa.schema([extension]))
    with pa.ipc.new_stream(str(tmp_path / "c.arrow"), odd.schema) as writer:
        writer.write_table(odd)
    with pytest.raises(DataError, match="extension type"):
        read(tmp_path / "c.arrow")


@pytest.mark.parametrize("ending", ["arrow", "parquet"])
def test_a_column_whose_name_is_no_text(tmp_path: Path, ending: str) -> None:
    """Found by fuzzing."""
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"columnname": ["x"]}), path, store_schema=False)
    else:
        with pa.ipc.new_stream(str(path), pa.schema([("columnname", pa.string())])) as writer:
            writer.write_table(pa.table({"columnname": ["x"]}))
    path.write_bytes(path.read_bytes().replace(b"columnname", b"column\xff\xfeme"))
    with pytest.raises(DataError, match=f"a.{ending}: not a whole"):
        read(path)


def test_offsets_that_lead_out_of_an_arrow_file(tmp_path: Path) -> None:
    """Arrow takes them from the file as they are, and would read memory that is not the column's."""
    path = tmp_path / "a.arrow"
    texts = ["first text", "second text", "third text"]
    with pa.ipc.new_stream(str(path), pa.schema([("text", pa.string())])) as writer:
        writer.write_table(pa.table({"text": texts}))
    offsets = struct.pack("<4i", 0, 10, 21, 31)
    whole = path.read_bytes()
    assert whole.count(offsets) == 1
    for bad in ((0, 2**30, 21, 31), (0, -5, 21, 31), (0, 10, 21, 2**30), (21, 10, 0, 31)):
        path.write_bytes(whole.replace(offsets, struct.pack("<4i", *bad)))
        with pytest.raises(DataError, match="not a whole Arrow file"):
            read(path)
