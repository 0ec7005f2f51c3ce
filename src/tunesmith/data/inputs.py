"""Rows to be answered: like training rows, but without answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.data.conversations import messages_of
from tunesmith.data.formats import SYNONYMS
from tunesmith.data.sources import located
from tunesmith.errors import DataError, RowError, near_miss
from tunesmith.types import Example, Message, RowRef


@dataclass(frozen=True)
class InputColumn:
    """The column that holds what is asked: a conversation, or the text of one user turn."""

    kind: Literal["messages", "text"]
    name: str


def input_column(row: Mapping[str, Any], given: str | None, file: str) -> InputColumn:
    """The given column, else the one whose name says that it holds messages, a prompt or a text.

    Raises DataError where there is none, or more than one.
    """
    if given is not None:
        if given not in row:
            raise DataError(f"{file}: no column '{given}'", near_miss(given, row))
        return InputColumn("messages" if isinstance(row[given], list) else "text", given)
    for part in ("messages", "prompt", "text"):
        names = [n for n in row if n.strip().lower() in SYNONYMS[part]]
        own = [n for n in names if n.strip().lower() == part] or names
        if len(own) > 1:
            raise DataError(
                f"{file}: the input may be {' or '.join(own)}", "one column", f"write --column {own[0]}"
            )
        if own:
            return InputColumn("messages" if isinstance(row[own[0]], list) else "text", own[0])
    raise DataError(
        f"{file}: no input column among {', '.join(row)}",
        "a column called messages, prompt or text (or a usual other name for one)",
        "name it: --column NAME",
    )


def to_prompt(row: Mapping[str, Any], column: InputColumn, ref: RowRef, instruction: str | None) -> Example:
    """The row's input as a conversation without an answer; an answer that it ends on is taken off.

    Raises RowError: missing_field, not_a_string, empty_prompt, no_user, and those of `messages_of`.
    """
    try:
        value = row.get(column.name)
        if value is None:
            raise RowError("missing_field", "null" if column.name in row else "not there", field=column.name)
        if column.kind == "messages":
            messages = messages_of(value)
            while messages and messages[-1].role == "assistant":
                messages = messages[:-1]
            if not messages:
                raise RowError("no_user", "nothing is asked", field=column.name)
            return Example(ref, messages)
        if not isinstance(value, str):
            raise RowError(
                "not_a_string", type(value).__name__, field=column.name, fix="write it as a string"
            )
        if not value.strip():
            raise RowError("empty_prompt", "nothing in it", field=column.name)
    except RowError as error:
        raise located(error, ref) from None
    return Example(ref, (Message("user", f"{instruction}\n\n{value}" if instruction else value),))
