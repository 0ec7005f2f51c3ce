"""Logs of chat completions -> conversations: one request with its response a row, as OpenAI's interface has them.

| written | is |
|---|---|
| `{"request": {"messages": […], "tools": […], …}, "response": {"choices": [{"message": {…}}], …}, …}` | a log |
| the same with the request or response in a `body`, beside a `status_code` | joined files of a batch |

A file is a log where its first row is one. Each row becomes `messages` (the request's, and the answer), `tools` where
there are any, `model`, and whatever else stood beside request and response. A row is refused that has no one whole
answer: an error, none or several choices, an answer that was cut off or filtered, a stream of pieces.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.data.sources import UnreadableRow
from tunesmith.errors import RowError

Row = tuple[int, dict[str, Any] | RowError]
WHOLE = ("stop", "tool_calls", "function_call", None)
"""Reasons to finish that leave an answer whole; null where a server gives none."""


def unlogged(rows: Iterator[Row], file: str) -> Iterator[Row]:
    """The rows as they are, or of a log the conversations in it."""
    read: list[Row] = []
    for row in rows:
        read.append(row)
        if not isinstance(row[1], RowError):
            break
    whole = itertools.chain(read, rows)
    if not read or isinstance(read[-1][1], RowError) or not is_log(read[-1][1]):
        return whole
    return conversations(whole, file)


def conversations(rows: Iterator[Row], file: str) -> Iterator[Row]:
    """The rows of a log, or of a stretch of one."""
    return (_converted(line, row, file) for line, row in rows)


def is_log(row: Mapping[str, Any]) -> bool:
    request = _body(row.get("request"))
    return (
        "messages" not in row
        and isinstance(request, dict)
        and isinstance(request.get("messages"), list)
        and isinstance(row.get("response"), dict | list | str | None)
        and "response" in row
    )


def _converted(line: int, row: dict[str, Any] | RowError, file: str) -> Row:
    if isinstance(row, RowError):
        return line, row
    try:
        return line, conversation(row)
    except RowError as error:
        return line, UnreadableRow(error, file, line, "")


def conversation(row: Mapping[str, Any]) -> dict[str, Any]:
    """Raises RowError: no_request, error_response, streamed_response, no_answer, several_answers, unfinished_answer."""
    request = _body(row.get("request"))
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        raise RowError("no_request", "no request with messages", field="request")
    answer = _answer(row.get("response"))
    more = {key: value for key, value in row.items() if key not in ("request", "response")}
    out = {"messages": [*request["messages"], answer], **more}
    for key in ("tools", "functions", "model"):
        if request.get(key):
            out["tools" if key == "functions" else key] = request[key]
    return out


def _answer(response: object) -> dict[str, Any]:
    status = response.get("status_code") if isinstance(response, dict) else None
    body = _body(response)
    if isinstance(body, list) or (isinstance(body, dict) and body.get("object") == "chat.completion.chunk"):
        fix = "log the whole answer"
        raise RowError("streamed_response", "pieces of a stream", field="response", fix=fix)
    if not isinstance(body, dict) or body.get("error") or (type(status) is int and status >= 400):
        said = body.get("error") if isinstance(body, dict) else body
        raise RowError("error_response", f"no answer but {str(said)[:80]!r}", field="response")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise RowError("no_answer", "no choices", field="response")
    if len(choices) > 1:
        fix = "keep the one that is to be learned"
        raise RowError("several_answers", f"{len(choices)} choices", field="response", fix=fix)
    choice = choices[0]
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise RowError("no_answer", "a choice without a message", field="response")
    if choice.get("finish_reason") not in WHOLE:
        raise RowError(
            "unfinished_answer", f"finish_reason '{str(choice['finish_reason'])[:40]}'", field="response"
        )
    return {"role": "assistant", **choice["message"]}


def _body(value: object) -> object:
    """What stands in `body`, where a batch has it there."""
    return value["body"] if isinstance(value, dict) and isinstance(value.get("body"), dict) else value
