"""Files as other tools write them: one small file for each spelling, loaded untouched, or refused by file and field."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.spellings import ANSWER, GPT, HUMAN, SPELLINGS, USER
from tunesmith.config.run import DataConfig
from tunesmith.data.account import Account
from tunesmith.data.load import load_splits, read_examples
from tunesmith.errors import DataError
from tunesmith.types import Example


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """The rows as the file's ending says; a .json file is an array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".csv" | ".tsv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(
                    file, rows[0].keys(), delimiter="," if path.suffix == ".csv" else "\t"
                )
                writer.writeheader()
                writer.writerows(rows)
        case ".json":
            path.write_text(json.dumps(rows, indent=1))
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(file: str, **config: Any) -> tuple[list[Example], str, Account]:
    account = Account()
    examples, mappings = read_examples([file], DataConfig(**config), account)
    return examples, next(iter(mappings.values())).kind, account


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_is_read_as_what_it_means(tmp_path: Path, name: str) -> None:
    file, row, config, kind, messages, tools = SPELLINGS[name]
    path = write(tmp_path / file, [row, row])
    if name == "JSON Lines in .json":
        Path(path).write_text((json.dumps(row) + "\n") * 2)
    examples, found, account = load(path, **config)
    assert found == kind
    assert [(e.messages, e.tools) for e in examples] == [(messages, tools)] * 2
    assert account.summary()["files"] == {path: {"read": 2, "used": 2, "dropped": {}}}


@pytest.mark.parametrize("name", ["TRL text", "Axolotl completion"])
def test_plain_text(tmp_path: Path, name: str) -> None:
    column, config = {
        "TRL text": ("text", {}),
        "Axolotl completion": ("body", {"columns": {"text": "body"}}),
    }[name]
    examples, kind, _ = load(write(tmp_path / "t.jsonl", [{column: "T"}]), **config)
    assert (kind, [e.text for e in examples]) == ("text", ["T"])


def test_what_heads_read(tmp_path: Path) -> None:
    row = {"premise": "P\n\nQ", "hypothesis": "Q", "label": 1}
    examples, _, _ = load(write(tmp_path / "p.jsonl", [row]), instruction="I")
    assert (examples[0].pair, examples[0].texts, examples[0].label) == ("Q", ("I\n\nP\n\nQ", "Q"), "1")
    examples, _, _ = load(write(tmp_path / "l.jsonl", [{"text": "T", "label": []}]))
    assert (examples[0].label, examples[0].answer, examples[0].texts) == (None, "[]", ("T",))


def test_a_first_sentence_without_a_second_is_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none that are known"):
        load(write(tmp_path / "p.jsonl", [{"premise": "P", "label": 1}]))
    for row, kind in (
        ({"text": "T", "labels": ["a"]}, "text"),
        ({"text": "T", "score": 1}, "text"),
        ({"text": "T", "entities": []}, "text"),
        ({"text": "T", "label": "a", "tokens": ["T"], "tags": ["O"]}, "label"),
    ):
        assert load(write(tmp_path / "r.jsonl", [row]))[1] == kind


# Refused ---------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "TRL preference": (
        "p.jsonl",
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        ["'rejected'", "data.columns.completion=chosen"],
    ),
    "TRL implicit prompt": (
        "p.jsonl",
        {"chosen": "A", "rejected": "B"},
        ["'rejected'", "data.columns.text=chosen"],
    ),
    "TRL implicit prompt, conversational": (
        "p.jsonl",
        {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]},
        ["'rejected'", "data.columns.messages=chosen"],
    ),
    "TRL unpaired": (
        "p.jsonl",
        {"prompt": "Q", "completion": "A", "label": True},
        ["'label'", "data.format=prompt"],
    ),
    "TRL stepwise": (
        "p.jsonl",
        {"prompt": "Q", "completions": ["A"], "labels": [True]},
        ["'completions'", "stepwise"],
    ),
    "TRL prompt-only": ("p.jsonl", {"prompt": [USER]}, ["prompt-only", "data.columns.completion"]),
    "OpenAI preference": (
        "p.jsonl",
        {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]},
        ["'non_preferred_output'", "data.columns.prompt=input data.columns.completion=preferred_output"],
    ),
    "LLaMA-Factory preference": (
        "p.json",
        {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT},
        ["'rejected'", "data.columns.prompt=conversations data.columns.completion=chosen"],
    ),
    "LLaMA-Factory unpaired": (
        "p.json",
        {"instruction": "Q", "input": "", "output": "A", "kto_tag": False},
        ["'kto_tag'", "data.format=prompt"],
    ),
    "ms-swift preference": (
        "p.jsonl",
        {"messages": [USER, ANSWER], "rejected_response": "B"},
        ["'rejected_response'", "data.format=messages"],
    ),
    "ms-swift preference, messages": (
        "p.jsonl",
        {"messages": [USER, ANSWER], "rejected_messages": [USER]},
        ["'rejected_messages'"],
    ),
    "ms-swift unpaired": (
        "p.csv",
        {"messages": json.dumps([USER, ANSWER]), "label": "True"},
        ["'label'", "data.format=messages"],
    ),
    "Axolotl input_output": (
        "p.jsonl",
        {"segments": [{"label": True, "text": "<s>Hi"}]},
        ["'segments'", "message"],
    ),
    "Axolotl masks of characters": (
        "p.jsonl",
        {"messages": [USER, {**ANSWER, "train_detail": [{"begin_offset": 0}]}]},
        ["p.jsonl:1", "messages[1].train_detail"],
    ),
    "history": ("p.jsonl", {"query": "Q", "response": "A", "history": [["q"]]}, ["p.jsonl:1", "history[0]"]),
    "a call that is no JSON": (
        "p.jsonl",
        {"conversations": [HUMAN, {"from": "function_call", "value": "f(1)"}]},
        ["p.jsonl:1", "messages[1]"],
    ),
    "an unknown role": (
        "p.jsonl",
        {"conversations": [{"from": "narrator", "value": "x"}, GPT]},
        ["p.jsonl:1", "narrator"],
    ),
    "a tag too few": (
        "p.jsonl",
        {"tokens": ["a", "b"], "tags": ["O"]},
        ["p.jsonl:1", "'tags'", "1 tags for 2 words"],
    ),
    "numbers for tags": ("p.jsonl", {"tokens": ["a"], "ner_tags": [3]}, ["p.jsonl:1", "tags[0]"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_learned_from_is_refused_by_file_and_field(tmp_path: Path, name: str) -> None:
    file, row, words = REFUSED[name]
    path = write(tmp_path / file, [row])
    with pytest.raises(DataError) as error:
        load(path)
    assert [word for word in (path, *words) if word not in str(error.value)] == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"message_keys": {"rolle": "speaker"}}, "did you mean 'role'"),
        ({"roles": {"client": "usr"}}, "did you mean 'user'"),
        ({"format": "text", "columns": {"text": "id"}, "roles": {"a": "user"}}, "data.roles is set"),
        ({"format": "messages", "targets": ["id"]}, "data.targets has no meaning"),
        ({"targets": ["idd"]}, "did you mean 'id'"),
        ({"format": "number"}, "text column|number to predict"),
        ({"format": "tags"}, "tokens column|text column"),
    ],
)
def test_settings_that_cannot_be_carried_out(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(write(tmp_path / "p.jsonl", [{"id": "1", "messages": [USER, ANSWER]}]), **config)


def test_bad_rows_of_every_kind_are_counted(tmp_path: Path) -> None:
    good = {"tokens": ["a", "b"], "tags": ["I-X", "O"]}
    rows = [*[good] * 50, {"tokens": ["a"], "tags": ["O", "O"]}, {"tokens": [], "tags": []}]
    path = write(tmp_path / "w.json", rows)
    _, _, account = load(path)
    summary = account.summary()
    assert summary["files"][path] == {"read": 52, "used": 50, "dropped": {"bad_tags": 1, "empty_text": 1}}
    assert summary["notes"] == {"tags_repaired": 50}


def test_splits_of_peer_files(tmp_path: Path) -> None:
    rows = [{"conversations": [{"from": "human", "value": f"Q{i}"}, GPT]} for i in range(40)]
    train, test = write(tmp_path / "train.json", rows[:30]), write(tmp_path / "test.parquet", rows[25:])
    splits = load_splits(DataConfig(train=[train], test=[test]), 0)
    summary = splits.account.summary()
    assert summary["files"][train] == {"read": 30, "used": 25, "dropped": {"in_test": 5}}
    assert summary["read"] == summary["used"] + sum(summary["dropped"].values())
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (25, 15)
