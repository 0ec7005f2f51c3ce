"""The log of traffic: lines are added whole, whoever else adds, and whatever a process that died left behind."""

from __future__ import annotations

import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tunesmith.data.readers import read_rows
from tunesmith.data.traffic import Answering, TrafficLog
from tunesmith.errors import ConfigError, RowError
from tunesmith.types import Example, Message, RowRef

WHO = Answering("runs/mine", "0123")
ASKED = Example(
    RowRef("in.jsonl", 3),
    (Message("system", "Be brief."), Message("user", "Where?"), Message("assistant", "")),
)


def add(path: Path, writer: int) -> None:
    with TrafficLog(path) as log:
        for turn in range(50):
            log.add({"text": f"{writer} {turn} " + "x" * 5000, "label": "a"} for _ in range(3))


def test_lines_of_several_processes_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with ProcessPoolExecutor(4, mp_context=get_context("forkserver")) as pool:
        list(pool.map(add, [path] * 4, range(4)))
    texts = [row["text"] for _, row in read_rows(path) if not isinstance(row, RowError)]
    assert len(texts) == 4 * 50 * 3
    for writer in range(4):  # and those of one process in its order
        own = [text.split()[1] for text in texts if text.startswith(f"{writer} ")]
        assert own == [str(turn) for turn in range(50) for _ in range(3)]


def test_a_torn_line_is_ended_and_named_and_nothing_else_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"text": "one", "label": "a"}\n{"text": "tw')
    with TrafficLog(path) as log:
        log.add([WHO.judged(ASKED, {"label": "b"}, 0.5)])
    rows = [row if isinstance(row, dict) else row.reason for _, row in read_rows(path)]
    assert rows[0] == {"text": "one", "label": "a"}
    assert isinstance(rows[1], str)
    assert {"text": "Where?", "label": "b", "confidence": 0.5}.items() <= rows[2].items()


def test_a_written_answer_is_a_chat_completion_with_its_request(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with TrafficLog(path) as log:
        log.add([WHO.written(ASKED, "At the depot.", whole=True, limit=9)])
    [(_, row)] = read_rows(path)
    assert isinstance(row, dict)
    assert [turn["content"] for turn in row["messages"]] == ["Be brief.", "Where?", "At the depot."]
    assert {"model": "runs/mine", "weights": "0123", "source": "in.jsonl:3"}.items() <= row.items()


def test_a_new_log_is_its_owners_alone_and_has_a_name_that_is_read(tmp_path: Path) -> None:
    with TrafficLog(tmp_path / "log.jsonl") as log:
        log.add([])
    assert stat.S_IMODE((tmp_path / "log.jsonl").stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match=r"ends in \.jsonl"):
        TrafficLog(tmp_path / "log.txt")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        TrafficLog(tmp_path / "folder.jsonl")
