"""What a row asks: the turns before its answer, its tools, and the values of its columns."""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from typing import Any

from tunesmith.data.columns import Mapping
from tunesmith.data.conversations import messages_of
from tunesmith.data.peer_formats import history_of, tools_of
from tunesmith.errors import RowError
from tunesmith.types import Message

Row = AbstractMapping[str, Any]
Turns = tuple[Message, ...]


def asked_by_prompt(mapping: Mapping, row: Row, instruction: str | None = None) -> Turns:
    """The turns of the prompt column (a text, or messages), after those of the history."""
    prompt = value(mapping, row, "prompt")
    if isinstance(prompt, dict) and "messages" in prompt:  # OpenAI's preference rows have their tools with it
        prompt = prompt["messages"]
    context = optional(mapping, row, "input") or ""
    if not isinstance(context, str) or (context and isinstance(prompt, list)):
        raise _not_a_string(context, "input")
    history = history_of(optional(mapping, row, "history"))
    if isinstance(prompt, list):
        turns = messages_of([*history, *prompt] or prompt, mapping.turns)
        return _with_instruction(turns, instruction)
    text = filled(prompt, "prompt", "empty_prompt")
    asked = Message("user", paragraphs(instruction, text, context if context.strip() else None))
    return (*(messages_of(history, mapping.turns) if history else ()), asked)


def paragraphs(*parts: str | None) -> str:
    return "\n\n".join([part for part in parts if part])


def _with_instruction(turns: Turns, instruction: str | None) -> Turns:
    """The instruction goes before the first user turn's text."""
    if not instruction:
        return turns
    for index, turn in enumerate(turns):
        if turn.role == "user":
            first = Message("user", f"{instruction}\n\n{turn.content}", turn.weight, turn.extra)
            return (*turns[:index], first, *turns[index + 1 :])
    raise RowError("no_user", "no user turn for data.instruction to go before")


def with_system(mapping: Mapping, row: Row, turns: Turns) -> Turns:
    """The turns after the one of the system column, where it has a text."""
    system = optional(mapping, row, "system")
    if system is None or system == "":
        return turns
    if turns and turns[0].role == "system":
        raise RowError("two_systems", "a system column beside a system message", field="system")
    return (Message("system", filled(system, "system", "empty_prompt")), *turns)


def tools(mapping: Mapping, row: Row) -> tuple[AbstractMapping[str, Any], ...]:
    """Those of the tools column, else those that OpenAI's rows have beside the messages of the prompt."""
    if "tools" in mapping.columns or "prompt" not in mapping.columns:
        return tools_of(optional(mapping, row, "tools"))
    prompt = row.get(mapping.columns["prompt"])
    return tools_of(prompt.get("tools")) if isinstance(prompt, dict) else ()


# Values --------------------------------------------------------------------------------------------------


def optional(mapping: Mapping, row: Row, part: str) -> Any:
    """None where the part has no column, or the column no value."""
    return row.get(mapping.columns[part]) if part in mapping.columns else None


def value(mapping: Mapping, row: Row, part: str) -> Any:
    """Raises RowError (missing_field) where there is none."""
    column = mapping.columns[part]
    found = row.get(column)
    if found is None:
        raise RowError("missing_field", "null" if column in row else "not there", field=column)
    return found


def filled(found: object, field: str, empty: str) -> str:
    """A text that is not blank. Raises RowError (not_a_string, or the reason `empty`)."""
    if not isinstance(found, str):
        raise _not_a_string(found, field)
    if not found.strip():
        raise RowError(empty, "nothing in it", field=field)
    return found


def _not_a_string(found: object, field: str) -> RowError:
    return RowError(
        "not_a_string", f"{type(found).__name__} {str(found)[:40]!r}", field=field, fix="write it as a string"
    )
