"""Parquet files whose footers are damaged, where the library below would end the process."""

from __future__ import annotations

import io
import os
import signal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesmith.data.apart import Ended, apart
from tunesmith.data.tables import read_parquet
from tunesmith.errors import DataError

ROWS = [{"text": "New York"}, {"text": None}]


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), out, store_schema=False)
    return out.getvalue()


def read(content: bytes) -> Any:
    return [row for _, row in read_parquet("a.parquet", io.BytesIO(content), False)]


def test_a_footer_with_a_wrong_bit_is_read_or_refused() -> None:
    """At every other byte of it; Arrow 26 aborts where the sizes of its histograms are not those of the schema."""
    content = parquet()
    length = int.from_bytes(content[-8:-4], "little")
    said = set()
    for at in range(len(content) - 8 - length, len(content) - 8, 2):
        damaged = bytearray(content)
        damaged[at] ^= 1 << (at % 5)
        try:
            read(bytes(damaged))
        except DataError as error:
            said.add(str(error).partition("(")[2].partition(")")[0])
    assert "its footer contradicts itself" in said
    assert read(content) == ROWS


def test_work_apart_says_what_it_made_and_whether_it_died() -> None:
    assert apart(lambda: {"pid": os.getpid()})["pid"] != os.getpid()
    assert apart(lambda: None) is None
    with pytest.raises(Ended):
        apart(lambda: os.kill(os.getpid(), signal.SIGABRT))
    with pytest.raises(Ended):
        apart(lambda: 1 / 0)
