"""Files mixed by weight: the share is exact, the choice is seeded, and the account still adds up."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.chats import renderer
from tunesmith.config.run import DataConfig
from tunesmith.data.account import Account
from tunesmith.data.load import load_splits, read_examples, tokenise
from tunesmith.data.mixing import mix, parse_weight
from tunesmith.errors import DataError
from tunesmith.types import Example, RowRef


@pytest.mark.parametrize(
    ("entry", "name", "weight"),
    [
        ("a.jsonl", "a.jsonl", 1.0),
        ("a.jsonl*0.5", "a.jsonl", 0.5),
        ("a.jsonl * 2", "a.jsonl", 2.0),
        ("a.jsonl*.25", "a.jsonl", 0.25),
        ("folder#train*3", "folder#train", 3.0),
        ("hub:a/b*1.5", "hub:a/b", 1.5),
    ],
)
def test_a_weight_stands_behind_a_star(entry: str, name: str, weight: float) -> None:
    assert parse_weight(entry) == (name, weight)


@pytest.mark.parametrize(
    "entry", ["a.jsonl*0", "a.jsonl*0.0", "a.jsonl*", "a.jsonl*x", "a.jsonl*-1", "a.jsonl*1e3"]
)
def test_a_weight_that_is_none(entry: str) -> None:
    with pytest.raises(DataError, match="no weight"):
        parse_weight(entry)


def rows_of(file: str, count: int, account: Account) -> list[Example]:
    rows = []
    for line in range(1, count + 1):
        account.read(file)
        account.use(file)
        rows.append(Example(RowRef(file, line), text=f"{file} {line}"))
    return rows


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.25])),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 5),
)
def test_each_row_stands_as_often_as_its_weight_says(files: list[tuple[int, float]], seed: int) -> None:
    account = Account()
    rows = [row for i, (count, _) in enumerate(files) for row in rows_of(str(i), count, account)]
    weights = {str(i): weight for i, (_, weight) in enumerate(files)}
    if any(round(weight * count) == 0 for count, weight in files):
        with pytest.raises(DataError, match="leaves none"):
            mix(rows, weights, seed, account)
        return
    mixed, said = mix(rows, weights, seed, account)
    times = Counter(row.ref for row in mixed)
    for i, (count, weight) in enumerate(files):
        own = [times[RowRef(str(i), line)] for line in range(1, count + 1)]
        assert sum(own) == int(weight) * count + round((weight % 1) * count)
        assert set(own) <= {int(weight), int(weight) + 1}
        kept = sum(time > 0 for time in own)
        dropped = {"not_drawn": count - kept} if kept < count else {}
        assert account.summary()["files"][str(i)] == {"read": count, "used": kept, "dropped": dropped}
    assert account.notes["repeated"] == len(mixed) - len(times)
    assert len(said) == sum(weight != 1 for _, weight in files)


def test_the_choice_is_that_of_the_seed() -> None:
    def drawn(seed: int) -> list[str | None]:
        account = Account()
        return [row.text for row in mix(rows_of("a", 40, account), {"a": 0.5}, seed, account)[0]]

    assert drawn(1) == drawn(1) == sorted(drawn(1), key=lambda text: int(str(text).split()[1]))
    assert drawn(1) != drawn(2)


def test_the_passes_over_a_file_follow_one_another() -> None:
    account = Account()
    mixed, said = mix(rows_of("a", 3, account) + rows_of("b", 1, account), {"a": 2}, 0, account)
    assert [row.text for row in mixed] == ["a 1", "a 2", "a 3", "a 1", "a 2", "a 3", "b 1"]
    assert said == ["a * 2: 3 training rows stand 6 times"]


def write(folder: Path, name: str, count: int, text: str = "Q") -> str:
    path = folder / name
    path.write_text(
        "".join(json.dumps({"prompt": f"{text}{i}", "completion": "A"}) + "\n" for i in range(count))
    )
    return str(path)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_for_training_rows_and_the_account_stays_exact(tmp_path: Path, seed: int) -> None:
    half, twice = write(tmp_path, "half.jsonl", 40), write(tmp_path, "twice.jsonl", 20, "R")
    with (tmp_path / "twice.jsonl").open("a") as file:
        file.write("{\n")
    plain = load_splits(DataConfig(train=[half, twice]), seed)
    splits = load_splits(DataConfig(train=[f"{half}*0.5", f"{twice}*2"]), seed, tmp_path)
    assert (splits.validation, splits.test, splits.hashes) == (plain.validation, plain.test, plain.hashes)
    trained = {file: [row for row in plain.train if row.ref.file == file] for file in (half, twice)}
    drawn = round(0.5 * len(trained[half]))
    assert Counter(row.ref.file for row in splits.train) == {half: drawn, twice: 2 * len(trained[twice])}
    summary = splits.account.summary()
    assert summary["files"] == {
        half: {
            "read": 40,
            "used": 40 - len(trained[half]) + drawn,
            "dropped": {"not_drawn": len(trained[half]) - drawn},
        },
        twice: {"read": 21, "used": 20, "dropped": {"bad_json": 1}},
    }
    assert summary["notes"] == {"repeated": len(trained[twice])}
    assert sum("stand" in warning for warning in splits.warnings) == 2
    listed = [json.loads(line)["reason"] for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert Counter(listed) == Counter(summary["dropped"])


def test_rows_that_are_dropped_later_count_once(tmp_path: Path) -> None:
    file = write(tmp_path, "a.jsonl", 30)
    splits = load_splits(DataConfig(train=[f"{file}*3"], limit=50, validation_fraction=0, test_fraction=0), 0)
    assert len(splits.train) == 50
    rows = len({row.ref for row in splits.train})
    account = splits.account
    assert account.summary()["files"][file] == {
        "read": 30,
        "used": rows,
        "dropped": {"over_limit": 30 - rows} if rows < 30 else {},
    }
    assert account.notes["repeated"] == 50 - rows
    assert tokenise(splits.train, renderer("embedded"), "assistant", 3, "drop", account) == []
    summary = account.summary()
    assert (summary["used"], summary["dropped"]["too_long"], summary["notes"]["repeated"]) == (0, rows, 0)


def test_weights_elsewhere_are_refused(tmp_path: Path) -> None:
    file, other = write(tmp_path, "a.jsonl", 30), write(tmp_path, "b.jsonl", 5, "R")
    with pytest.raises(DataError, match=r"a weight on data\.test"):
        load_splits(DataConfig(train=[file], test=[f"{other}*2"]), 0)
    with pytest.raises(DataError, match="a weight on rows that are scored"):
        read_examples([f"{other}*2"], DataConfig(), Account())
    with pytest.raises(DataError, match="listed twice"):
        load_splits(DataConfig(train=[file, f"{file}*2"]), 0)
    with pytest.raises(DataError, match=r"leaves none"):
        load_splits(DataConfig(train=[file, f"{other}*0.01"]), 0)
