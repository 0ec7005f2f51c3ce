"""Rows as other tools write them, and what they are read as."""

from __future__ import annotations

import json
from typing import Any

from tunesmith.types import Message

U, A = Message("user", "Q"), Message("assistant", "A")
S = Message("system", "S")
CALLED = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
CALL = Message("assistant", "", extra={"tool_calls": [CALLED]})
RESULT = Message("tool", "42")
SCHEMA = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": SCHEMA}
USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
HUMAN, GPT = {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}
JSON_CALL = json.dumps({"name": "f", "arguments": {"x": 1}})


# name -> (file, row, settings, kind, the messages it is read as, the tools)
SPELLINGS: dict[
    str, tuple[str, dict[str, Any], dict[str, Any], str, tuple[Message, ...], tuple[Any, ...]]
] = {
    "Alpaca": ("a.json", {"instruction": "Q", "input": "", "output": "A"}, {}, "prompt", (U, A), ()),
    "Alpaca, input": (
        "a.json",
        {"instruction": "Q", "input": "I", "output": "A"},
        {},
        "prompt",
        (Message("user", "Q\n\nI"), A),
        (),
    ),
    "Alpaca, system and history": (
        "a.json",
        {
            "instruction": "Q",
            "input": "",
            "output": "A",
            "system": "S",
            "history": [["q1", "a1"], ["q2", "a2"]],
        },
        {},
        "prompt",
        (
            S,
            Message("user", "q1"),
            Message("assistant", "a1"),
            Message("user", "q2"),
            Message("assistant", "a2"),
            U,
            A,
        ),
        (),
    ),
    "Alpaca, its text column": (
        "a.parquet",
        {"instruction": "Q", "input": "", "output": "A", "text": "Below is an instruction ... Q ... A"},
        {},
        "prompt",
        (U, A),
        (),
    ),
    "ShareGPT": ("s.json", {"id": "1", "conversations": [HUMAN, GPT]}, {}, "messages", (U, A), ()),
    "ShareGPT, system turn": (
        "s.jsonl",
        {"conversations": [{"from": "system", "value": "S"}, HUMAN, GPT]},
        {},
        "messages",
        (S, U, A),
        (),
    ),
    "ShareGPT, tools": (
        "s.json",
        {
            "conversations": [
                HUMAN,
                {"from": "function_call", "value": JSON_CALL},
                {"from": "observation", "value": "42"},
                GPT,
            ],
            "system": "S",
            "tools": json.dumps([SCHEMA]),
        },
        {},
        "messages",
        (S, U, CALL, RESULT, A),
        (TOOL,),
    ),
    "ShareGPT, tool": (
        "s.json",
        {
            "conversations": [
                HUMAN,
                {"from": "function_call", "value": JSON_CALL},
                {"from": "tool", "value": "42"},
                GPT,
            ]
        },
        {},
        "messages",
        (U, CALL, RESULT, A),
        (),
    ),
    "OpenAI": (
        "o.jsonl",
        {"messages": [{"role": "developer", "content": "S"}, USER, ANSWER]},
        {},
        "messages",
        (S, U, A),
        (),
    ),
    "OpenAI, weights": (
        "o.jsonl",
        {"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]},
        {},
        "messages",
        (U, Message("assistant", "A", 0.0), U, Message("assistant", "A", 1.0)),
        (),
    ),
    "OpenAI, tools": (
        "o.jsonl",
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "42"},
                ANSWER,
            ],
            "tools": [TOOL],
            "parallel_tool_calls": False,
        },
        {},
        "messages",
        (
            U,
            Message("assistant", "", extra={"tool_calls": [{"id": "1", **CALLED}]}),
            Message("tool", "42", extra={"tool_call_id": "1"}),
            A,
        ),
        (TOOL,),
    ),
    "OpenAI, functions": (
        "o.jsonl",
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": None,
                    "function_call": {"name": "f", "arguments": '{"x": 1}'},
                },
                {"role": "function", "name": "f", "content": "42"},
                ANSWER,
            ],
            "functions": [SCHEMA],
        },
        {},
        "messages",
        (U, CALL, Message("tool", "42", extra={"name": "f"}), A),
        (TOOL,),
    ),
    "OpenAI, legacy": ("o.jsonl", {"prompt": "Q", "completion": "A"}, {}, "prompt", (U, A), ()),
    "TRL messages": ("t.parquet", {"messages": [USER, ANSWER]}, {}, "messages", (U, A), ()),
    "TRL prompt-completion": ("t.parquet", {"prompt": "Q", "completion": "A"}, {}, "prompt", (U, A), ()),
    "TRL prompt-completion, conversational": (
        "t.parquet",
        {"prompt": [USER], "completion": [ANSWER]},
        {},
        "prompt",
        (U, A),
        (),
    ),
    "Axolotl alpaca": ("x.jsonl", {"instruction": "Q", "input": "", "output": "A"}, {}, "prompt", (U, A), ()),
    "Axolotl chat_template": (
        "x.jsonl",
        {"dialog": [{"speaker": "client", "said": "Q"}, {"speaker": "bot", "said": "A", "train": False}]},
        {
            "columns": {"messages": "dialog"},
            "message_keys": {"role": "speaker", "content": "said"},
            "roles": {"client": "user"},
        },
        "messages",
        (U, Message("assistant", "A", 0.0)),
        (),
    ),
    "Axolotl chat_template, field_training": (
        "x.jsonl",
        {"messages": [{**USER, "learn": False}, {**ANSWER, "learn": True}]},
        {"message_keys": {"weight": "learn"}},
        "messages",
        (Message("user", "Q", 0.0), Message("assistant", "A", 1.0)),
        (),
    ),
    "ms-swift query-response": (
        "m.jsonl",
        {"system": "S", "query": "Q", "response": "A", "history": [["q1", "a1"]]},
        {},
        "prompt",
        (S, Message("user", "q1"), Message("assistant", "a1"), U, A),
        (),
    ),
    "ms-swift query-response, CSV": (
        "m.csv",
        {"system": "", "query": "Q", "response": "A", "history": '[["q1", "a1"]]'},
        {},
        "prompt",
        (Message("user", "q1"), Message("assistant", "a1"), U, A),
        (),
    ),
    "ms-swift messages, loss": (
        "m.jsonl",
        {"messages": [USER, {**ANSWER, "loss": False}, USER, {**ANSWER, "loss": True}]},
        {},
        "messages",
        (U, Message("assistant", "A", 0.0), U, Message("assistant", "A", 1.0)),
        (),
    ),
    "ms-swift conversation": (
        "m.jsonl",
        {"system": "S", "conversation": [{"human": "Q", "assistant": "A"}, {"human": "Q", "assistant": "A"}]},
        {},
        "messages",
        (S, U, A, U, A),
        (),
    ),
    "ms-swift conversation, loss": (
        "m.jsonl",
        {"conversation": [{"human": "Q", "assistant": "A", "loss": False}, {"user": "Q", "assistant": "A"}]},
        {},
        "messages",
        (U, Message("assistant", "A", 0.0), U, A),
        (),
    ),
    "ms-swift conversations": ("m.jsonl", {"conversations": [HUMAN, GPT]}, {}, "messages", (U, A), ()),
    "ms-swift calls": (
        "m.jsonl",
        {
            "tools": json.dumps([TOOL]),
            "messages": [
                USER,
                {"role": "tool_call", "content": JSON_CALL},
                {"role": "tool_call", "content": JSON_CALL},
                {"role": "tool_response", "content": "42"},
                {"role": "tool_response", "content": "42"},
                ANSWER,
            ],
        },
        {},
        "messages",
        (U, Message("assistant", "", extra={"tool_calls": [CALLED, CALLED]}), RESULT, RESULT, A),
        (TOOL,),
    ),
    "TSV": ("p.tsv", {"question": "Q", "answer": "A"}, {}, "prompt", (U, A), ()),
    "JSON Lines in .json": ("p.json", {"prompt": "Q", "completion": "A"}, {}, "prompt", (U, A), ()),
    "preferred answers": (
        "d.jsonl",
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"columns": {"completion": "chosen"}},
        "prompt",
        (U, A),
        (),
    ),
    "preferred answers, conversational": (
        "d.jsonl",
        {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]},
        {"columns": {"messages": "chosen"}},
        "messages",
        (U, A),
        (),
    ),
    "preferred answers, LLaMA-Factory": (
        "d.json",
        {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT},
        {"columns": {"prompt": "conversations", "completion": "chosen"}},
        "prompt",
        (U, A),
        (),
    ),
    "preferred answers, OpenAI": (
        "d.jsonl",
        {
            "input": {"messages": [USER], "tools": [TOOL], "parallel_tool_calls": True},
            "preferred_output": [ANSWER],
            "non_preferred_output": [ANSWER],
        },
        {"columns": {"prompt": "input", "completion": "preferred_output"}},
        "prompt",
        (U, A),
        (TOOL,),
    ),
    "pair of sentences": (
        "g.tsv",
        {"index": "0", "sentence1": "Q", "sentence2": "P", "label": "A"},
        {},
        "label",
        (Message("user", "Q\n\nP"), A),
        (),
    ),
    "list of labels": (
        "l.jsonl",
        {"text": "Q", "label": ["b", "é", "a", "b"]},
        {},
        "labels",
        (U, Message("assistant", '["a", "b", "é"]')),
        (),
    ),
    "list of labels, CSV": (
        "l.csv",
        {"text": "Q", "labels": '["b", "a"]'},
        {"format": "labels"},
        "labels",
        (U, Message("assistant", '["a", "b"]')),
        (),
    ),
    "number": (
        "n.csv",
        {"text": "Q", "score": "3.50"},
        {"format": "number"},
        "number",
        (U, Message("assistant", "3.5")),
        (),
    ),
    "numbers": (
        "n.parquet",
        {"text": "Q", "x": 1, "y": 0.25},
        {"targets": ["y", "x"]},
        "number",
        (U, Message("assistant", "[0.25, 1]")),
        (),
    ),
    "words and tags": (
        "w.parquet",
        {"id": "0", "tokens": ["Ada", "Byron", "of", "London"], "ner_tags": ["B-PER", "I-PER", "O", "B-LOC"]},
        {},
        "tags",
        (Message("user", "Ada Byron of London"), Message("assistant", '[[0, 9, "PER"], [13, 19, "LOC"]]')),
        (),
    ),
    "text and spans": (
        "w.jsonl",
        {"text": "Q of é", "entities": [{"start": 5, "end": 6, "label": "X"}, [0, 1, "Y"]]},
        {"format": "tags"},
        "tags",
        (Message("user", "Q of é"), Message("assistant", '[[0, 1, "Y"], [5, 6, "X"]]')),
        (),
    ),
}
