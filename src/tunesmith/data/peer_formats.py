"""Conversations as other tools spell them -> one list of {role, content, weight?, tool_calls?, …} each.

| spelling | found in |
|---|---|
| `role`, `content`; weights as `weight` | OpenAI, TRL, ms-swift, Axolotl |
| `from`, `value` | ShareGPT, LLaMA-Factory |
| `human`, `assistant` (one item, two turns) | ms-swift |
| whether a turn is learned as `loss`, `train` or `training`, true or false | ms-swift, Axolotl |
| roles `human`, `gpt`, `observation`, `function_call`, `tool_call`, `tool_response`, … | ShareGPT and its kin |
| an assistant's `function_call`, answered by the role `function` | OpenAI, before `tools` |
| earlier turns as [prompt, answer] pairs in a `history` column | Alpaca, LLaMA-Factory, ms-swift |
| tools without the `function` around them | OpenAI's `functions`, LLaMA-Factory |

Other names are given by `data.message_keys` and `data.roles`, or by a `dataset_info.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.config.run import DataConfig
from tunesmith.data.strict_json import parse_object
from tunesmith.errors import DataError, RowError, near_miss

ROLES = ("system", "user", "assistant", "tool")
CALL = "function_call"  # an assistant's turn whose content is the call, as JSON
# Other names for roles.
ROLE_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "developer": "system",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "tool_call": CALL,
}
# The part a key of a message plays -> its spellings; the first that a message has counts.
MESSAGE_KEYS = {
    "role": ("role", "from"),
    "content": ("content", "value"),
    "weight": ("weight", "loss", "train", "training"),
}
TWO_TURNS = ("human", "user")  # beside "assistant" in one item
MASKS = ("train_detail", "training_detail")


@dataclass(frozen=True)
class Turns:
    """How the messages of a file are spelled, beyond the usual ways.

    keys: role, content, weight -> key in a message. roles: name in the file -> one of ROLES, or function_call.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> list[str]:
        """'message role = speaker', 'role Bot = assistant' …"""
        keys = [f"message {part} = {key}" for part, key in self.keys.items()]
        return keys + [f"role {name} = {role}" for name, role in self.roles.items()]


USUAL = Turns()


def turns_of(config: DataConfig) -> Turns:
    """The spelling that `data.message_keys` and `data.roles` give; raises DataError for parts that are none."""
    for part in config.message_keys:
        if part not in MESSAGE_KEYS:
            raise DataError(f"data.message_keys.{part}: no such part", near_miss(part, MESSAGE_KEYS))
    for name, role in config.roles.items():
        if role not in (*ROLES, CALL):
            raise DataError(f"data.roles.{name} = {role}: no such role", near_miss(role, (*ROLES, CALL)))
    return Turns(config.message_keys, config.roles) if config.message_keys or config.roles else USUAL


def unfold(items: Sequence[object], turns: Turns = USUAL) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, message) for each turn: `role` one of ROLES where it is known, calls as `tool_calls`.

    Calls that follow one another are one turn. Raises RowError: bad_message, missing_field, bad_weight,
    bad_tool_calls.
    """
    held: tuple[str, dict[str, Any]] | None = None  # a turn of calls, which more calls may join
    for index, item in enumerate(items):
        where = f"messages[{index}]"
        for message in _messages(item, turns, where):
            if message["role"] != CALL:
                if held:
                    yield held
                    held = None
                yield where, message
                continue
            message = {**message, "role": "assistant", "tool_calls": _calls(message.get("content"), where)}
            del message["content"]
            if held and {**held[1], "tool_calls": ()} == {**message, "tool_calls": ()}:
                held[1]["tool_calls"] += message["tool_calls"]
                continue
            if held:
                yield held
            held = where, message
    if held:
        yield held


def _messages(item: object, turns: Turns, where: str) -> Iterator[dict[str, Any]]:
    if not isinstance(item, dict):
        raise RowError("bad_message", f"a {type(item).__name__}, not an object", field=where)
    # Parquet writes every field of every message; null means absent.
    fields = {str(key): value for key, value in item.items() if value is not None and value != []}
    asks = next((name for name in TWO_TURNS if name in fields and "assistant" in fields), None)
    if asks and not turns.keys and "role" not in fields:
        yield {"role": "user", "content": fields.pop(asks)}
        yield _respelled({"role": "assistant", "content": fields.pop("assistant"), **fields}, USUAL, where)
        return
    message = _respelled(fields, turns, where)
    if "role" not in message:
        name = turns.keys.get("role", "role")
        raise RowError("missing_field", f"a message without a {name}", field=where)
    role = str(message["role"])
    message["role"] = turns.roles.get(role, ROLE_NAMES.get(role, role))
    if "function_call" in message:
        if "tool_calls" in message:
            raise RowError("bad_tool_calls", "function_call beside tool_calls", field=where)
        message["tool_calls"] = [_call(message.pop("function_call"), where)]
    yield message


def _respelled(fields: dict[str, Any], turns: Turns, where: str) -> dict[str, Any]:
    """The message under our own keys; what is no part of a message stays as it is."""
    for mask in MASKS:
        if mask in fields:
            fix = "weight whole turns, or leave it out"
            raise RowError(
                "bad_weight", "a mask of characters, which is not read", field=f"{where}.{mask}", fix=fix
            )
    out = dict(fields)
    for part, spellings in MESSAGE_KEYS.items():
        given = turns.keys.get(part)
        name = next((key for key in ((given,) if given else spellings) if key in fields), None)
        if name is None:
            continue
        value = out.pop(name)
        if part == "weight" and isinstance(value, bool) and (given or name != "weight"):
            value = float(value)
        out[part] = value
    return out


def _calls(content: object, where: str) -> list[dict[str, Any]]:
    """The calls that the content of a function_call turn holds: {name, arguments}, or a list of them, as JSON."""
    value = json_value(content, "bad_tool_calls", where) if isinstance(content, str) else content
    return [_call(call, where) for call in (value if isinstance(value, list) else [value])]


def _call(call: object, where: str) -> dict[str, Any]:
    if not isinstance(call, dict) or "name" not in call:
        fix = '{"name": …, "arguments": {…}}'
        raise RowError("bad_tool_calls", "a function call without a name", field=where, fix=fix)
    return {"type": "function", "function": {k: v for k, v in call.items() if v is not None}}


def history_of(value: object) -> list[object]:
    """Messages of a `history` column: [prompt, answer] pairs, messages, or JSON of either; none when it is empty.

    Raises RowError (bad_history).
    """
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = json_value(value, "bad_history", "history")
    if not isinstance(value, list):
        raise RowError("bad_history", f"a {type(value).__name__}, not a list of turns", field="history")
    messages: list[object] = []
    for index, turn in enumerate(value):
        if isinstance(turn, dict):
            messages.append(turn)
        elif isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn):
            messages += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
        else:
            fix = 'write ["what was asked", "what was answered"]'
            raise RowError("bad_history", "not a pair of texts", field=f"history[{index}]", fix=fix)
    return messages


def tools_of(value: object) -> tuple[Mapping[str, Any], ...]:
    """Tool definitions (JSON schemas) from a list, or from a JSON string of one; or RowError (bad_tools).

    A bare function is put into {"type": "function", "function": …}, as chat templates expect.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        value = json_value(value, "bad_tools", "tools")
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowError("bad_tools", "not a list of JSON-schema tools", field="tools")
    for tool in value:
        function = tool.get("function", tool)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowError("bad_tools", f"a tool without a name: {json.dumps(tool)[:80]}", field="tools")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in value)


def json_value(text: str, reason: str, field: str) -> Any:
    """JSON inside a string, strictly; RowError with this reason."""
    # Wrapped, so that the strict parser, which reads objects, reads any value.
    try:
        (value,) = parse_object('{"value": ' + text + "}").values()
    except RowError as error:
        raise RowError(reason, error.got, field=field) from None
    except ValueError:  # `1, "more": 2` would give the wrapping a second key
        raise RowError(reason, "more than one JSON value", field=field) from None
    return value
