"""What a hostile input is: files that a generator writes, what they are put through, and what is to come of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Write = Callable[[Path, bool], None]
"""Writes the files into a folder; true: at full size, else a smaller one that takes the same path."""
GOOD = {"text": "The card reader on the second floor is dead", "label": "hardware"}
OTHER = {"text": "I was charged twice for the same month", "label": "billing"}


@dataclass(frozen=True)
class Hostile:
    """One of the 68.

    comes_of_it: what is said, and how often: 'refused nul_byte', 'changed html', 'dropped exact', 'noted answer_cut',
    'read byte_order_mark', 'warned …', or for a file that is refused 'file …' with words of the message.
    left: rows that are left. statement: for a person. train: settings of `data` where it is put through the loader of
    training instead of the desk. seconds: of processor time that it may take.
    """

    number: int
    name: str
    write: Write
    comes_of_it: dict[str, int]
    left: int
    statement: str
    steps: dict[str, Any] = field(default_factory=lambda: {"clean": {}})
    train: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    seconds: float = 10


ALL: dict[int, Hostile] = {}


def hostile(
    number: int, name: str, comes_of_it: dict[str, int] | str, left: int, statement: str, **more: Any
) -> Any:
    """Registers the generator below it under a number of the list. A string: the file is refused, in these words."""
    said = {f"file {comes_of_it}": 1} if isinstance(comes_of_it, str) else comes_of_it

    def register(write: Write) -> Write:
        assert number not in ALL, number
        ALL[number] = Hostile(number, name, write, said, left, statement, **more)
        return write

    return register


def jsonl(folder: Path, rows: Iterable[Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def raw(folder: Path, content: bytes | str, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def line(row: Any) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def between(bad: bytes) -> bytes:
    """A line that is wrong, between two that are not."""
    return line(GOOD) + bad + b"\n" + line(OTHER)
