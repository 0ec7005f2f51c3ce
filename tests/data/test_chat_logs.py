"""Logs of chat completions are conversations to learn from; what holds no one whole answer is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.run import DataConfig
from tunesmith.data.account import Account
from tunesmith.data.load import read_examples
from tunesmith.data.readers import read_rows
from tunesmith.errors import RowError
from tunesmith.types import Message

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}]
ANSWER = {"role": "assistant", "content": "At the depot."}
REQUEST: dict[str, Any] = {"model": "large", "messages": ASKED, "temperature": 0.2}


def response(*messages: Any, **more: Any) -> dict[str, Any]:
    choices = [{"index": i, "message": m, "finish_reason": "stop"} for i, m in enumerate(messages)]
    return {"id": "c1", "object": "chat.completion", "choices": choices, "usage": {"total_tokens": 9}, **more}


def log(answer: Any = None, **more: Any) -> dict[str, Any]:
    return {"request": REQUEST, "response": response(ANSWER) if answer is None else answer, **more}


def read(folder: Path, rows: list[Any]) -> list[Any]:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [row.reason if isinstance(row, RowError) else row for _, row in read_rows(path)]


def test_a_request_with_its_response_is_a_conversation(tmp_path: Path) -> None:
    assert read(tmp_path, [log(time="2026-03-01")]) == [
        {"messages": [*ASKED, ANSWER], "time": "2026-03-01", "model": "large"}
    ]
    [example] = read_examples([str(tmp_path / "log.jsonl")], DataConfig(), Account("stop"))[0]
    turns = (
        Message("system", "Be brief."),
        Message("user", "Where is it?"),
        Message("assistant", "At the depot."),
    )
    assert example.messages == turns


def test_bodies_as_in_a_batch(tmp_path: Path) -> None:
    row = {
        "custom_id": "7",
        "request": {"body": REQUEST},
        "response": {"status_code": 200, "body": response(ANSWER)},
    }
    assert read(tmp_path, [row])[0]["messages"] == [*ASKED, ANSWER]
    bad = {**row, "response": {"status_code": 429, "body": {"detail": "slow down"}}}
    assert read(tmp_path, [row, bad])[1] == "error_response"


def test_tools_are_kept_with_the_calls(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"id": 7}'}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    row = {"request": {**REQUEST, "tools": tools}, "response": response(answer)}
    assert read(tmp_path, [row])[0]["tools"] == tools
    [example] = read_examples([str(tmp_path / "log.jsonl")], DataConfig(), Account("stop"))[0]
    assert example.messages[-1].extra["tool_calls"][0]["function"]["arguments"] == {"id": 7}
    assert len(example.tools) == 1


CUT = response(ANSWER)
CUT["choices"][0]["finish_reason"] = "length"
REFUSED: dict[str, tuple[Any, str]] = {
    "error": ({"error": {"message": "overloaded"}}, "error_response"),
    "text": ("502 Bad Gateway", "error_response"),
    "null": ({"request": REQUEST, "response": None}, "error_response"),
    "no choices": (response(), "no_answer"),
    "no message": ({"choices": [{"delta": {}}]}, "no_answer"),
    "two": (response(ANSWER, ANSWER), "several_answers"),
    "cut off": (CUT, "unfinished_answer"),
    "stream": ([{"object": "chat.completion.chunk"}], "streamed_response"),
    "chunk": ({"object": "chat.completion.chunk", "choices": []}, "streamed_response"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_one_whole_answer(tmp_path: Path, name: str) -> None:
    given, reason = REFUSED[name]
    row = given if isinstance(given, dict) and "request" in given else log(given)
    assert read(tmp_path, [log(), row])[1] == reason


def test_a_row_without_a_request_among_logs(tmp_path: Path) -> None:
    assert (
        read(tmp_path, [log(), {"request": "GET /", "response": {}}, {"text": "a"}])[1:] == ["no_request"] * 2
    )


def test_rows_that_only_look_like_it_are_left_alone(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"request": "GET /", "response": "200"},
        {"messages": [], "request": {"messages": []}, "response": {}},
        {"request": {"messages": []}},
    ]
    for row in rows:
        assert read(tmp_path, [row]) == [row]
