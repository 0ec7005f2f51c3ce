"""Chat messages, as `peer_formats` unfolds them -> Messages, checked one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tunesmith.data.peer_formats import ROLES, USUAL, Turns, json_value, unfold
from tunesmith.errors import RowError
from tunesmith.types import Message


def messages_of(value: object, turns: Turns = USUAL) -> tuple[Message, ...]:
    """Checked messages from a list of them in any of the spellings of `peer_formats`, or from its JSON.

    Raises RowError: not_a_list, empty_messages, unknown_role, null_content, not_a_string, image_content,
    empty_answer, bad_weight, bad_tool_calls, and those of `check_order` and of `peer_formats.unfold`.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):  # as CSV holds it
        value = json_value(value, "not_a_list", "messages")
    if not isinstance(value, list):
        raise RowError("not_a_list", f"a {type(value).__name__}, not a list of messages", field="messages")
    if not value:
        raise RowError("empty_messages", "an empty list", field="messages")
    messages = tuple(_message(fields, where) for where, fields in unfold(value, turns))
    check_order(messages)
    return messages


def check_order(messages: Sequence[Message]) -> None:
    """A system turn only at the start; tool results after tool calls, and tool calls answered.

    Raises RowError: misplaced_system, tool_without_call, tool_call_without_result.
    """
    calling = False  # inside a tool call and its results
    for index, message in enumerate(messages):
        if message.role == "system" and index:
            fix = "join the system turns"
            raise _misplaced("misplaced_system", "a system turn that is not the first", index, fix)
        if message.role == "tool" and not calling:
            raise _misplaced("tool_without_call", "a tool's result without a call before it", index)
        if index and "tool_calls" in messages[index - 1].extra and message.role != "tool":
            raise _misplaced("tool_call_without_result", "no tool result after the call before it", index)
        calling = message.role == "tool" or "tool_calls" in message.extra


def _misplaced(reason: str, got: str, index: int, fix: str = "") -> RowError:
    return RowError(reason, got, field=f"messages[{index}]", fix=fix)


def _message(fields: dict[str, Any], field: str) -> Message:
    role = fields.pop("role")
    if role not in ROLES:
        raise RowError("unknown_role", f"the role '{role[:40]}'; known: {', '.join(ROLES)}", field=field)
    weight = _weight(fields.pop("weight", None), role, field)
    if "tool_calls" in fields:
        fields["tool_calls"] = _tool_calls(fields["tool_calls"], role, field)
    content = _content(fields.pop("content", None), "tool_calls" in fields, field)
    if role == "assistant" and not content.strip() and "tool_calls" not in fields:
        raise RowError("empty_answer", "an assistant turn with nothing in it", field=field)
    return Message(role, content, weight, fields)


def _content(value: object, calls_tools: bool, field: str) -> str:
    if value is None:
        if calls_tools:
            return ""
        fix = "only a turn with tool_calls may have none"
        raise RowError("null_content", "no content", field=field, fix=fix)
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RowError("not_a_string", f"content of type {type(value).__name__}", field=field)
    texts = []
    for part in value:
        kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
        if kind != "text":
            raise RowError("image_content", f"a part of type '{kind}'; only text is read", field=field)
        if not isinstance(part.get("text"), str):
            raise RowError("not_a_string", "a text part without text", field=field)
        texts.append(part["text"])
    return "".join(texts)


def _weight(value: object, role: str, field: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise RowError("bad_weight", f"weight {value!r}; a number of 0 or more", field=field)
    if role != "assistant" and value > 0:
        raise RowError(
            "bad_weight", f"a weight on the {role}'s turn", field=field, fix="only assistant turns carry loss"
        )
    return float(value)


def _tool_calls(value: object, role: str, field: str) -> list[dict[str, Any]]:
    """OpenAI's list of calls; arguments that are a JSON string become an object, as chat templates expect."""
    if role != "assistant" or not isinstance(value, list):
        raise RowError("bad_tool_calls", "tool_calls must be a list in an assistant turn", field=field)
    calls = []
    for call in value:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowError(
                "bad_tool_calls",
                "a call without a function name",
                field=field,
                fix='{"type": "function", "function": {"name": …, "arguments": {…}}}',
            )
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = json_value(arguments, "bad_tool_calls", f"{field}.tool_calls")
        if not isinstance(arguments, dict):
            raise RowError("bad_tool_calls", "arguments that are no JSON object", field=field)
        calls.append({**call, "function": {**function, "arguments": arguments}})
    return calls
