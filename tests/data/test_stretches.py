"""A file read in stretches gives what the whole of it gives, row by row and error by error."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tunesmith.data import stretches as cutting
from tunesmith.data.readers import read_rows, read_stretch
from tunesmith.data.stretches import Stretch, stretches
from tunesmith.errors import RowError

LOG = json.dumps({"request": {"messages": [{"role": "user", "content": "a"}]}, "response": {"error": "no"}})
LINES = st.lists(
    st.sampled_from(
        [b'{"a": 1}', b'{"a": "\xe2\x80\xa8 x"}', b"", b"  ", b"{", b'{"a": "\xff"}', LOG.encode()]
    )
    | st.text(max_size=40).map(
        lambda text: json.dumps({"a": text}, ensure_ascii=False).encode("utf-8", "replace")
    ),
    min_size=1,
    max_size=40,
)


def told(row: object) -> object:
    return (row.reason, row.got, getattr(row, "raw", None)) if isinstance(row, RowError) else row


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=LINES, mark=st.booleans(), ended=st.booleans(), first=st.sampled_from([b'{"a": 0}', LOG.encode()])
)
@example(lines=[b"{"], mark=True, ended=False, first=LOG.encode())
def test_stretches_give_what_the_whole_file_gives(
    lines: list[bytes], mark: bool, ended: bool, first: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * mark + b"\n".join([first, *lines]) + b"\n" * ended)
    whole, cut = Counter[str](), Counter[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "CHUNK", 16)
        parts = stretches(str(path), 50)
        found = [(line, told(row)) for one in parts for line, row in read_stretch(str(path), one, cut)]
    assert not parts or found == [(line, told(row)) for line, row in read_rows(path, whole)]
    assert not parts or cut == whole
    assert len(parts) >= (path.stat().st_size > 400)
    ends = [part.end for part in parts]
    assert [part.start for part in parts] == [0, *ends[:-1]][: len(parts)]


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.jsonl", b'{"a": 1}\r\n' * 9), ("rows.csv", b"a\n1\n" * 99), ("one.jsonl", b'{"a": 1}\n')],
)
def test_what_cannot_be_cut_is_left_whole(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert stretches(str(tmp_path / name), 50) == []


def test_lines_are_counted_from_the_first_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "CHUNK", 8)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"123456\n\n1234567\n1\n")
    assert stretches(str(path), 8) == [Stretch(0, 8, 1), Stretch(8, 16, 3), Stretch(16, 18, 4)]
