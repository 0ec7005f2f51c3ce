"""Which strings of a row are texts, what each is, and that one can be put in place of another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunesmith.config.run import DataConfig
from tunesmith.data.detect import detect
from tunesmith.desk.rows import Shape, with_texts


def shape(*rows: dict[str, Any], **settings: Any) -> Shape:
    return Shape(detect(list(rows), DataConfig(**settings), "rows.jsonl"))


TURNS = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
]
CASES: list[tuple[dict[str, Any], dict[str, Any], list[tuple[str, str]]]] = [
    (
        {"text": "late", "label": "billing", "mail": "a@b.example"},
        {},
        [("prompt", "late"), ("label", "billing"), ("other", "a@b.example")],
    ),
    ({"messages": TURNS}, {}, [("system", "be kind"), ("prompt", "hi"), ("answer", "hello")]),
    ({"messages": json.dumps(TURNS)}, {}, [("system", "be kind"), ("prompt", "hi"), ("answer", "hello")]),
    (
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {},
        [("prompt", "hi"), ("answer", "hello")],
    ),
    ({"prompt": "q", "completion": "a", "id": "7"}, {}, [("prompt", "q"), ("answer", "a"), ("other", "7")]),
    (
        {"instruction": "q", "input": "more", "output": "a"},
        {},
        [("prompt", "q"), ("prompt", "more"), ("answer", "a")],
    ),
    (
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"format": "preference"},
        [("prompt", "q"), ("answer", "good"), ("answer", "bad")],
    ),
    (
        {"chosen": TURNS, "rejected": [*TURNS[:2], {"role": "assistant", "content": "go away"}]},
        {"format": "preference"},
        [
            ("system", "be kind"),
            ("prompt", "hi"),
            ("answer", "hello"),
            ("system", "be kind"),
            ("prompt", "hi"),
            ("answer", "go away"),
        ],
    ),
    (
        {"text": "Ada lives in Rome", "spans": [{"start": 0, "end": 3, "label": "person"}]},
        {"format": "tags"},
        [("prompt", "Ada lives in Rome"), ("other", "person")],
    ),
    (
        {"tokens": ["Ada", "lives"], "tags": ["B-person", "O"]},
        {"format": "tags"},
        [("fixed", "Ada"), ("fixed", "lives"), ("fixed", "B-person"), ("fixed", "O")],
    ),
    (
        {"prompt": "q", "name": "Ada", "city": "Rome"},
        {"format": "prompt", "json_fields": ["name", "city"]},
        [("prompt", "q"), ("answer", "Ada"), ("answer", "Rome")],
    ),
    (
        {"messages": [*TURNS, {"role": "user", "content": [{"type": "text", "text": "part"}]}]},
        {},
        [
            ("system", "be kind"),
            ("prompt", "hi"),
            ("answer", "hello"),
            ("other", "text"),
            ("prompt", "part"),
        ],
    ),
]


@pytest.mark.parametrize("row, settings, texts", CASES)
def test_the_texts_of_a_row(
    row: dict[str, Any], settings: dict[str, Any], texts: list[tuple[str, str]]
) -> None:
    assert [(text.part, text.text) for text in shape(row, **settings).texts(row)] == texts


@pytest.mark.parametrize("row, settings, texts", CASES)
def test_every_text_can_be_replaced(
    row: dict[str, Any], settings: dict[str, Any], texts: list[tuple[str, str]]
) -> None:
    of = shape(row, **settings)
    before = json.dumps(row)
    changed = with_texts(
        row, {text.path: f"new {at}" for at, text in enumerate(of.texts(row)) if text.part != "fixed"}
    )
    assert json.dumps(row) == before, "the row itself is as it was"
    now = [text.text for text in of.texts(changed)]
    assert now == [text if part == "fixed" else f"new {at}" for at, (part, text) in enumerate(texts)]
