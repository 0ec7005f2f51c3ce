"""Rows for the tests of rewards."""

from __future__ import annotations

from tunesmith.types import Example, Message, RowRef


def row(prompt: str = "What is 2 + 2?", answer: str = "4", line: int = 1, **more: object) -> Example:
    turns = (Message("user", prompt), *([Message("assistant", answer)] if answer else []))
    return Example(ref=RowRef("rows.jsonl", line), messages=turns, **more)  # type: ignore[arg-type]
