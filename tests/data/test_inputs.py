"""A row that is asked has the prompt that it had as a training row, whether or not its answer is there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunesmith.config.run import DataConfig
from tunesmith.data.formats import detect, to_example
from tunesmith.data.inputs import input_mapping, to_prompt
from tunesmith.errors import DataError, RowError
from tunesmith.types import Message, RowRef

REF = RowRef("in", 1)
TOOLS = [{"type": "function", "function": {"name": "weigh"}}]
TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "Hm."},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "yes"},
]
ROWS: dict[
    str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
] = {  # the question, the answer, the recipe
    "label": ({"text": "hi"}, {"label": "yes"}, {}),
    "label, system": ({"text": "hi", "system": "Be kind."}, {"label": "yes"}, {}),
    "label, empty system": ({"text": "hi", "system": ""}, {"label": "yes"}, {}),
    "label beside a prompt's name": (
        {"text": "hi", "question": "no"},
        {"label": "yes"},
        {"format": "label"},
    ),
    "label, named": (
        {"body": "hi", "text": "no"},
        {"kind": 3},
        {"columns": {"text": "body", "label": "kind"}},
    ),
    "prompt": ({"prompt": "hi"}, {"completion": "yes"}, {}),
    "prompt, all parts": ({"question": "hi", "system": "S", "tools": TOOLS}, {"answer": "yes"}, {}),
    "prompt of turns": ({"prompt": TURNS[:4]}, {"completion": TURNS[4:]}, {}),
    "instruction and input": ({"instruction": "Name it.", "input": "hi"}, {"output": "yes"}, {}),
    "instruction, no input": ({"instruction": "Name it.", "input": ""}, {"output": "yes"}, {}),
    "input, named": (
        {"q": "hi", "doc": "there"},
        {"a": "yes"},
        {"columns": {"prompt": "q", "input": "doc", "completion": "a"}},
    ),
    "fields": ({"text": "hi", "prompt": "ho"}, {"a": 1, "b": 2}, {"json_fields": ["a", "b"]}),
}


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("answered", [True, False])
def test_the_prompt_is_that_of_the_training_row(case, answered):
    asked, answer, recipe = ROWS[case]
    config = DataConfig.model_validate(recipe)
    mapping = detect([{**asked, **answer}], config)
    expected = to_example(mapping, {**asked, **answer}, REF, "Which kind?")
    trained = DataConfig(format=mapping.kind, columns=config.columns)
    rows = [{**asked, **answer}] if answered else [asked]
    found = to_prompt(input_mapping(rows, trained, "in"), rows[0], REF, "Which kind?")
    assert (found.messages, found.tools) == (expected.prompt, expected.tools)


@pytest.mark.parametrize("turns", [TURNS, TURNS[:4], json.dumps(TURNS), json.dumps(TURNS[:4])])
def test_a_conversation_is_asked_without_the_answer_that_it_ends_on(turns):
    row = {"messages": turns, "tools": json.dumps(TOOLS)}
    found = to_prompt(input_mapping([row], DataConfig(), "in.csv"), row, REF, "Which kind?")
    assert [m.content for m in found.messages] == ["Be kind.", "hi", "Hm.", "And?"]
    assert found.tools == tuple(TOOLS)


@pytest.mark.parametrize("trained", ["auto", "messages", "prompt", "label", "text"])
def test_rows_of_another_kind_than_the_training_rows_can_be_asked(trained):
    for row in ({"text": "hi"}, {"prompt": "hi"}, {"query": "hi"}, {"messages": TURNS[1:2]}):
        found = to_prompt(input_mapping([row], DataConfig(format=trained), "in"), row, REF)
        assert found.messages == (Message("user", "hi"),)


@pytest.mark.parametrize(
    ("trained", "value", "expected"),
    [
        ({"format": "messages"}, TURNS[1:2], "hi"),
        ({"format": "messages"}, json.dumps(TURNS[1:2]), "hi"),
        ({"format": "messages"}, "hi", "I hi"),
        ({"format": "label", "columns": {"text": "body", "label": "kind"}}, "[hi]", "I [hi]"),
        ({"format": "prompt", "columns": {"prompt": "question", "input": "context"}}, "hi", "I hi"),
        ({"format": "prompt"}, TURNS[1:2], "I hi"),
        ({"format": "text"}, "hi", "I hi"),
    ],
)
def test_a_named_column_is_the_input_whatever_the_others_are(trained, value, expected):
    row = {"cell": value, "text": "no", "prompt": "no", "messages": "no", "system": None}
    mapping = input_mapping([row], DataConfig.model_validate(trained), "in", "cell")
    (message,) = to_prompt(mapping, row, REF, "I").messages
    assert message.content.split() == expected.split()


@pytest.mark.parametrize(
    ("row", "trained", "column", "message"),
    [
        ({"id": 1}, {}, None, "no input column among id"),
        ({"text": "a", "question": "b"}, {}, None, "the input may be question or text"),
        ({"input": "a", "query": "b"}, {}, None, "more than one column may be the prompt"),
        ({"text": "a"}, {"columns": {"text": "body"}}, None, "no column 'body'"),
        ({"text": "a"}, {}, "txt", "no column 'txt'"),
    ],
)
def test_a_file_whose_input_is_not_clear_is_refused_and_told_how_to_name_it(row, trained, column, message):
    with pytest.raises(DataError, match=message) as caught:
        input_mapping([row], DataConfig.model_validate(trained), "in", column)
    assert "--column" in caught.value.fix


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": None}, "missing_field"),
        ({"text": 5}, "not_a_string"),
        ({"text": " "}, "empty_text"),
        ({"messages": "hi"}, "not_a_list"),
        ({"messages": TURNS[:1]}, "no_user"),
        ({"messages": TURNS[4:]}, "no_user"),
    ],
)
def test_a_row_that_asks_nothing_is_refused(row, reason):
    with pytest.raises(RowError) as caught:
        to_prompt(input_mapping([row], DataConfig(), "in"), row, REF)
    assert caught.value.reason == reason
    assert (caught.value.file, caught.value.line) == ("in", 1)
