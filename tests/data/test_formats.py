"""Columns -> a mapping, rows -> Examples; every way a row can be wrong has its reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunesmith.config.run import DataConfig
from tunesmith.data.columns import Kind
from tunesmith.data.formats import Mapping, detect, is_usable, to_example
from tunesmith.errors import DataError, RowError
from tunesmith.types import Message, RowRef

REF = RowRef("rows.jsonl", 3)
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
}
RESULT = {"role": "tool", "content": "42", "tool_call_id": "1"}


def columns(*names: str, **config: Any) -> Mapping:
    return detect([dict.fromkeys(names, "x")], DataConfig(**config), "rows.csv")


@pytest.mark.parametrize(
    "names, described",
    [
        ("messages", "messages rows: messages = messages"),
        ("conversations tools id", "messages rows: messages = conversations, tools = tools"),
        ("prompt completion", "prompt rows: prompt = prompt, completion = completion"),
        ("question answer", "prompt rows: prompt = question, completion = answer"),
        ("instruction input output", "prompt rows: prompt = instruction, completion = output, input = input"),
        ("instruction output", "prompt rows: prompt = instruction, completion = output"),
        ("Query Response System", "prompt rows: prompt = Query, completion = Response, system = System"),
        ("text label", "label rows: text = text, label = label"),
        ("text category", "label rows: text = text, label = category"),
        ("query intent", "label rows: text = query, label = intent"),
        ("id text intent urgency area reply", "label rows: text = text, label = intent"),
        ("text label intent", "label rows: text = text, label = label"),  # the part's own name wins
        ("text source", "text rows: text = text"),
        ("sentence", "text rows: text = sentence"),
    ],
)
def test_usual_columns_are_recognised(names: str, described: str) -> None:
    assert columns(*names.split()).describe() == described


@pytest.mark.parametrize(
    "names, words",
    [
        ("text intent category", ["data.columns.label=intent", "data.columns.label=category"]),
        ("question input answer", ["data.columns.prompt=question", "data.columns.prompt=input"]),
        ("messages text label", ["data.format=messages", "data.format=label"]),
        ("prompt completion text label", ["data.format=prompt", "data.format=label"]),
        ("body topic", ["body, topic", "data.columns.text=", "header"]),
        ("chosen rejected prompt", ["preference rows", "data.columns.completion=chosen"]),
    ],
)
def test_columns_that_do_not_decide_name_what_to_write(names: str, words: list[str]) -> None:
    with pytest.raises(DataError) as error:
        columns(*names.split())
    assert all(word in str(error.value) for word in words)


def test_what_the_error_says_to_write_works() -> None:
    assert columns("text", "intent", "category", columns={"label": "category"}).columns["label"] == "category"
    assert columns("messages", "text", "label", format="label").kind == "label"
    assert columns("body", "topic", columns={"text": "body", "label": "topic"}).kind == "label"
    assert columns("prompt", "chosen", "rejected", columns={"completion": "chosen"}).kind == "prompt"
    assert (
        columns("a", "b", "c", columns={"prompt": "a", "input": "b", "completion": "c"}).columns["input"]
        == "b"
    )


@pytest.mark.parametrize(
    "config, word",
    [
        ({"columns": {"txt": "text"}}, "did you mean 'text'"),
        ({"columns": {"text": "texxt"}}, "did you mean 'text'"),
        ({"columns": {"tools": "label"}}, "no meaning for text rows"),
        ({"format": "messages"}, "messages rows need a messages column"),
        ({"format": "text", "instruction": "x"}, "data.instruction"),
    ],
)
def test_settings_that_cannot_be_carried_out(config: dict[str, Any], word: str) -> None:
    with pytest.raises(DataError, match=word):
        columns("text", "label", **config)


def test_optional_columns_may_be_missing_in_some_rows() -> None:
    mapping = detect([{"text": "a"}, {"text": "b", "label": "c"}], DataConfig())
    assert mapping.kind == "label"


# Rows ------------------------------------------------------------------------------------------------

PLAIN = Mapping("prompt", {"prompt": "q", "completion": "a", "system": "s", "input": "i", "tools": "t"})
LABEL = Mapping("label", {"text": "text", "label": "label"})
WEIGHED = Mapping("label", {"text": "text", "label": "label", "sample_weight": "sample_weight"})
CHAT = Mapping("messages", {"messages": "messages", "tools": "tools"})
TEXT = Mapping("text", {"text": "text"})


def turns(mapping: Mapping, row: dict[str, Any], instruction: str | None = None) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in to_example(mapping, row, REF, instruction).messages]


def test_prompt_rows() -> None:
    assert turns(PLAIN, {"q": "Q", "a": "A"}) == [("user", "Q"), ("assistant", "A")]
    assert turns(PLAIN, {"q": "Q", "a": "A", "s": "S", "i": "I"}, "Do") == [
        ("system", "S"),
        ("user", "Do\n\nQ\n\nI"),
        ("assistant", "A"),
    ]
    assert turns(PLAIN, {"q": "Q", "a": "A", "s": "", "i": None}) == [("user", "Q"), ("assistant", "A")]
    row = {"q": [{"role": "system", "content": "S"}, USER], "a": [ANSWER]}
    assert turns(PLAIN, row, "Do") == [("system", "S"), ("user", "Do\n\nq"), ("assistant", "a")]
    assert turns(PLAIN, {"q": [USER, CALL], "a": "A"} | {"q": [USER]}) == [("user", "q"), ("assistant", "A")]


def test_an_answer_made_of_columns() -> None:
    config = DataConfig(columns={"prompt": "text"}, json_fields=["intent", "area"])
    mapping = detect([{"text": "T", "intent": "x", "area": "y", "id": 1}], config)
    assert mapping.describe() == "prompt rows: prompt = text, completion = JSON of intent, area"
    assert turns(mapping, {"text": "T", "area": "é", "intent": 3})[1] == (
        "assistant",
        '{"intent": 3, "area": "é"}',
    )
    assert turns(mapping, {"text": "T", "area": None, "intent": "x"})[1] == ("assistant", '{"intent": "x"}')
    for fields, reason in (
        ({}, "empty_answer"),
        ({"area": float("nan")}, "not_json"),
        ({"area": b""}, "not_json"),
    ):
        with pytest.raises(RowError) as error:
            to_example(mapping, {"text": "T", **fields}, REF)
        assert error.value.reason == reason
    with pytest.raises(DataError, match="did you mean 'area'"):
        detect([{"text": "T", "area": "y"}], DataConfig(columns={"prompt": "text"}, json_fields=["areas"]))


def test_label_rows() -> None:
    example = to_example(LABEL, {"text": "T", "label": " refund "}, REF, "Which?")
    assert (example.label, example.answer, example.prompt[0].content) == ("refund", "refund", "Which?\n\nT")
    values: list[Any] = [1, -1, True, "true", False]  # 28, 33
    labels = [to_example(LABEL, {"text": "T", "label": value}, REF).label for value in values]
    assert labels == ["1", "-1", "true", "true", "false"]


def test_label_rows_may_weigh_more_or_less() -> None:
    weights = [
        to_example(WEIGHED, {"text": "T", "label": "x", "sample_weight": value}, REF).messages[-1].weight
        for value in (2, 0.5, "1.25", "", None)
    ]
    assert weights == [2.0, 0.5, 1.25, None, None]


VALUES = st.just("a") | st.sampled_from(
    ["a", " ", "", None, 1, [], ["a"], {}, [{"role": "user", "content": "a"}], "["]
)


@example(row={"a": "a", "b": "a"}, kind=("prompt", ["prompt", "completion"]), more=[], fields=("c",))
@given(
    row=st.fixed_dictionaries({}, optional=dict.fromkeys("abc", VALUES)),
    kind=st.sampled_from(
        [("text", ["text"]), ("prompt", ["prompt", "completion"]), ("pairs", ["anchor", "positive"])]
    ),
    more=st.sampled_from([[], [], ["system"], ["input"], ["history"], ["tools"], ["negatives"]]),
    fields=st.sampled_from([(), (), ("c",)]),
)
def test_rows_told_usable_are_usable(
    row: dict[str, Any], kind: tuple[Kind, list[str]], more: list[str], fields: tuple[str, ...]
) -> None:
    mapping = Mapping(kind[0], dict(zip(kind[1] + more, "abc", strict=False)), fields)
    if is_usable(mapping, row):
        to_example(mapping, row, RowRef("f", 1))  # raises no RowError


def test_texts_are_told_usable() -> None:
    mapping = Mapping("prompt", {"prompt": "q", "completion": "a"})
    assert is_usable(mapping, {"q": "Where?", "a": "Here.", "n": 1})
    assert not is_usable(mapping, {"q": "Where?", "a": " "})


def test_text_rows() -> None:
    example = to_example(TEXT, {"text": "T\n"}, REF)
    assert (example.text, example.messages) == ("T\n", ())


def test_conversations() -> None:
    row = {"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 0.5, "name": "x"}]}
    example = to_example(CHAT, row, REF)
    assert [m.weight for m in example.messages] == [None, 0.0, None, 0.5]
    assert example.messages[3].extra == {"name": "x"}
    shared = {"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    assert turns(CHAT, shared) == [("user", "q"), ("assistant", "a")]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert turns(CHAT, {"messages": [{"role": "user", "content": parts}, ANSWER]})[0] == ("user", "ab")  # 40
    assert turns(CHAT, {"messages": json.dumps([USER, ANSWER])}) == [("user", "q"), ("assistant", "a")]
    nulls = {"messages": [USER | {"tool_calls": None, "weight": None}, ANSWER | {"tool_calls": []}]}
    assert to_example(CHAT, nulls, REF).messages == (Message("user", "q"), Message("assistant", "a"))


def test_tools_and_calls() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    for tools in ([tool], json.dumps([tool])):
        example = to_example(CHAT, {"messages": [USER, CALL, RESULT, ANSWER], "tools": tools}, REF)
        assert example.tools == (tool,)
    call = example.messages[1]
    assert (call.content, call.extra["tool_calls"][0]["function"]["arguments"]) == ("", {"x": 1})
    assert example.messages[2].extra == {"tool_call_id": "1"}
    assert to_example(CHAT, {"messages": [USER, CALL]}, REF).messages[-1].extra  # a call may be the answer


def chat(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


SYSTEM = {"role": "system", "content": "s"}
BAD: list[tuple[Mapping, dict[str, Any], str]] = [
    (CHAT, {}, "missing_field"),  # 34
    (CHAT, {"messages": None}, "missing_field"),
    (CHAT, {"messages": "hello"}, "not_a_list"),
    (CHAT, {"messages": "[{"}, "not_a_list"),
    (CHAT, {"messages": {"role": "user"}}, "not_a_list"),
    (CHAT, chat(), "empty_messages"),  # 35
    (CHAT, chat("hello"), "bad_message"),
    (CHAT, chat({"content": "x"}), "missing_field"),
    (CHAT, chat({"role": "wizard", "content": "x"}, ANSWER), "unknown_role"),  # 36
    (CHAT, chat({"role": 3, "content": "x"}, ANSWER), "unknown_role"),
    (CHAT, chat(SYSTEM, SYSTEM, USER, ANSWER), "misplaced_system"),  # 37
    (CHAT, chat(USER, SYSTEM, ANSWER), "misplaced_system"),
    (CHAT, chat(ANSWER, USER, ANSWER), "no_user"),  # 38
    (CHAT, chat(USER), "no_assistant"),
    (CHAT, chat(USER, ANSWER, USER), "trailing_turn"),
    (CHAT, chat({"role": "user"}, ANSWER), "null_content"),  # 39
    (CHAT, chat(USER, {"role": "assistant", "content": None}), "null_content"),
    (CHAT, chat(USER, {"role": "assistant", "content": " \n"}), "empty_answer"),
    (CHAT, chat(USER, {"role": "assistant", "content": 3}), "not_a_string"),
    (
        CHAT,
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER),
        "image_content",
    ),
    (CHAT, chat({"role": "user", "content": [{"type": "text", "text": 3}]}, ANSWER), "not_a_string"),
    (CHAT, chat({"role": "user", "content": ["x"]}, ANSWER), "image_content"),
    (CHAT, chat(USER, {**ANSWER, "weight": -1}), "bad_weight"),
    (CHAT, chat(USER, {**ANSWER, "weight": "1"}), "bad_weight"),
    (CHAT, chat(USER, {**ANSWER, "weight": True}), "bad_weight"),
    (CHAT, chat(USER, {**ANSWER, "weight": float("nan")}), "bad_weight"),
    (CHAT, chat({**USER, "weight": 1}, ANSWER), "bad_weight"),
    (CHAT, chat(USER, CALL, ANSWER), "tool_call_without_result"),  # 41
    (CHAT, chat(USER, RESULT, ANSWER), "tool_without_call"),
    (CHAT, chat(USER, {**CALL, "tool_calls": [{}]}), "bad_tool_calls"),
    (
        CHAT,
        chat(USER, {**CALL, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
        "bad_tool_calls",
    ),
    (
        CHAT,
        chat(USER, {**CALL, "tool_calls": [{"function": {"name": "f", "arguments": 3}}]}),
        "bad_tool_calls",
    ),
    (CHAT, chat(USER, ANSWER) | {"tools": "x"}, "bad_tools"),
    (CHAT, chat(USER, ANSWER) | {"tools": [{}]}, "bad_tools"),
    (PLAIN, {"q": "Q"}, "missing_field"),
    (PLAIN, {"q": "Q", "a": ""}, "empty_answer"),
    (PLAIN, {"q": " ", "a": "A"}, "empty_prompt"),
    (PLAIN, {"q": 3, "a": "A"}, "not_a_string"),
    (PLAIN, {"q": "Q", "a": 3.5}, "not_a_string"),  # 29
    (PLAIN, {"q": "Q", "a": "A", "i": 3}, "not_a_string"),
    (PLAIN, {"q": [USER], "a": "A", "i": "I"}, "not_a_string"),
    (PLAIN, {"q": "Q", "a": [USER]}, "no_assistant"),
    (PLAIN, {"q": [SYSTEM, USER], "a": "A", "s": "S"}, "two_systems"),
    (PLAIN, {"q": "Q", "a": "A", "s": 3}, "not_a_string"),
    (LABEL, {"text": "T", "label": None}, "missing_field"),
    (LABEL, {"text": "T", "label": float("nan")}, "bad_label"),  # 30
    (LABEL, {"text": "T", "label": 1.0}, "bad_label"),  # 33
    (LABEL, {"text": "T", "label": " "}, "empty_answer"),
    (LABEL, {"text": "", "label": "x"}, "empty_text"),
    (WEIGHED, {"text": "T", "label": "x", "sample_weight": -1}, "bad_weight"),
    (WEIGHED, {"text": "T", "label": "x", "sample_weight": True}, "bad_weight"),
    (WEIGHED, {"text": "T", "label": "x", "sample_weight": "much"}, "bad_weight"),
    (LABEL, {"text": b"T", "label": "x"}, "not_a_string"),
    (TEXT, {"text": "\n"}, "empty_text"),
]


@pytest.mark.parametrize("mapping, row, reason", BAD, ids=[f"{i}-{bad[2]}" for i, bad in enumerate(BAD)])
def test_a_bad_row_has_its_reason_and_names_file_and_line(
    mapping: Mapping, row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RowError) as error:
        to_example(mapping, row, REF)
    assert error.value.reason == reason
    assert str(error.value).startswith("rows.jsonl:3: ")
    assert str(error.value).count("field '") <= 1


def test_68_markup_in_a_field_is_text() -> None:
    assert (
        turns(PLAIN, {"q": "<script>alert(1)</script>", "a": "=cmd|x"})[0][1] == "<script>alert(1)</script>"
    )
