"""A row at the desk: its columns as the file has them, where it came from, and the texts in it by what they are.

A text is a string somewhere in the row, found by its path: column, then keys and places. What it is comes from what
the columns mean (`tunesmith.data.columns`):

| part | is |
|---|---|
| `prompt` | what the row asks: user's turns, tools' results, a text to be classified, plain text |
| `answer` | what is learned: the assistant's turns, a completion, chosen and rejected answers |
| `system` | a system prompt |
| `label` | a class, or each of several |
| `fixed` | words that another column has a tag for each of, and the tags: they are read, never changed |
| `other` | any string of a column that training does not read, such as a customer's name |
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from tunesmith.data import peer_formats
from tunesmith.data.columns import Mapping as Meaning
from tunesmith.data.formats import is_usable, to_example
from tunesmith.data.split import normalised
from tunesmith.data.strict_json import parse_object
from tunesmith.desk.worthless import is_sound
from tunesmith.errors import RowError
from tunesmith.types import Example, RowRef

Part = Literal["prompt", "answer", "system", "label", "fixed", "other"]
PARTS: tuple[Part, ...] = get_args(Part)
CONTENT: tuple[Part, ...] = ("prompt", "answer", "system")
"""What is text that a model reads or writes, and that may be changed."""
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Path = tuple[str | int, ...]
Values = dict[str, Any]

written = json.JSONEncoder(ensure_ascii=False).encode
"""Values -> how they stand in a version."""
_PARSED = json.JSONDecoder().raw_decode
JSON = "$json"
"""In a path: the string that is found so far holds JSON, and the path goes on inside."""
_PART: dict[str, Part] = {
    **dict.fromkeys(("completion", "positive", "negatives", "chosen", "rejected", "completions"), "answer"),
    **dict.fromkeys(("label", "labels"), "label"),
    "system": "system",
    **dict.fromkeys(("messages", "history", "prompt", "input", "text", "pair", "anchor"), "prompt"),
    **dict.fromkeys(("tokens", "tags"), "fixed"),
}
_ANSWERED = ("completion", "label", "labels", "tags", "spans")
"""Parts that are the one right answer; of texts that belong together there may be many."""
_ROLE: dict[str, Part] = {"assistant": "answer", "system": "system", "user": "prompt", "tool": "prompt"}


@dataclass(frozen=True, slots=True)
class Text:
    path: Path
    part: Part
    text: str


@dataclass(frozen=True)
class Shape:
    """What the columns of one file mean, and with that where its texts are."""

    meaning: Meaning
    parts: Mapping[str, Part] = field(init=False)
    """column -> part; columns that are not named are `other`."""

    def __post_init__(self) -> None:
        parts = {column: _PART[name] for name, column in self.meaning.columns.items() if name in _PART}
        parts |= dict.fromkeys(self.meaning.json_fields, "answer")
        if self.meaning.kind in ("unpaired", "rating") and "label" in self.meaning.columns:
            parts[self.meaning.columns["label"]] = "other"  # a verdict, not a class
        object.__setattr__(self, "parts", parts)

    @cached_property
    def sides(self) -> tuple[list[str], list[str]]:
        """Columns that ask, and those that hold the one right answer."""
        meaning = self.meaning
        answers = [meaning.columns[part] for part in _ANSWERED if part in meaning.columns]
        answers += [*meaning.json_fields, *meaning.targets]
        return [column for column in meaning.columns.values() if column not in answers], answers

    def texts(self, values: Values) -> list[Text]:
        """Every string of the row but the names of roles."""
        found: list[Text] = []
        for column, value in values.items():
            part = self.parts.get(column, "other")
            if type(value) is str:
                inner = unpacked(value) if part in ("prompt", "answer") else None
                if inner is None:
                    found.append(Text((column,), part, value))
                else:
                    found += self._inside(inner, (column, JSON), part)
            elif type(value) in (list, dict):
                found += self._inside(value, (column,), part)
        return found

    def _inside(self, value: Any, path: Path, part: Part) -> Iterator[Text]:
        if type(value) is str:
            yield Text(path, part, value)
        elif type(value) is list:
            for at, item in enumerate(value):
                yield from self._inside(item, (*path, at), part)
        elif type(value) is dict:
            role = self._role(value) if part not in ("other", "fixed") else None
            for key, item in value.items():
                if key != role or role is None:
                    yield from self._inside(item, (*path, key), self._part(value, key, role, part))

    def _role(self, turn: dict[str, Any]) -> str | None:
        """The key that names a turn's role."""
        given = self.meaning.turns.keys.get("role")
        names = (given,) if given else peer_formats.MESSAGE_KEYS["role"]
        return next((name for name in names if isinstance(turn.get(name), str)), None)

    def _part(self, turn: dict[str, Any], key: str, role: str | None, part: Part) -> Part:
        if part in ("other", "fixed"):
            return part
        if role is None and "type" in turn:  # a part of a content: {"type": "text", "text": …}
            return part if key == "text" else "other"
        if role is None:
            return "answer" if key == "assistant" and part == "prompt" else part
        content = self.meaning.turns.keys.get("content")
        if key not in ((content,) if content else peer_formats.MESSAGE_KEYS["content"]):
            return "other"
        name = self.meaning.turns.roles.get(turn[role], peer_formats.ROLE_NAMES.get(turn[role], turn[role]))
        return _ROLE.get(name, "other")


def unpacked(text: str) -> Any:
    """Turns that a column holds as JSON, as CSV has them; None where it is plain text."""
    if not text.lstrip().startswith(("[{", "[ {")):
        return None
    try:
        return parse_object('{"value": ' + text + "}")["value"]
    except RowError:
        return None


def with_texts(values: Values, changed: Mapping[Path, str]) -> Values:
    """The row with these texts in place of those that were there."""
    out = dict(values)
    for column in {path[0] for path in changed}:
        paths = {path[1:]: text for path, text in changed.items() if path[0] == column}
        out[str(column)] = _put(copy.deepcopy(out[str(column)]), paths)
    return out


def _put(value: Any, changed: Mapping[Path, str]) -> Any:
    if () in changed:
        return changed[()]
    if JSON in {path[0] for path in changed}:
        inner = _put(unpacked(value), {path[1:]: text for path, text in changed.items()})
        return json.dumps(inner, ensure_ascii=False)
    for path, text in changed.items():
        here = value
        for step in path[:-1]:
            here = here[step]
        here[path[-1]] = text
    return value


@dataclass(frozen=True)
class Row:
    """number: its place among all rows that were read, from 0; it stays the row's through every step. texts: see
    `Shape`."""

    number: int
    split: Split
    ref: RowRef
    values: Values
    shape: Shape

    @cached_property
    def texts(self) -> list[Text]:
        return self.shape.texts(self.values)

    @cached_property
    def _normalised(self) -> dict[str, str]:
        return {}

    def normalised(self, text: str) -> str:
        """As `split.normalised`: worked out once for each text of the row."""
        found = self._normalised.get(text)
        if found is None:
            found = self._normalised[text] = normalised(text)
        return found

    @cached_property
    def doubtful(self) -> list[Text]:
        """Prompts and answers that may teach nothing: see `worthless.is_sound`."""
        content = (text for text in self.texts if text.part == "prompt" or text.part == "answer")
        return [text for text in content if not is_sound(text.text, answers=text.part == "answer")]

    @cached_property
    def error(self) -> RowError | None:
        """Why training drops it, where it does."""
        if is_usable(self.shape.meaning, self.values):
            return None
        return self.example if isinstance(self.example, RowError) else None

    @cached_property
    def example(self) -> Example | RowError:
        """What training reads, or why it drops the row."""
        try:
            return to_example(self.shape.meaning, self.values, self.ref)
        except RowError as error:
            return error

    @cached_property
    def json(self) -> str:
        """The values as they are written."""
        return written(self.values)

    def but(self, values: Values, split: Split | None = None) -> Row:
        """The same row with other values, or in another split."""
        if values is self.values:
            return Written(self.number, split or self.split, self.ref, self.shape, self.json)
        return Row(self.number, split or self.split, self.ref, values, self.shape)


class Written(Row):
    """A row of which it is known how its values are written: they are parsed when they are asked for."""

    def __init__(self, number: int, split: Split, ref: RowRef, shape: Shape, written: str) -> None:
        vars(self).update(number=number, split=split, ref=ref, shape=shape, json=written)

    @cached_property
    def values(self) -> Values:
        found: Values = _PARSED(self.json)[0]  # written here, so there is nothing around it
        return found
