"""Rows -> Examples, by what their columns mean (`columns`, whose names are offered here too)."""

from __future__ import annotations

import json
from collections.abc import Mapping as AbstractMapping
from typing import Any

from tunesmith.data.columns import Mapping, detect
from tunesmith.data.conversations import check_order, messages_of, tools_of
from tunesmith.data.sources import located
from tunesmith.errors import RowError
from tunesmith.types import Example, Message, RowRef

__all__ = ["Mapping", "detect", "to_example", "to_prompt"]


def to_example(
    mapping: Mapping, row: AbstractMapping[str, Any], ref: RowRef, instruction: str | None = None
) -> Example:
    """One row as an Example.

    Raises RowError with a stable reason: missing_field, not_a_string, not_json, empty_prompt, empty_answer,
    empty_text, bad_label, and for conversations those of `conversations.messages_of` and `tools_of`.
    """
    try:
        return _CONVERT[mapping.kind](mapping, row, ref, instruction)
    except RowError as error:
        raise located(error, ref) from None


def to_prompt(
    mapping: Mapping, row: AbstractMapping[str, Any], ref: RowRef, instruction: str | None = None
) -> Example:
    """What the row asks: the messages before its answer, as `to_example` makes them; an answer is not looked at.

    Raises RowError as `to_example` does, but for what concerns the answer.
    """
    try:
        if mapping.kind == "messages":
            messages = _asked_by(messages_of(_value(mapping, row, "messages")))
        else:
            ask = _asked_by_prompt if mapping.kind == "prompt" else _asked_by_text
            turns = ask(mapping, row, instruction)
            messages = (*_system(mapping, row, turns), *turns)
        check_order(messages)
        return Example(ref, messages, tools_of(_optional(mapping, row, "tools")))
    except RowError as error:
        raise located(error, ref) from None


def _asked_by(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Without the answer that a conversation ends on."""
    asked = messages[:-1] if messages[-1].role == "assistant" else messages
    if all(message.role != "user" for message in asked):
        raise RowError("no_user", "no user turn, so nothing is asked", field="messages")
    return asked


def _messages_row(mapping: Mapping, row: AbstractMapping[str, Any], ref: RowRef, _: str | None) -> Example:
    messages = messages_of(_value(mapping, row, "messages"))
    _check_ends(messages)
    return Example(ref, messages, tools_of(_optional(mapping, row, "tools")))


def _check_ends(messages: tuple[Message, ...]) -> None:
    roles = [message.role for message in messages]
    if "assistant" not in roles:
        raise RowError("no_assistant", "no assistant turn, so there is nothing to learn")
    if roles[-1] != "assistant":
        fix = "end on the assistant's turn"
        raise RowError("trailing_turn", f"the last turn is the {roles[-1]}'s", fix=fix)
    if "user" not in roles[: roles.index("assistant")]:
        raise RowError("no_user", "the assistant speaks before any user")


def _prompt_row(
    mapping: Mapping, row: AbstractMapping[str, Any], ref: RowRef, instruction: str | None
) -> Example:
    turns = _asked_by_prompt(mapping, row, instruction)
    completion = _json_answer(mapping, row) if mapping.json_fields else _value(mapping, row, "completion")
    if isinstance(completion, list):
        turns += messages_of(completion)
    else:
        turns += (Message("assistant", _text(completion, "completion", "empty_answer")),)
    messages = (*_system(mapping, row, turns), *turns)
    check_order(messages)
    _check_ends(messages)
    return Example(ref, messages, tools_of(_optional(mapping, row, "tools")))


def _asked_by_prompt(
    mapping: Mapping, row: AbstractMapping[str, Any], instruction: str | None
) -> tuple[Message, ...]:
    """The turns of a prompt row before its answer, without the system's."""
    prompt = _value(mapping, row, "prompt")
    context = _optional(mapping, row, "input") or ""
    if not isinstance(context, str) or (context and isinstance(prompt, list)):
        raise _not_a_string(context, "input")
    if isinstance(prompt, list):
        return _with_instruction(messages_of(prompt), instruction)
    parts = (instruction, _text(prompt, "prompt", "empty_prompt"), context if context.strip() else None)
    return (Message("user", "\n\n".join(part for part in parts if part)),)


def _json_answer(mapping: Mapping, row: AbstractMapping[str, Any]) -> str:
    """The answer columns as one JSON object, without those that are empty."""
    fields = {name: row[name] for name in mapping.json_fields if row.get(name) not in (None, "")}
    if not fields:
        raise RowError("empty_answer", f"none of {', '.join(mapping.json_fields)} has a value")
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RowError("not_json", f"an answer column that JSON cannot hold ({error})") from None


def _with_instruction(turns: tuple[Message, ...], instruction: str | None) -> tuple[Message, ...]:
    """The instruction goes before the first user turn's text."""
    if not instruction:
        return turns
    for index, turn in enumerate(turns):
        if turn.role == "user":
            first = Message("user", f"{instruction}\n\n{turn.content}", turn.weight, turn.extra)
            return (*turns[:index], first, *turns[index + 1 :])
    raise RowError("no_user", "no user turn for data.instruction to go before")


def _label_row(
    mapping: Mapping, row: AbstractMapping[str, Any], ref: RowRef, instruction: str | None
) -> Example:
    turns = _asked_by_text(mapping, row, instruction)
    label = _label(_value(mapping, row, "label"))
    messages = (*_system(mapping, row, turns), *turns, Message("assistant", label))
    return Example(ref, messages, label=label)


def _asked_by_text(
    mapping: Mapping, row: AbstractMapping[str, Any], instruction: str | None
) -> tuple[Message, ...]:
    text = _text(_value(mapping, row, "text"), "text", "empty_text")
    return (Message("user", f"{instruction}\n\n{text}" if instruction else text),)


def _label(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        fix = "write it as a string"
        raise RowError("bad_label", f"{value}; a class is a name or a whole number", field="label", fix=fix)
    return _text(value, "label", "empty_answer").strip()


def _text_row(mapping: Mapping, row: AbstractMapping[str, Any], ref: RowRef, _: str | None) -> Example:
    return Example(ref, text=_text(_value(mapping, row, "text"), "text", "empty_text"))


_CONVERT = {"messages": _messages_row, "prompt": _prompt_row, "label": _label_row, "text": _text_row}


def _system(
    mapping: Mapping, row: AbstractMapping[str, Any], turns: tuple[Message, ...]
) -> tuple[Message, ...]:
    value = _optional(mapping, row, "system")
    if value is None or value == "":
        return ()
    if turns and turns[0].role == "system":
        raise RowError("two_systems", "a system column beside a system message", field="system")
    return (Message("system", _text(value, "system", "empty_prompt")),)


def _optional(mapping: Mapping, row: AbstractMapping[str, Any], part: str) -> Any:
    return row.get(mapping.columns[part]) if part in mapping.columns else None


def _value(mapping: Mapping, row: AbstractMapping[str, Any], part: str) -> Any:
    column = mapping.columns[part]
    value = row.get(column)
    if value is None:
        raise RowError("missing_field", "null" if column in row else "not there", field=column)
    return value


def _text(value: object, field: str, empty: str) -> str:
    if not isinstance(value, str):
        raise _not_a_string(value, field)
    if not value.strip():
        raise RowError(empty, "nothing in it", field=field)
    return value


def _not_a_string(value: object, field: str) -> RowError:
    return RowError(
        "not_a_string", f"{type(value).__name__} {str(value)[:40]!r}", field=field, fix="write it as a string"
    )
