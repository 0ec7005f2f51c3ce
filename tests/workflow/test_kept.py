"""Rows from the cache are those of a fresh run, and what is said of them is the same; what is damaged is made again."""

from __future__ import annotations

import json
import os
import random
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_backend import same
from tunesmith.config.run import Run
from tunesmith.workflow import kept
from tunesmith.workflow.prepare import Prepared, prepare

RNG = random.Random(3)
WORDS = "red green blue old new box cup tree".split()


def text() -> str:
    return " ".join(RNG.choices(WORDS, k=RNG.randint(2, 6)))


def labelled() -> dict[str, Any]:
    return {"text": text(), "label": RNG.choice("ab")}


def spans() -> dict[str, Any]:
    words = text()
    return {"text": words, "spans": [{"start": 0, "end": len(words.split()[0]), "label": "x"}]}


def chat() -> dict[str, Any]:
    weight = {"weight": RNG.choice([0.1, 1.0])}
    turns = [{"role": "user", "content": text()}, {"role": "assistant", "content": text(), **weight}]
    return {"messages": turns * 2}


def called() -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": text(), "n": 1}}}
    turns = [
        {"role": "user", "content": text()},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": text()},
        {"role": "assistant", "content": text()},
    ]
    return {
        "messages": turns,
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
    }


TOOLS = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "classes by generation": (labelled, {}),
    "conversations": (chat, {"method": {"type": "sft", "supervise": "assistant"}}),
    "tools": (called, {"model": {"template": "tools.jinja"}, "data": {"max_length": 400}}),
    "plain text": (lambda: {"text": text()}, {"data": {"format": "text"}}),
    "a head": (labelled, {"method": {"type": "classify", "class_weights": "balanced"}}),
    "several labels": (
        lambda: {"text": text(), "labels": RNG.sample("abc", 2)},
        {"method": {"type": "classify", "multi_label": True}},
    ),
    "numbers": (
        lambda: {"text": text(), "size": RNG.random()},
        {"method": {"type": "regress"}, "data": {"targets": ["size"]}},
    ),
    "spans": (spans, {"method": {"type": "tag"}}),
    "embeddings of classes": (labelled, {"method": {"type": "embed"}, "data": {"format": "label"}}),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TUNESMITH_CACHE", raising=False)
    monkeypatch.setattr(kept, "MIN_BYTES", 0)
    monkeypatch.chdir(tmp_path)
    Path("tools.jinja").write_text(TOOLS)
    return tmp_path / "cache" / "tunesmith" / "rows"


def written(make: Any, count: int = 60) -> list[str]:
    rows = [json.dumps(make()) for _ in range(count)]
    for name, lines in (("a.jsonl", [*rows[10:], "{"]), ("b.jsonl", ['{"other": 1}', *rows[:10]])):
        Path(name).write_text("\n".join(lines) + "\n")
    return ["a.jsonl", "b.jsonl*1.5"]


Told = list[tuple[str, dict[str, Any]]]


def prepared(
    folder: str, files: list[str], now: datetime | None = None, **settings: Any
) -> tuple[Prepared, Told]:
    told: Told = []

    def sink(kind: str, /, **fields: Any) -> None:
        told.append((kind, fields))

    data = {"train": files, "max_length": 40, **settings.pop("data", {})}
    return prepare(Run.model_validate({"data": data, **settings}), Path(folder), sink, now), told


def notes(told: Told) -> list[str]:
    return [fields["text"] for kind, fields in told if kind == "note"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_has_the_rows_of_the_first_and_says_the_same(kind: str, cache: Path) -> None:
    make, settings = KINDS[kind]
    files = written(make)
    first, said = prepared("one", files, **settings)
    again, said_again = prepared("two", files, **settings)
    assert len(list(cache.iterdir())) == 1
    assert "were tokenised before" in notes(said_again)[0]
    said_again.pop(1)
    assert said_again == said
    for split in kept.SPLITS:
        same(list(again.rows[split]), list(first.rows[split]))
        assert list(vars(again.splits)[split]) == list(vars(first.splits)[split])
        assert again.examples(split) == first.examples(split)
    assert again.run == first.run
    del (
        again.reasons["method.tuning"],
        first.reasons["method.tuning"],
    )  # names the memory that is free just now
    assert again.reasons == first.reasons
    assert again.splits.account.summary() == first.splits.account.summary()
    for name in ("mapping", "warnings", "labels", "unseen_labels", "hashes"):
        assert vars(again.splits)[name] == vars(first.splits)[name]
    assert Path("two/dropped.jsonl").read_text() == Path("one/dropped.jsonl").read_text()


def test_whatever_decides_the_rows_is_in_the_key(cache: Path) -> None:
    files = written(labelled)
    settings: list[dict[str, Any]] = [
        {},
        {"seed": 5},
        {"data": {"max_length": 39}},
        {"data": {"instruction": "Which?"}},
        {"method": {"type": "sft", "supervise": "all"}},
        {"method": {"type": "classify"}},
        {"model": {"template": "plain"}},
        {"model": {"template": "tools.jinja"}},
    ]
    for count, setting in enumerate(settings, 1):
        prepared("run", files, **setting)
        assert len(list(cache.iterdir())) == count
    Path("tools.jinja").write_text(TOOLS.replace("<|im_start|>", "<|im_start|>\n"))
    prepared("run", files, model={"template": "tools.jinja"})
    Path("a.jsonl").write_text(Path("a.jsonl").read_text().replace("red", "rad"))
    prepared("run", files)
    assert len(list(cache.iterdir())) == len(settings) + 2


def test_a_date_that_the_template_writes_is_in_the_key(cache: Path) -> None:
    files = written(labelled, 30)
    Path("tools.jinja").write_text("{{ strftime_now('%d %B') }}" + TOOLS)
    for hour in (13, 23, 33):  # the third is another day
        now = datetime(2026, 3, 4) + timedelta(hours=hour)
        prepared("run", files, now, model={"template": "tools.jinja"})
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_folder_is_noticed_and_made_again(damage: str, cache: Path) -> None:
    files = written(labelled, 30)
    first, _ = prepared("run", files)
    names = sorted(path.name for path in next(cache.iterdir()).iterdir())
    assert len(names) > 30
    for name in (*names[::7], "manifest.json", "state.json", "rows-train-ids.npy"):
        path = next(cache.iterdir()) / name
        data = path.read_bytes()
        if damage == "remove":
            path.unlink()
        elif damage == "cut":
            path.write_bytes(data[:-1])
            if not data:
                continue
        else:
            middle = len(data) // 2
            path.write_bytes(data[:middle] + bytes([(data[middle] if data else 0) ^ 1]) + data[middle + 1 :])
        again, said_again = prepared("run", files)
        assert "tokenised again" in notes(said_again)[0]
        same(list(again.rows["train"]), list(first.rows["train"]))
        assert "tokenised before" in notes(prepared("run", files)[1])[0]


def test_small_files_and_a_cache_turned_off_leave_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = written(labelled, 30)
    monkeypatch.setenv("TUNESMITH_CACHE", "0")
    prepared("run", files)
    monkeypatch.delenv("TUNESMITH_CACHE")
    monkeypatch.setattr(kept, "MIN_BYTES", 2**20)
    prepared("run", files)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_said_and_stops_nothing(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    found, said = prepared("run", written(labelled, 30))
    assert found.rows["train"]
    assert any("not kept for another time" in note for note in notes(said))


def test_two_that_write_the_same_rows_do_not_meet(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = prepared("run", written(labelled, 30))
    (home,) = cache.iterdir()
    value = kept.Kept(first.splits, first.rows, {}, {})
    kept.keep(home.name, value, forbidden)
    hidden = home.rename(cache / "hidden")

    def late(source: Path, target: Path) -> None:
        hidden.rename(target)  # the other one is done between the look and the rename
        source.rename(target)

    monkeypatch.setattr(kept.storage, "rename", late)
    kept.keep(home.name, value, forbidden)
    assert list(cache.iterdir()) == [home]
    assert kept._problem(home) == ""


def forbidden(kind: str, /, **fields: Any) -> None:
    raise AssertionError(fields)


def test_the_longest_unused_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    for days, name in ((40, "old"), (3, "c"), (2, "b"), (0, "a"), (3, ".aside-x")):
        (cache / name).mkdir()
        (cache / name / "x").write_bytes(bytes(10))
        os.utime(cache / name, (time.time() - days * 86_400,) * 2)
    kept._evict(cache)
    assert sorted(path.name for path in cache.iterdir()) == ["a", "b", "c"]
    monkeypatch.setattr(kept, "MAX_BYTES", 25)
    kept._evict(cache)
    assert sorted(path.name for path in cache.iterdir()) == ["a", "b"]
