"""What data.train may name beside a file: folders, saved data sets, described ones, hub data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pyarrow as pa
import pytest

from tunesmith.config.run import DataConfig
from tunesmith.data.account import Account
from tunesmith.data.folders import absolute, missing, sources_of
from tunesmith.data.load import load_splits, read_examples
from tunesmith.errors import DataError
from tunesmith.types import Example, Message

U, A = Message("user", "Q"), Message("assistant", "A")
ROW = {"prompt": "Q", "completion": "A"}


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def numbered(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"prompt": f"Q{i}", "completion": "A"} for i in range(start, start + count)]


def asked(examples: list[Example]) -> list[str]:
    return [example.prompt[0].content for example in examples]


def read(entry: str, **config: Any) -> list[Example]:
    return read_examples([entry], DataConfig(**config), Account("stop"))[0]


def files(entry: str, part: str = "") -> list[str]:
    return [source.file for source in sources_of([entry], part)]


# Folders of files ------------------------------------------------------------------------------------


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "README.md", ".hidden.jsonl", ".git/c.jsonl"):
        jsonl(tmp_path / name, [ROW])
    assert files(str(tmp_path)) == [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    assert files(str(tmp_path), "test") == files(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file of rows in it"):
        files(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    "names",
    [
        (
            "data/train-00000-of-00002.csv",
            "data/train-00001-of-00002.csv",
            "data/validation-00000-of-00001.csv",
        ),
        ("train/a.csv", "train/b.csv", "dev/c.csv"),
        ("my_train_1.csv", "my_train_2.csv", "my_eval_set.csv"),
        ("Train.csv", "Train.2.csv", "valid.csv"),
    ],
)
def test_files_that_are_named_for_a_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        jsonl(tmp_path / name, [ROW])
    train, validation = sorted(str(tmp_path / name) for name in names[:2]), [str(tmp_path / names[2])]
    assert files(str(tmp_path), "train") == files(f"{tmp_path}#train") == train
    assert files(str(tmp_path), "validation") == files(f"{tmp_path}#validation", "test") == validation
    for entry, part, words in (
        (str(tmp_path), "test", "has the splits"),
        (str(tmp_path), "", "#<split>"),
        (f"{tmp_path}#tests", "test", "no split 'tests'"),
    ):
        with pytest.raises(DataError, match=words):
            files(entry, part)


def test_a_folder_of_more_than_one_data_set_is_refused(tmp_path: Path) -> None:
    jsonl(tmp_path / "en" / "a.jsonl", [ROW])
    jsonl(tmp_path / "de" / "a.jsonl", [ROW])
    with pytest.raises(DataError, match=r"several folders: .*de and .*en"):
        files(str(tmp_path))
    jsonl(tmp_path / "en" / "a.csv", [ROW])
    with pytest.raises(DataError, match=r"several kinds: \.csv and \.jsonl"):
        files(str(tmp_path / "en"))


def test_what_is_not_there(tmp_path: Path) -> None:
    file = str(jsonl(tmp_path / "a.jsonl", [ROW]))
    with pytest.raises(DataError, match="'#train' after a file"):
        files(f"{file}#train")
    with pytest.raises(DataError, match="no such file"):
        read(f"{tmp_path}/nowhere#train")
    odd = str(jsonl(tmp_path / "a#b*2.jsonl", [ROW]))
    assert files(odd) == [odd]


def test_entries_are_made_absolute_and_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "d" / "train.jsonl", [ROW])
    entries = [
        "d/train.jsonl",
        "d/train.jsonl*0.5",
        "d#train",
        "d#train*2",
        "hub:a/b#train*2",
        "gone.jsonl*2",
    ]
    there = [f"{tmp_path}/{entry}" for entry in entries[:4]]
    assert [absolute(entry) for entry in entries] == [*there, *entries[4:]]
    assert missing(entries) == ["gone.jsonl*2"]


# Saved by Hugging Face datasets ----------------------------------------------------------------------


def saved(folder: Path, rows: list[dict[str, Any]], split: str | None = None, shards: int = 2) -> Path:
    """What `Dataset.save_to_disk` writes (datasets 4): streams, their list, and what the columns are."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    size = -(-len(rows) // shards)
    names = [f"data-{i:05}-of-{shards:05}.arrow" for i in range(shards)]
    for i, name in enumerate(names):
        with pa.ipc.new_stream(str(folder / name), table.schema) as writer:
            writer.write_table(table.slice(i * size, size))
    state = {"_data_files": [{"filename": name} for name in names], "_split": split, "_format_type": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text('{"citation": "", "features": {}}')
    return folder


def test_a_saved_data_set(tmp_path: Path) -> None:
    folder = saved(tmp_path / "ds", numbered(5), "train")
    (folder / "cache-1.arrow").write_bytes(b"not a part of it")
    assert asked(read(str(folder))) == [f"Q{i}" for i in range(5)]
    assert asked(read(f"{folder}#train")) == [f"Q{i}" for i in range(5)]
    with pytest.raises(DataError, match="no split 'test'"):
        read(f"{folder}#test")


def test_a_saved_dictionary_of_splits(tmp_path: Path) -> None:
    parts = {"train": numbered(30), "valid": numbered(4, 30), "test": numbered(3, 40)}
    for name, rows in parts.items():
        saved(tmp_path / name, rows, name, 1)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": list(parts)}))
    entry = str(tmp_path)
    splits = load_splits(DataConfig(train=[entry], validation=[entry], test=[entry]), 0)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [30, 4, 3]
    summary = splits.account.summary()
    shard = "data-00000-of-00001.arrow"
    assert summary["files"][f"{entry}/valid/{shard}"] == {"read": 4, "used": 4, "dropped": {}}
    assert sorted(splits.hashes) == sorted(summary["files"])
    assert asked(read(f"{entry}#test")) == ["Q40", "Q41", "Q42"]
    with pytest.raises(DataError, match="splits train, valid, test"):
        read(entry)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["../train"]}')
    with pytest.raises(DataError, match="'splits' names something outside"):
        read(entry)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"_data_files": [{"filename": "../x.arrow"}]}, "'_data_files' names something outside"),
        ({"_data_files": []}, "_data_files"),
        ({}, "_data_files"),
        (
            {"_data_files": [{"filename": "data-00000-of-00002.arrow"}], "_indices_data_files": [{}]},
            "flatten_indices",
        ),
    ],
)
def test_saved_data_sets_that_are_none(tmp_path: Path, state: dict[str, Any], words: str) -> None:
    (saved(tmp_path, [ROW] * 2) / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match=words) as error:
        read(str(tmp_path))
    assert "state.json" in str(error.value)


# LLaMA-Factory's descriptions ------------------------------------------------------------------------

TAGS = {"role_tag": "who", "content_tag": "said", "user_tag": "asker", "assistant_tag": "helper"}
DESCRIBED: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[Message, ...]]] = {
    "alpaca, as usual": (
        {},
        {"instruction": "Q", "input": "I", "output": "A", "system": "not named, not read"},
        (Message("user", "Q\n\nI"), A),
    ),
    "alpaca, columns": (
        {
            "formatting": "alpaca",
            "ranking": False,
            "columns": {"prompt": "ask", "response": "say", "system": "sys", "history": "before"},
        },
        {"ask": "Q", "say": "A", "sys": "S", "before": [["q", "a"]], "input": "not named"},
        (Message("system", "S"), Message("user", "q"), Message("assistant", "a"), U, A),
    ),
    "sharegpt, as usual": (
        {"formatting": "sharegpt"},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        (U, A),
    ),
    "sharegpt, tags": (
        {"formatting": "sharegpt", "columns": {"messages": "talk", "tools": "tools"}, "tags": TAGS},
        {"talk": [{"who": "asker", "said": "Q"}, {"who": "helper", "said": "A"}], "tools": ""},
        (U, A),
    ),
    "sharegpt of OpenAI messages": (
        {
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
            },
        },
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
        (U, A),
    ),
    "openai": (
        {"formatting": "openai", "columns": {"messages": "messages"}},
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
        (U, A),
    ),
}


def describe(folder: Path, entry: Any, rows: list[Any], name: str = "mine") -> str:
    (folder / "rows.json").write_text(json.dumps(rows))
    if isinstance(entry, dict) and "file_name" not in entry and "hf_hub_url" not in entry:
        entry = {"file_name": "rows.json", **entry}
    (folder / "dataset_info.json").write_text(json.dumps({name: entry}))
    return f"{folder}/dataset_info.json#{name}"


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_description_is_honoured(tmp_path: Path, name: str) -> None:
    entry, row, messages = DESCRIBED[name]
    address = describe(tmp_path, entry, [row])
    for way in (address, str(tmp_path), f"{tmp_path}#mine", str(tmp_path / "dataset_info.json")):
        assert [example.messages for example in read(way)] == [messages]


def test_a_description_of_text(tmp_path: Path) -> None:
    address = describe(tmp_path, {"columns": {"prompt": "body"}}, [{"body": "T"}])
    assert [example.text for example in read(address)] == ["T"]


REFUSED: list[tuple[Any, str]] = [
    ({"file_nam": "x"}, "unknown key 'file_nam'.*\n.*file_name"),
    ({"columns": {"promt": "x"}}, "unknown key 'columns.promt'.*\n.*'prompt'"),
    ({"formatting": "sharegpt", "tags": {"role": "x"}}, "unknown key 'tags.role'"),
    ({"ranking": True}, "names no chosen"),
    ({"ranking": "yes"}, "'ranking' is a str"),
    (
        {"columns": {"prompt": "p", "response": "r", "kto_tag": "k"}},
        "describes unpaired rows.*\n.*\n.*unpaired",
    ),
    (
        {"ranking": True, "columns": {"prompt": "p", "chosen": "c", "rejected": "r", "kto_tag": "k"}},
        "'columns.kto_tag' with ranking: true",
    ),
    (
        {"ranking": True, "columns": {"prompt": "p", "chosen": "instruction", "rejected": "output"}},
        "describes preference rows.*\n.*\n.*method.type=preference",
    ),
    ({"columns": {"prompt": "p", "response": "r", "images": "k"}}, "'columns.images'"),
    ({"columns": {"prompt": "p", "chosen": "c", "rejected": "r"}}, "'columns.chosen' with ranking: false"),
    ({"formatting": "shargpt"}, "formatting 'shargpt'"),
    ({"script_url": "x"}, "'script_url' is not carried out"),
    ({"num_samples": 3}, "'num_samples' is not carried out"),
    ({"split": "train"}, "'split' without hf_hub_url"),
    ({"file_name": None, "ms_hub_url": "a/b"}, "names no file_name"),
    ({"file_name": 3}, "'file_name' is a int"),
    ({"columns": ["prompt"]}, "'columns' is a list"),
    ({"formatting": "sharegpt", "columns": {"system": "s"}}, "names no messages"),
    ({"columns": {"prompt": "p", "query": "q"}}, "names no response"),
    ({"columns": {"prompt": "p", "response": "r"}}, r"rows\.json: no column 'p' \(prompt\)"),
    ({"tags": {"role_tag": "x"}}, "'tags' beside the formatting alpaca"),
    ({"file_name": "gone.json"}, "gone.json: no such file"),
    ({"file_name": "dataset_info.json"}, "no column 'instruction'"),
    ([], "'mine' is a list"),
]


@pytest.mark.parametrize(("entry", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_a_description_cannot_ask_for_is_refused_by_its_key(
    tmp_path: Path, entry: Any, words: str
) -> None:
    address = describe(tmp_path, entry, [{"instruction": "Q", "input": "", "output": "A"}])
    with pytest.raises(DataError, match=words):
        read(address)


def test_a_description_and_settings_do_not_mix(tmp_path: Path) -> None:
    address = describe(tmp_path, {}, [{"instruction": "Q", "input": "", "output": "A"}])
    for config in ({"columns": {"prompt": "input"}}, {"json_fields": ["output"]}, {"format": "label"}):
        with pytest.raises(DataError, match=r"data\.\w+(=label,| is set,) but .*dataset_info\.json"):
            read(address, **config)
    assert read(address, format="prompt", instruction="I")[0].prompt[0].content == "I\n\nQ"
    with pytest.raises(DataError, match=r"describes no 'mein'.*\n.*'mine'"):
        read(f"{tmp_path}#mein")
    (tmp_path / "dataset_info.json").write_text('{"a": {}, "b": {}}')
    with pytest.raises(DataError, match="describes 2 data sets: a, b"):
        read(str(tmp_path))
    (tmp_path / "dataset_info.json").write_text('{"a": {}')
    with pytest.raises(DataError, match=r"dataset_info\.json: "):
        read(str(tmp_path))


def test_a_description_is_hashed_with_its_rows(tmp_path: Path) -> None:
    rows = [{"instruction": f"Q{i}", "input": "", "output": "A"} for i in range(40)]
    splits = load_splits(DataConfig(train=[describe(tmp_path, {}, rows)]), 0)
    assert sorted(splits.hashes) == [f"{tmp_path}/dataset_info.json", f"{tmp_path}/rows.json"]
    assert splits.account.summary()["files"] == {
        f"{tmp_path}/rows.json": {"read": 40, "used": 40, "dropped": {}}
    }


# The hub ---------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as the hub's client lays it out, with one data set in it, and no network."""
    root = tmp_path / "datasets--owner--name"
    for number, (name, rows) in enumerate(
        {
            "data/train-00000-of-00001.jsonl": numbered(3),
            "data/test-00000-of-00001.jsonl": numbered(2, 10),
            "extra/rows.jsonl": [ROW],
            "script.py": [],
        }.items()
    ):
        blob = jsonl(root / "blobs" / str(number), rows)
        link = root / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return root


def test_a_hub_data_set_is_read_from_the_cache(hub: Path) -> None:
    assert asked(read("hub:owner/name/data#train")) == ["Q0", "Q1", "Q2"]
    assert asked(read(f"hub:owner/name@{COMMIT}/data#test")) == ["Q10", "Q11"]
    assert asked(read("hub:owner/name/extra")) == ["Q"]
    assert asked(read("hub:owner/name/extra/rows.jsonl")) == ["Q"]
    assert files("hub:owner/name/data", "test") == files("hub:owner/name/data#test")
    assert files("hub:owner/name", "test") == files("hub:owner/name/data#test")


def test_a_description_may_name_a_hub_data_set(hub: Path, tmp_path: Path) -> None:
    entry = {"hf_hub_url": "owner/name", "ms_hub_url": "other/name", "folder": "data", "split": "test"}
    address = describe(tmp_path, {**entry, "columns": {"prompt": "prompt", "response": "completion"}}, [])
    assert asked(read(address)) == ["Q10", "Q11"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("hub:owner/other", "'owner/other' is not to be had from the hub.*\n.*\n.*HF_HUB_OFFLINE"),
        ("hub:owner/name@dev", "not to be had"),
        ("hub:owner", "no hub data set"),
        ("hub:owner/name/../../x", "leads out"),
        ("hub:owner/name/none", "no 'none'"),
        ("hub:owner/name#dev", "no split 'dev'"),
    ],
)
def test_hub_data_sets_that_are_not_to_be_had(hub: Path, entry: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(entry)
