"""What the columns of a file mean: rows -> Examples.

Four kinds of rows: `messages` (a conversation), `prompt` (prompt and completion), `label` (a text and its
class, answered by generation) and `text` (plain text).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.config.run import DataConfig
from tunesmith.data.conversations import check_order, messages_of, tools_of
from tunesmith.data.sources import located
from tunesmith.errors import DataError, RowError, near_miss
from tunesmith.types import Example, Message, RowRef

Kind = Literal["messages", "prompt", "label", "text"]

# The part a column plays -> names it goes by, compared in lower case. The first is the part's own, and wins.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "dialogue"),
    "tools": ("tools", "functions"),
    "prompt": ("prompt", "question", "instruction", "input", "query"),
    "completion": ("completion", "response", "answer", "output"),
    "system": ("system", "system_prompt"),
    "text": ("text", "sentence", "ticket", "query"),
    "label": ("label", "intent", "category", "class"),
}
PARTS = (*SYNONYMS, "input")
NEEDED: dict[Kind, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt": ("prompt", "completion"),
    "label": ("text", "label"),
    "text": ("text",),
}
OPTIONAL: dict[Kind, tuple[str, ...]] = {
    "messages": ("tools",),
    "prompt": ("input", "system", "tools"),
    "label": ("system",),
    "text": (),
}


@dataclass(frozen=True)
class Mapping:
    """The kind of the rows, and which column plays which part.

    columns: part -> column; parts are `messages, tools, prompt, input, completion, system, text, label`.
    `input` is text that follows the prompt after a blank line (instruction + input + output rows).
    json_fields: the columns that make up the answer as a JSON object, in place of a completion column.
    """

    kind: Kind
    columns: AbstractMapping[str, str]
    json_fields: tuple[str, ...] = ()

    def describe(self) -> str:
        """One printable line: 'prompt rows: prompt = question, completion = answer'."""
        parts = ", ".join(f"{part} = {column}" for part, column in self.columns.items())
        if self.json_fields:
            parts += f", completion = JSON of {', '.join(self.json_fields)}"
        return f"{self.kind} rows: {parts}"


def detect(rows: Iterable[AbstractMapping[str, Any]], config: DataConfig, file: str = "") -> Mapping:
    """The mapping for rows like these (the first up to 100 of a file), honouring `format` and `columns`.

    Raises DataError where the columns fit no kind or more than one; it names the setting that decides.
    """
    seen = list(dict.fromkeys(column for row in rows for column in row))
    given = _given(config, seen, file)
    if config.json_fields:
        return _with_json_fields(given, seen, config, file)
    if config.format != "auto":
        return _finish(config.format, given, seen, config, file)
    kinds: tuple[Kind, ...] = ("messages", "prompt", "label")
    fitting = [kind for kind in kinds if _fits(kind, given, seen)]
    if len(fitting) > 1:
        raise DataError(
            f"{file}: the columns fit {' and '.join(fitting)} rows ({_show(seen)})",
            "columns of one kind of row",
            "write one of " + ", ".join(f"data.format={kind}" for kind in fitting),
        )
    if not fitting and not _fits("text", given, seen):
        raise _no_fit(seen, file)
    return _finish(fitting[0] if fitting else "text", given, seen, config, file)


def _with_json_fields(given: dict[str, str], seen: list[str], config: DataConfig, file: str) -> Mapping:
    """Prompt rows whose answer is made of several columns."""
    if config.format not in ("auto", "prompt") or "completion" in given:
        raise DataError(
            "data.json_fields makes the answer of prompt rows",
            "data.format=prompt or auto, and no data.columns.completion",
            "leave one of them out",
        )
    for column in config.json_fields:
        if column not in seen:
            raise DataError(f"{file}: no column '{column}' (data.json_fields)", near_miss(column, seen))
    # Any of its columns can stand for the completion while the others are looked for.
    stand_in = {**given, "completion": config.json_fields[0]}
    found = _finish("prompt", stand_in, seen, config, file)
    columns = {part: column for part, column in found.columns.items() if part != "completion"}
    return Mapping("prompt", columns, tuple(config.json_fields))


def _given(config: DataConfig, seen: list[str], file: str) -> dict[str, str]:
    for part, column in config.columns.items():
        if part not in PARTS:
            raise DataError(f"data.columns.{part}: no such part", near_miss(part, PARTS))
        if column not in seen:
            raise DataError(
                f"{file}: no column '{column}' (data.columns.{part})",
                near_miss(column, seen),
                "correct data.columns, or the header of the file",
            )
    return dict(config.columns)


def _candidates(part: str, given: dict[str, str], seen: list[str]) -> list[str]:
    """The columns that may play this part: the given one, else the part's own name, else every synonym."""
    if part in given:
        return [given[part]]
    free = [column for column in seen if column not in given.values()]
    own = [column for column in free if column.strip().lower() == part]
    if own:
        return own[:1]
    return [column for column in free if column.strip().lower() in SYNONYMS.get(part, ())]


def _fits(kind: Kind, given: dict[str, str], seen: list[str]) -> bool:
    return all(_candidates(part, given, seen) for part in NEEDED[kind])


def _finish(kind: Kind, given: dict[str, str], seen: list[str], config: DataConfig, file: str) -> Mapping:
    idle = [part for part in given if part not in NEEDED[kind] + OPTIONAL[kind]]
    if idle:
        raise DataError(
            f"data.columns.{idle[0]} has no meaning for {kind} rows",
            f"parts of {kind} rows: {', '.join(NEEDED[kind] + OPTIONAL[kind])}",
            "leave it out, or set data.format",
        )
    if config.instruction is not None and kind not in ("prompt", "label"):
        raise DataError(
            f"data.instruction is set, but these are {kind} rows",
            "prompt or label rows",
            "leave it out; in conversations write a system message",
        )
    columns = dict(given)
    if kind == "prompt" and "prompt" not in given:
        columns |= _instruction_and_input(seen, columns)
    for part in NEEDED[kind]:
        found = _candidates(part, columns, seen)
        if len(found) > 1:
            raise DataError(
                f"{file}: more than one column may be the {part}: {', '.join(found)}",
                f"one {part} column",
                "write one of " + ", ".join(f"data.columns.{part}={column}" for column in found),
            )
        if not found:
            raise DataError(
                f"{file}: {kind} rows need a {part} column; the columns are {_show(seen)}",
                f"a column called {' or '.join(SYNONYMS[part])}",
                f"write data.columns.{part}=<column>" + _header_hint(file),
            )
        columns[part] = found[0]
    for part in OPTIONAL[kind]:
        if part != "input" and len(found := _candidates(part, columns, seen)) == 1:
            columns[part] = found[0]
    return Mapping(kind, {part: columns[part] for part in NEEDED[kind] + OPTIONAL[kind] if part in columns})


def _instruction_and_input(seen: list[str], columns: dict[str, str]) -> dict[str, str]:
    """instruction + input + output rows: the input follows the instruction."""
    names = {column.strip().lower(): column for column in seen if column not in columns.values()}
    if "instruction" in names and "input" in names and "prompt" not in names:
        return {"prompt": names["instruction"], "input": columns.get("input", names["input"])}
    return {}


def _show(seen: list[str]) -> str:
    shown = ", ".join(column[:60] for column in seen[:20])
    return (shown or "none") + (", …" if len(seen) > 20 else "")


def _header_hint(file: str) -> str:
    csv = file.lower().removesuffix(".gz").endswith(".csv")
    return "; a CSV file needs a header line" if csv else ""


def _no_fit(seen: list[str], file: str) -> DataError:
    names = {column.strip().lower() for column in seen}
    if {"chosen", "rejected"} <= names or "preferred_output" in names:
        return DataError(
            f"{file}: these are preference rows ({_show(seen)})",
            "messages, prompt + completion, text + label, or text",
            "supervised fine-tuning learns from one answer: write data.columns.completion=chosen",
        )
    return DataError(
        f"{file}: the columns {_show(seen)} are none that are known",
        "messages | prompt + completion | text + label | text",
        "name them, for example data.columns.text=<column> data.columns.label=<column>" + _header_hint(file),
    )


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
    prompt = _value(mapping, row, "prompt")
    completion = _json_answer(mapping, row) if mapping.json_fields else _value(mapping, row, "completion")
    context = _optional(mapping, row, "input") or ""
    if not isinstance(context, str) or (context and isinstance(prompt, list)):
        raise _not_a_string(context, "input")
    if isinstance(prompt, list):
        turns = _with_instruction(messages_of(prompt), instruction)
    else:
        parts = (instruction, _text(prompt, "prompt", "empty_prompt"), context if context.strip() else None)
        turns = (Message("user", "\n\n".join(part for part in parts if part)),)
    if isinstance(completion, list):
        turns += messages_of(completion)
    else:
        turns += (Message("assistant", _text(completion, "completion", "empty_answer")),)
    messages = (*_system(mapping, row, turns), *turns)
    check_order(messages)
    _check_ends(messages)
    return Example(ref, messages, tools_of(_optional(mapping, row, "tools")))


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
    text = _text(_value(mapping, row, "text"), "text", "empty_text")
    label = _label(_value(mapping, row, "label"))
    user = Message("user", f"{instruction}\n\n{text}" if instruction else text)
    turns = (user, Message("assistant", label))
    return Example(ref, (*_system(mapping, row, turns), *turns), label=label)


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
