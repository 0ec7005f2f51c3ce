"""Hostile inputs 34 to 54: conversations, preferences, statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.hostile.inputs import GOOD, OTHER, hostile, jsonl, line

ALL_TRAIN: dict[str, Any] = {"validation_fraction": 0, "test_fraction": 0}
PREFERENCE = {**ALL_TRAIN, "format": "preference"}


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def chat(*turns: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(turns)}


ASKED = turn("user", "How do I reset the router?")
ANSWERED = turn("assistant", "Hold the button for ten seconds.")
TALK = chat(ASKED, ANSWERED)
SECOND = chat(turn("user", "Where is my parcel?"), turn("assistant", "At the depot in Hamm."))


def pair(
    chosen: Any = "At the depot.", rejected: Any = "No idea.", prompt: str = "Where is it?"
) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


PAIRS = [pair(), pair("At noon.", "Who knows.", "When do you open?")]


# Conversations -------------------------------------------------------------------------------------------


@hostile(34, "Missing messages", {"dropped missing_field": 1}, 2, "The row is dropped.")
def missing_messages(folder: Path, full: bool) -> None:
    jsonl(folder, [TALK, {"id": 7}, SECOND])


@hostile(35, "Empty list of messages", {"dropped empty_messages": 1}, 2, "The row is dropped.")
def no_messages(folder: Path, full: bool) -> None:
    jsonl(folder, [TALK, chat(), SECOND])


@hostile(
    36, "Unknown role", {"dropped unknown_role": 1}, 2, "The row is dropped; data.roles names other roles."
)
def unknown_role(folder: Path, full: bool) -> None:
    jsonl(folder, [TALK, chat(turn("narrator", "It was late."), ASKED, ANSWERED), SECOND])


@hostile(37, "Two system turns", {"dropped misplaced_system": 1}, 2, "The row is dropped: join them.")
def two_systems(folder: Path, full: bool) -> None:
    jsonl(
        folder, [TALK, chat(turn("system", "Be brief."), turn("system", "Be kind."), ASKED, ANSWERED), SECOND]
    )


@hostile(
    38,
    "Assistant first, or none",
    {"dropped no_user": 1, "dropped no_assistant": 1},
    2,
    "The rows are dropped.",
)
def no_assistant(folder: Path, full: bool) -> None:
    jsonl(folder, [TALK, chat(ANSWERED), chat(ASKED), SECOND])


@hostile(
    39,
    "Null or empty content",
    {"dropped null_content": 1, "dropped empty_answer": 1},
    2,
    "The rows are dropped.",
)
def null_content(folder: Path, full: bool) -> None:
    jsonl(folder, [TALK, chat(turn("user", None), ANSWERED), chat(ASKED, turn("assistant", " ")), SECOND])


@hostile(
    40,
    "Content as a list of parts",
    {"dropped image_content": 1},
    2,
    "Parts of text are joined; others drop the row.",
)
def parts(folder: Path, full: bool) -> None:
    texts = [{"type": "text", "text": "How do I reset"}, {"type": "text", "text": " the router?"}]
    image = [{"type": "image_url", "image_url": {"url": "photo.png"}}]
    jsonl(folder, [chat(turn("user", texts), ANSWERED), chat(turn("user", image), ANSWERED), SECOND])


@hostile(41, "A tool call without result", {"dropped tool_call_without_result": 1}, 2, "The row is dropped.")
def unanswered_call(folder: Path, full: bool) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    bad = chat(ASKED, turn("assistant", None, tool_calls=[call]), ANSWERED)
    jsonl(folder, [TALK, bad, SECOND])


@hostile(
    42, "10,000 turns", {}, 3, "Read as it is; training cuts or drops it by data.on_long_row, and counts it."
)
def many_turns(folder: Path, full: bool) -> None:
    turns = [turn(role, f"{role} says {i}.") for i in range(5_000) for role in ("user", "assistant")]
    jsonl(folder, [TALK, chat(*turns), SECOND])


@hostile(
    43,
    "An answer longer than the context",
    {"noted answer_cut": 1},
    2,
    "Cut at the end, and counted; never in silence.",
    train={**ALL_TRAIN, "max_length": 64},
)
def long_answer(folder: Path, full: bool) -> None:
    jsonl(folder, [TALK, chat(ASKED, turn("assistant", "Turn it off and on again. " * 100))])


# Preferences and rewards ---------------------------------------------------------------------------------


@hostile(
    44,
    "Chosen equals rejected",
    {"refused chosen_is_rejected": 1},
    2,
    "The row is dropped.",
    train=PREFERENCE,
)
def equal_answers(folder: Path, full: bool) -> None:
    jsonl(folder, [*PAIRS, pair("The same.", "The same.")])


@hostile(45, "Missing rejected", {"refused nothing_rejected": 1}, 2, "The row is dropped.", train=PREFERENCE)
def missing_rejected(folder: Path, full: bool) -> None:
    jsonl(folder, [*PAIRS, pair(rejected=None)])


@hostile(
    46, "Different prompts", {"refused different_prompts": 1}, 2, "The row is dropped.", train=PREFERENCE
)
def different_prompts(folder: Path, full: bool) -> None:
    other = [turn("user", "How do I reset the oven?"), turn("assistant", "Pull the plug.")]
    again = turn("user", "Where is my parcel?")
    rows = [
        {"chosen": [asked, ANSWERED], "rejected": [asked, turn("assistant", "No idea.")]}
        for asked in (ASKED, again)
    ]
    jsonl(folder, [*rows, {"chosen": [ASKED, ANSWERED], "rejected": other}])


@hostile(
    47,
    "All rewards equal",
    {"refused all_tied": 1},
    2,
    "A row that compares nothing is dropped.",
    train={**ALL_TRAIN, "format": "ranking"},
)
def equal_rewards(folder: Path, full: bool) -> None:
    rows = [
        {"prompt": f"Question {i}?", "completions": ["Yes.", "No."], "scores": s}
        for i, s in enumerate(([1, 0], [0, 1], [1, 1]))
    ]
    jsonl(folder, rows)


@hostile(
    48,
    "Infinite reward",
    {"refused not_finite": 1, "refused bad_number": 1},
    2,
    "The rows are refused.",
    train={**ALL_TRAIN, "format": "rating"},
)
def infinite_reward(folder: Path, full: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": f"Question {i}?", "completion": "Yes.", "rating": i} for i in range(2)
    ]
    text = "".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "rating": "inf"}])
    infinite = '{"prompt": "Question 3?", "completion": "No.", "rating": Infinity}\n'
    (folder / "rows.jsonl").write_text(text + infinite)


# Statistics ----------------------------------------------------------------------------------------------


@hostile(
    49,
    "Duplicate ids",
    {"dropped same_id": 1},
    2,
    "Of rows with one id the first stays (dedup.id); without it rows go by file and line, and ids are no matter.",
    steps={"dedup": {"id": "ticket"}},
)
def duplicate_ids(folder: Path, full: bool) -> None:
    jsonl(
        folder,
        [{**GOOD, "ticket": 7}, {**OTHER, "ticket": 8}, {**GOOD, "text": "A wholly other one", "ticket": 8}],
    )


@hostile(
    50,
    "Exact and near duplicates",
    {"dropped exact": 1, "dropped near": 1},
    2,
    "The first stays, the others are dropped, with the row that they repeat.",
    steps={"dedup": {}},
)
def repeated(folder: Path, full: bool) -> None:
    near = {**GOOD, "text": GOOD["text"] + "!"}
    jsonl(folder, [GOOD, GOOD, near, OTHER])


@hostile(
    51,
    "Training rows that evaluation has",
    {"dropped exact_in_test": 1},
    3,
    "Dropped from train; the evaluation row stays.",
    steps={"dedup": {}},
)
def overlap(folder: Path, full: bool) -> None:
    jsonl(folder, [GOOD, OTHER], "train.jsonl")
    jsonl(folder, [GOOD, {"text": "When does the shop open", "label": "hours"}], "test.jsonl")


@hostile(
    52,
    "The label inside the prompt",
    {"changed label_in_text": 1},
    2,
    "The statement of the row's own label is taken out.",
)
def label_in_text(folder: Path, full: bool) -> None:
    jsonl(folder, [GOOD, {"text": "Category: billing\nMy invoice is wrong", "label": "billing"}])


@hostile(
    53,
    "One row",
    "the validation split has 0 of 1 rows",
    0,
    "Refused: nothing can be split.",
    steps={"split": {}},
)
def one_row(folder: Path, full: bool) -> None:
    jsonl(folder, [GOOD])


@hostile(
    54,
    "10 M tiny rows",
    {"progress": 1},
    -1,
    "Read in chunks: bounded memory, and progress.",
    seconds=3600,
)
def many_rows(folder: Path, full: bool) -> None:
    with (folder / "rows.jsonl").open("wb") as file:
        for start in range(0, 10_000_000 if full else 11_000, 1000):
            file.write(
                b"".join(line({"text": f"Ticket {i}", "label": i % 7}) for i in range(start, start + 1000))
            )
