"""Judged rows as other tools write them, and what they are read as."""

from __future__ import annotations

from typing import Any

from tests.data.spellings import ANSWER, CALL, CALLED, GPT, HUMAN, RESULT, TOOL, USER, S, U
from tunesmith.types import Message

WORSE, WORSE_GPT = {"role": "assistant", "content": "B"}, {"from": "gpt", "value": "B"}
TALK = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Q\n\nAssistant: "
TALKED = (Message("user", "Hi"), Message("assistant", "Hello."), U)
AB = {"A": 1.0, "B": 0.0}
"""The usual pair: completion -> score."""

# name -> (row, settings, kind, prompt, completion -> score, margin)
SPELLINGS: dict[
    str, tuple[dict[str, Any], dict[str, Any], str, tuple[Message, ...], dict[str, float], float | None]
] = {
    "TRL preference": (
        {"prompt": "Q", "chosen": "A", "rejected": "B"}, {}, "preference", (U,), AB, None),
    "TRL preference, conversational": (
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE]}, {}, "preference", (U,), AB, None),
    "TRL implicit prompt": (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."}, {}, "preference",
        (Message("user", "The sky is"),),
        {"blue.": 1.0, "green.": 0.0}, None),
    "TRL implicit prompt, one text begins the other": (
        {"chosen": "So it is", "rejected": "So it is not"}, {}, "preference", (Message("user", "So it"),),
        {"is": 1.0, "is not": 0.0}, None),
    "TRL implicit prompt, conversational": (
        {"chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, {}, "preference", (U,), AB, None),
    "TRL reward with margin": (
        {"chosen": [USER, ANSWER], "rejected": [USER, WORSE], "margin": 0.5}, {}, "preference", (U,), AB, 0.5),
    "TRL unpaired": (
        {"prompt": "Q", "completion": "A", "label": True}, {}, "unpaired", (U,), {"A": 1.0}, None),
    "TRL unpaired, conversational": (
        {"prompt": [USER], "completion": [ANSWER], "label": False}, {}, "unpaired", (U,), {"A": 0.0}, None),
    "Axolotl, named columns": (
        {"system": "S", "ask": "Q", "good": "A", "bad": "B"},
        {"columns": {"prompt": "ask", "chosen": "good", "rejected": "bad"}}, "preference", (S, U), AB, None),
    "Axolotl chatml": (
        {"system": "", "question": "Q", "chosen": "A", "rejected": "B"}, {}, "preference", (U,), AB, None),
    "Axolotl chat_template": (
        {"messages": [USER], "chosen": ANSWER, "rejected": WORSE}, {}, "preference", (U,), AB, None),
    "Axolotl KTO": (
        {"q": "Q", "text": "A", "ok": 1},
        {"columns": {"prompt": "q", "completion": "text", "label": "ok"}}, "unpaired", (U,), {"A": 1.0}, None),
    "LLaMA-Factory, ShareGPT": (
        {"conversations": [HUMAN], "chosen": GPT, "rejected": WORSE_GPT}, {}, "preference", (U,), AB, None),
    "LLaMA-Factory, Alpaca": (
        {"instruction": "Q", "input": "I", "chosen": "A", "rejected": "B"}, {}, "preference",
        (Message("user", "Q\n\nI"),), AB, None),
    "LLaMA-Factory KTO": (
        {"instruction": "Q", "input": "", "output": "A", "kto_tag": False}, {}, "unpaired", (U,), {"A": 0.0}, None),
    "LLaMA-Factory KTO, ShareGPT": (
        {"conversations": [HUMAN, GPT], "kto_tag": True}, {}, "unpaired", (U,), {"A": 1.0}, None),
    "ms-swift": (
        {"messages": [USER, ANSWER], "rejected_response": "B"}, {}, "preference", (U,), AB, None),
    "ms-swift, messages": (
        {"messages": [USER, ANSWER], "rejected_messages": [USER, WORSE]}, {}, "preference", (U,), AB, None),
    "ms-swift, query": (
        {"system": "S", "query": "Q", "response": "A", "rejected_response": "B", "history": [["Hi", "Hello."]]},
        {}, "preference", (S, *TALKED), AB, None),
    "ms-swift unpaired": (
        {"messages": [USER, ANSWER], "label": True}, {}, "unpaired", (U,), {"A": 1.0}, None),
    "OpenAI": (
        {"input": {"messages": [USER], "tools": [TOOL], "parallel_tool_calls": True},
         "preferred_output": [ANSWER], "non_preferred_output": [WORSE]},
        {}, "preference", (U,), AB, None),
    "transcripts": (
        {"chosen": TALK + "A", "rejected": TALK + "B"}, {}, "preference", TALKED, AB, None),
    "transcript of the prompt": (
        {"prompt": TALK, "chosen": "A", "rejected": "B"}, {}, "preference", TALKED, AB, None),
    "UltraFeedback": (
        {"prompt": "Q", "chosen": [USER, ANSWER], "rejected": [USER, WORSE], "messages": [USER, ANSWER],
         "score_chosen": 8.5, "score_rejected": 7.0},
        {}, "preference", (U,), AB, 1.5),
    "conversations of several turns with tools": (
        {"chosen": [USER, {"role": "assistant", "tool_calls": [CALLED]}, {"role": "tool", "content": "42"}, ANSWER],
         "rejected": [USER, {"role": "assistant", "tool_calls": [CALLED]}, {"role": "tool", "content": "42"}, WORSE],
         "tools": [TOOL]},
        {}, "preference",
        (U, CALL, RESULT), AB, None),
    "several rejected": (
        {"prompt": "Q", "chosen": "A", "rejected": ["B", "C"]}, {}, "preference", (U,),
        AB | {"C": 0.0}, None),
    "several rejected, messages": (
        {"prompt": "Q", "chosen": ANSWER, "rejected": [[WORSE], [{**WORSE, "content": "C"}]]}, {}, "preference",
        (U,), AB | {"C": 0.0}, None),
    "rating": ({"prompt": "Q", "response": "A", "score": "4.5"}, {}, "rating", (U,), {"A": 4.5}, None),
    "rating of a conversation": (
        {"messages": [USER, ANSWER], "rating": 3}, {}, "rating", (U,), {"A": 3.0}, None),
    "ranks, the first is not the best": (
        {"prompt": "Q", "completions": ["B", "A", "C"], "ranks": [2, 1, 2]}, {}, "ranking", (U,),
        {"B": -2.0, "A": -1.0, "C": -2.0}, None),
    "scores of messages": (
        {"messages": [USER], "completions": [ANSWER, [WORSE]], "scores": [0.5, -1]}, {}, "ranking", (U,),
        {"A": 0.5, "B": -1.0}, None),
    "objects with scores": (
        {"prompt": "Q", "completions": [{"text": "A", "score": 2}, {**WORSE, "score": 1}]}, {}, "ranking", (U,),
        {"A": 2.0, "B": 1.0}, None),
    "objects with ranks": (
        {"prompt": TALK, "answers": [{"answer": "A", "rank": 1}, {"answer": "B", "rank": 2}]}, {}, "ranking",
        TALKED, {"A": -1.0, "B": -2.0}, None),
    "lists as JSON": (
        {"prompt": "Q", "completions": '["A", "B"]', "ranks": "[1, 2]"}, {}, "ranking", (U,),
        {"A": -1.0, "B": -2.0}, None),
}  # fmt: skip
