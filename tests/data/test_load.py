"""Files to splits to token rows: every row is accounted for."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.chats import renderer
from tunesmith.config.run import DataConfig
from tunesmith.data.account import Account
from tunesmith.data.load import lengths, load_splits, preview, read_examples, tokenise
from tunesmith.data.tokens import cut, windows
from tunesmith.errors import ConfigError, DataError, RowError
from tunesmith.types import Example, Message, RowRef, Segment, TokenRow


def write(folder: Path, name: str, rows: list[Any]) -> str:
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def good(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"text": f"ticket {i}", "label": "abc"[i % 3]} for i in range(start, start + count)]


BAD: list[tuple[Any, str]] = [
    ({"text": "", "label": "a"}, "empty_text"),
    ({"text": "x", "label": None}, "missing_field"),
    ({"text": "x", "label": 0.5}, "bad_label"),
    ("{", "bad_json"),
    ("3", "not_an_object"),
]


@pytest.mark.parametrize("seed", range(10))
def test_read_is_used_plus_dropped_by_brute_force(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    bad = rng.choices(BAD, k=rng.randint(0, 10))
    rows = [(row, "") for row in good(200)] + bad
    rng.shuffle(rows)
    rows.insert(0, (good(1, 500)[0], ""))
    file = write(tmp_path, "rows.jsonl", [row for row, _ in rows])
    test = write(tmp_path, "test.jsonl", good(7, 100))
    splits = load_splits(DataConfig(train=[file], test=[test], limit=50), seed, tmp_path / "run")
    made = tokenise(splits.train, renderer("embedded"), "assistant", 14, "drop", splits.account)
    summary = splits.account.summary()
    wanted = Counter(reason for _, reason in bad) + Counter(in_test=7)
    valid = len(splits.validation)
    wanted["over_limit"] = 201 - 7 - valid - 50
    wanted["too_long"] = 50 - len(made)
    assert Counter(summary["files"][file]["dropped"]) == +wanted
    assert summary["files"][file]["read"] == len(rows)
    assert summary["files"][file]["used"] == len(made) + valid
    assert summary["files"][test] == {"read": 7, "used": 7, "dropped": {}}
    assert summary["read"] == summary["used"] + sum(summary["dropped"].values())
    assert json.loads(json.dumps(summary)) == summary
    listed = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    assert Counter(item["reason"] for item in listed) == +wanted
    where = {item["line"] for item in listed if item["reason"] in {reason for _, reason in BAD}}
    assert where == {line for line, (_, reason) in enumerate(rows, 1) if reason}


def test_dropped_rows_are_listed_with_what_stood_there(tmp_path: Path) -> None:
    rows = [*good(100), {"text": "y" * 9000, "label": ""}, "{bad é"]
    file = write(tmp_path, "rows.jsonl", rows)
    load_splits(DataConfig(train=[file]), 0, tmp_path)
    first, second = (json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines())
    assert (first["file"], first["line"], first["reason"]) == (file, 101, "empty_answer")
    assert first["row"].startswith('{"text": "yyy')
    assert len(first["row"].encode()) == 2048
    assert (second["line"], second["reason"], second["row"]) == (102, "bad_json", "{bad é\n")
    assert f"{file}:102" in second["message"]


def test_stop_stops_at_the_first_bad_row(tmp_path: Path) -> None:
    file = write(tmp_path, "rows.jsonl", [*good(100), "{", "["])
    with pytest.raises(DataError, match=r"rows\.jsonl:101: .*\n.*data\.on_bad_row=skip"):
        load_splits(DataConfig(train=[file], on_bad_row="stop"), 0)


@pytest.mark.parametrize(
    "total, bad, fails", [(100, 5, False), (100, 6, True), (19, 18, False), (19, 19, True)]
)
def test_above_five_percent_bad_rows_stop_the_run(tmp_path: Path, total: int, bad: int, fails: bool) -> None:
    file = write(tmp_path, "rows.jsonl", [*good(total - bad), *['{"text": 1, "label": "a"}'] * bad])
    account = Account()
    if fails:
        with pytest.raises(DataError, match=f"{bad} of {total} rows cannot be used: {bad} x not_a_string"):
            read_examples([file], DataConfig(), account)
    else:
        examples, _ = read_examples([file], DataConfig(), account)
        assert len(examples) == total - bad


def test_a_file_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    file = write(tmp_path, "rows.jsonl", ["{"] + ["{x"] * 300)
    with pytest.raises(DataError):
        load_splits(DataConfig(train=[file]), 0)
    file = write(tmp_path, "rows.jsonl", ["{x"] * 300 + good(10_000))  # type: ignore[operator]
    with pytest.raises(DataError, match="100 of 100 rows cannot be used: 100 x bad_json"):
        load_splits(DataConfig(train=[file]), 0)


def test_splits_know_their_labels_hashes_and_mapping(tmp_path: Path) -> None:
    file = write(tmp_path, "rows.jsonl", good(100))
    splits = load_splits(DataConfig(train=[file]), 0)
    assert splits.labels == ("a", "b", "c")
    assert splits.hashes == {file: hashlib.sha256(Path(file).read_bytes()).hexdigest()}
    assert splits.mapping.describe() == "label rows: text = text, label = label"
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (80, 10, 10)
    assert not (tmp_path / "dropped.jsonl").exists()


def test_files_may_name_columns_differently_but_hold_one_kind_of_row(tmp_path: Path) -> None:
    train = write(tmp_path, "train.jsonl", good(50))
    other = write(tmp_path, "test.jsonl", [{"sentence": f"s{i}", "class": "a"} for i in range(5)])
    splits = load_splits(DataConfig(train=[train], test=[other]), 0)
    assert any("other columns" in warning for warning in splits.warnings)
    prompts = write(tmp_path, "prompts.jsonl", [{"prompt": "a", "completion": "b"}] * 5)
    with pytest.raises(DataError, match="one kind of row"):
        load_splits(DataConfig(train=[train], test=[prompts]), 0)
    with pytest.raises(DataError, match="listed twice"):
        load_splits(DataConfig(train=[train, train]), 0)
    with pytest.raises(DataError, match="names no file"):
        load_splits(DataConfig(), 0)


# Length ----------------------------------------------------------------------------------------------


def row(weights: list[float], first: int = 100) -> TokenRow:
    ids = np.arange(first, first + len(weights))
    return TokenRow(RowRef("f", 1), (Segment(ids, np.array(weights, np.float32)),))


def shown(made: TokenRow) -> tuple[list[int], list[float]]:
    return made.segments[0].ids.tolist(), made.segments[0].weights.tolist()


def test_cut_takes_the_start_of_the_prompt_and_never_the_answer() -> None:
    made, what = cut(row([0, 0, 0, 0, 1, 1, 1, 0]), 5)
    assert (shown(made), what) == (([102, 103, 104, 105, 106], [0, 0, 1, 1, 1]), "prompt_cut")
    made, what = cut(row([0, 0, 0, 0, 1, 1, 1, 0]), 5, keep_first=100)
    assert (shown(made), what) == (([100, 103, 104, 105, 106], [0, 0, 1, 1, 1]), "prompt_cut")
    made, what = cut(row([0, 0, 1, 1, 0, 0]), 4)
    assert (shown(made), what) == (([100, 101, 102, 103], [0, 0, 1, 1]), "")


def test_43_an_answer_too_long_by_itself_is_cut_at_its_end() -> None:
    made, what = cut(row([0, 0, 0, 1, 1, 1, 1, 1, 0]), 4)
    assert (shown(made), what) == (([102, 103, 104, 105], [0, 1, 1, 1]), "answer_cut")
    made, what = cut(row([0, 0, 0, 1, 1, 1, 1, 1, 0]), 4, keep_first=100)
    assert (shown(made), what) == (([100, 102, 103, 104], [0, 0, 1, 1]), "answer_cut")


def test_cut_keeps_the_last_of_several_answers() -> None:
    made, what = cut(row([0, 1, 1, 1, 0, 0, 1, 1]), 5)
    assert (shown(made), what) == (([103, 104, 105, 106, 107], [0, 0, 0, 1, 1]), "prompt_cut")


@pytest.mark.parametrize("max_length", range(3, 12))
def test_cut_always_fits_and_always_teaches(max_length: int) -> None:
    rng = random.Random(max_length)
    for _ in range(200):
        weights = [0.0] + [float(rng.random() < 0.5) for _ in range(rng.randint(1, 15))] + [1.0]
        whole = row(weights)
        made, what = cut(whole, max_length, keep_first=rng.choice([None, 100]))
        assert made.num_tokens <= max_length
        assert made.num_supervised > 0
        assert made.segments[0].weights[0] == 0
        if what != "answer_cut":
            assert made.segments[0].ids[-1] == whole.segments[0].ids[-1]


def test_windows_lose_no_text() -> None:
    pieces = windows(row([0] + [1] * 9), 4)
    assert [shown(piece)[0] for piece in pieces] == [[100, 101, 102, 103], [104, 105, 106, 107], [108, 109]]
    assert [shown(piece)[1] for piece in pieces] == [[0, 1, 1, 1], [0, 1, 1, 1], [0, 1]]


def examples(*answers: str) -> list[Example]:
    turns = [(Message("user", "q"), Message("assistant", answer)) for answer in answers]
    return [Example(RowRef("f", line), pair) for line, pair in enumerate(turns, 1)]


def counted(rows: list[Example]) -> Account:
    account = Account()
    for example in rows:
        account.read(example.ref.file)
        account.use(example.ref.file)
    return account


def test_7_no_row_without_trainable_tokens_and_counts_are_exact() -> None:
    made = renderer("embedded")
    rows = examples(*["yes " * n for n in range(1, 41)])
    sizes = [made.rows(example, "assistant")[0].num_tokens for example in rows]
    account = counted(rows)
    kept = tokenise(rows, made, "assistant", 30, "drop", account)
    assert [k.num_tokens for k in kept] == [size for size in sizes if size <= 30]
    assert account.summary()["dropped"] == {"too_long": sum(size > 30 for size in sizes)}
    account = counted(rows)
    kept = tokenise(rows, made, "assistant", 30, "cut", account)
    assert len(kept) == len(rows)
    assert all(k.num_tokens <= 30 and k.num_supervised for k in kept)
    assert account.summary()["used"] == len(rows)
    answers = [made.rows(example, "assistant")[0].num_supervised for example in rows]
    # A row ends in a line end that is not supervised and goes first; an answer needs one token before it.
    too_long = [size - 1 > 30 for size in sizes]
    cut_answers = [answer + 1 > 30 for answer in answers]
    assert account.notes["answer_cut"] == sum(cut_answers) > 0
    assert account.notes["prompt_cut"] == sum(too_long) - sum(cut_answers) > 0
    ended = [made.end_ids[0] in k.segments[0].ids[k.segments[0].weights > 0] for k in kept]
    assert ended == [not cut for cut in cut_answers]


def test_rows_that_cannot_be_rendered_are_bad_rows() -> None:
    rows = examples(*["yes"] * 30)
    rows[4] = Example(RowRef("f", 5), (Message("user", "q"), Message("assistant", "a", 0.0)))
    account = counted(rows)
    assert len(tokenise(rows, renderer("embedded"), "assistant", 100, "drop", account)) == 29
    assert account.summary()["dropped"] == {"no_supervised_tokens": 1}
    rows = [Example(RowRef("f", i), (Message("system", "s"), *rows[0].messages)) for i in range(1, 31)]
    with pytest.raises(DataError, match="30 x template_refuses"):
        tokenise(rows, renderer("gemma"), "assistant", 100, "drop", counted(rows))
    with pytest.raises(ConfigError, match=r"data\.max_length"):
        tokenise(rows, renderer("gemma"), "assistant", 2, "drop", counted(rows))


def test_turns_that_stand_alone_are_dropped_alone() -> None:
    turns = (*examples("yes")[0].messages, *examples("no " * 60)[0].messages)
    rows = [Example(RowRef("f", 1), turns)]
    account = counted(rows)
    kept = tokenise(rows, renderer("qwen 3"), "assistant", 40, "drop", account)
    assert (len(kept), account.notes["turns_too_long"], account.notes["split_by_turn"]) == (1, 1, 1)
    assert account.summary()["used"] == 1


def test_long_text_is_dropped_or_split() -> None:
    rows = [Example(RowRef("f", 1), text="The quick brown fox. " * 20)]
    made = renderer("embedded")
    account = counted(rows)
    pieces = tokenise(rows, made, "all", 25, "cut", account)
    whole = made.rows(rows[0], "all")[0].segments[0].ids
    assert np.concatenate([piece.segments[0].ids for piece in pieces]).tolist() == whole.tolist()
    assert account.notes["text_split"] == 1
    assert tokenise(rows, made, "all", 25, "drop", counted(rows)) == []


# Showing ---------------------------------------------------------------------------------------------


def test_a_preview_marks_what_is_supervised() -> None:
    made = renderer("embedded")
    (one,) = made.rows(examples("yes")[0], "assistant")
    seen = preview(made, one)
    assert str(seen) == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[[yes<|im_end|>]]\n"
    assert [on for _, on in seen.spans] == [False, True, False]


def test_lengths() -> None:
    rows = [row([0, 1]), row([0, 0, 1, 1])]
    assert lengths(rows) == {"min": 2, "mean": 3.0, "p95": 4, "max": 4, "supervised": 0.5}
    assert lengths([])["max"] == 0


def test_an_account_that_does_not_add_up_says_so() -> None:
    account = Account()
    account.read("f")
    with pytest.raises(AssertionError, match="1 rows read"):
        account.summary()
    account.drop(RowError("why", "what", file="f", line=1))
    assert account.summary()["dropped"] == {"why": 1}
