"""Synthetic rows, the whole way: every row is accounted for, marked, checked, and nothing is asked twice."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.desk.test_make import written
from tests.endpoints import Endpoint, says, served
from tunesmith.config.augment import Augment
from tunesmith.config.makers import Synth
from tunesmith.config.run import DataConfig
from tunesmith.data.load import load_splits
from tunesmith.desk.make import Made
from tunesmith.desk.originals import restored, rows_of_split
from tunesmith.errors import ConfigError, DataError, ModelError
from tunesmith.types import silent
from tunesmith.workflow.synth import augment, synth

Rows = list[dict[str, Any]]
SEEDS: Rows = [
    {"text": f"The {thing} {fault} since {day}.", "label": label, "id": f"{label}-{thing}-{day}"}
    for label, things, fault in (
        ("hardware", ("card reader", "printer", "screen"), "will not switch on"),
        ("billing", ("invoice", "monthly fee", "refund"), "was charged to the wrong account"),
    )
    for thing in things
    for day in ("Monday", "Tuesday")
]
TEST: Rows = [
    {"text": "The scanner shows no light at all and will not switch on", "label": "hardware"},
    {"text": "Why was the yearly fee charged to me a second time", "label": "billing"},
]
TEMPLATES: dict[str, Any] = {
    "kind": "templates",
    "count": 40,
    "templates": [
        {"answer": "hardware", "prompt": ["{hello}My {device} will not {verb}{when}", "The {device} is dead{when}"]},
        {"answer": "billing", "prompt": ["{hello}The {charge} was charged {wrong}{when}"]},
    ],
    "slots": {
        "hello": ["", "Hi, ", "Good morning. "],
        "device": ["card reader", "printer", "{size} screen"],
        "size": ["big", "small"],
        "verb": ["switch on", "start", "print"],
        "charge": ["invoice", "fee", "refund", "monthly fee"],
        "wrong": ["twice", "to the wrong account", "by mistake"],
        "when": ["", " since Friday", " after the update", " again"],
    },
}  # fmt: skip
OPEN: dict[str, Any] = {"novelty": None, "relevance": None, "label": None, "max_share": 1}
"""Checks that let every row through that does not leak."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served() as here:
        yield here


def recipe(folder: Path, makers: list[dict[str, Any]], seeds: Rows = SEEDS, **more: Any) -> Synth:
    data = {"train": [written(folder, seeds)], "test": [written(folder, TEST, "test.jsonl")]}
    document = {"output": str(folder / "out"), "data": data, "makers": makers, **more}
    return Synth.model_validate(document)


def changing(folder: Path, changes: list[dict[str, Any]], seeds: Rows = SEEDS, **more: Any) -> Augment:
    data = {"train": [written(folder, seeds)], "test": [written(folder, TEST, "test.jsonl")]}
    document = {"output": str(folder / "out"), "data": data, "changes": changes, **more}
    return Augment.model_validate(document)


def rows(made: Made, split: str = "train") -> Rows:
    assert made.version is not None
    return list(rows_of_split(made.version, split))


def new(made: Made) -> Rows:
    return [row for row in rows(made) if row.get("synthetic")]


def dropped(made: Made) -> dict[str, int]:
    return {rule: count for step in made.steps for rule, count in step.dropped.items()}


def accounted(made: Made) -> None:
    """in = out + dropped at every step, and the ledger has each dropped row."""
    made_up = sum(one.used for one in made.files)
    for step in made.steps:
        assert step.rows_in == step.rows_out + step.dropped.total()
    assert made.steps[0].rows_in == made_up == sum(made.rows.values()) + sum(dropped(made).values())
    assert made.version is not None
    ledger = (made.version.folder / "changes.jsonl").read_text().splitlines()
    assert len(ledger) == sum(dropped(made).values())
    refused = (made.version.folder / "refused.jsonl").read_text().splitlines()
    assert len(refused) == sum(one.refused.total() for one in made.files)


def test_templates_become_rows_that_say_so(tmp_path: Path) -> None:
    made = synth(recipe(tmp_path, [TEMPLATES], checks={**OPEN, "max_share": 0.75}), silent)
    accounted(made)
    found = new(made)
    assert len(found) == 36 == len(SEEDS) * 3  # of 48 rows at most three in four
    assert dropped(made) == {"over_share": 4}
    assert sorted(row["label"] for row in found) == ["billing"] * 18 + ["hardware"] * 18
    assert all(set(row) == {"text", "label", "synthetic"} for row in found)
    assert found[0]["synthetic"] == {
        "maker": "templates",
        "seeds": [],
        "model": None,
        "how": found[0]["synthetic"]["how"],
    }
    assert {row["synthetic"]["how"] for row in found} <= {
        text for one in TEMPLATES["templates"] for text in one["prompt"]
    }
    assert not any("{" in row["text"] for row in found)
    assert rows(made)[: len(SEEDS)] == SEEDS
    assert rows(made, "test") == TEST
    assert len([*restored(made.version)]) == len(SEEDS) + len(TEST) + 40  # type: ignore[arg-type]
    facts = made.as_dict()
    assert (facts["synthetic"]["share"], facts["synthetic"]["kept"]) == (0.75, 36)
    assert made.version is not None
    page = (made.version.folder / "card.html").read_text()
    assert all(f"<li>{note}</li>" in page for note in facts["notes"] if "'" not in note)
    assert "75.0% of the training rows are synthetic" in made.as_text()


def test_training_takes_the_rows_and_not_the_mark(tmp_path: Path) -> None:
    for form in ("jsonl", "parquet"):
        made = synth(recipe(tmp_path, [TEMPLATES], checks=OPEN, format=form), silent)
        loaded = load_splits(
            DataConfig(train=[str(tmp_path / "out")], test=[str(tmp_path / "test.jsonl")]), 0
        )
        examples = [*loaded.train, *loaded.validation]
        assert len(examples) == made.rows["train"] == 52
        assert all(one.label and "templates" not in one.prompt[0].content for one in examples)


def test_the_seed_decides(tmp_path: Path) -> None:
    makers, changes = [TEMPLATES], [{"kind": "noise"}, {"kind": "eda"}]
    for make, of in (
        (synth, lambda seed: recipe(tmp_path, makers, seed=seed)),
        (augment, lambda seed: changing(tmp_path, changes, seed=seed)),
    ):
        one, again, other = (rows(make(of(seed), silent)) for seed in (1, 1, 2))  # type: ignore[operator]
        assert one == again
        assert one != other


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 60),
    st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    st.sampled_from([None, 0.5, 0.9]),
    st.integers(0, 3),
)
def test_whatever_is_asked_for_is_accounted_for(
    tmp_path: Path, count: int, share: float, novelty: float | None, seed: int
) -> None:
    checks = {"max_share": share, "novelty": novelty, "relevance": 0.3, "label": 0.1}
    made = synth(recipe(tmp_path, [{**TEMPLATES, "count": count}], checks=checks, seed=seed), silent)
    accounted(made)
    assert len(new(made)) <= share * made.rows["train"] + 1e-9
    assert not any(row.get("synthetic") for row in rows(made, "test"))
    assert all(row["synthetic"]["maker"] == "templates" for row in new(made))
    assert len({row["text"] for row in rows(made)}) == made.rows["train"]


def test_templates_that_are_used_up_end(tmp_path: Path) -> None:
    few = {**TEMPLATES, "templates": [{"answer": "billing", "prompt": ["A {size} fee"]}]}
    made = synth(recipe(tmp_path, [few], checks=OPEN), silent)
    assert sorted(row["text"] for row in new(made)) == ["A big fee", "A small fee"]
    assert "templates: 2 rows of 40 asked for" in made.as_text()


@pytest.mark.parametrize(
    ("templates", "error", "said"),
    [
        ({"templates": [{"answer": "biling", "prompt": ["a"]}]}, DataError, "'biling', which is no seed's label"),
        ({"templates": [{"prompt": ["a"]}]}, DataError, "a template without an answer"),
        ({"templates": [{"answer": "billing", "prompt": ["{x}"]}]}, ValueError, "has the slot {x}"),
        ({"slots": {**TEMPLATES["slots"], "size": ["{size}"]}}, ValueError, "stands in itself"),
    ],
)  # fmt: skip
def test_templates_that_cannot_be_filled(tmp_path: Path, templates: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        synth(recipe(tmp_path, [{**TEMPLATES, **templates}]), silent)


# Checks --------------------------------------------------------------------------------------------------


def literally(*texts: str, label: str = "hardware") -> list[dict[str, Any]]:
    return [
        {"kind": "templates", "count": len(texts), "templates": [{"answer": label, "prompt": list(texts)}]}
    ]


def test_a_planted_leak_is_found_and_named(tmp_path: Path) -> None:
    near = TEST[0]["text"] + "!!"
    words = "Hello there, the scanner: shows no light at all, and will surely not go away by itself, I fear"
    makers = literally(near, words, "My fan hums loudly")
    made = synth(recipe(tmp_path, makers, checks=OPEN), silent)
    assert dropped(made) == {"leak_near": 1, "leak_ngram": 1}
    examples = made.steps[1].examples
    assert examples["leak_near"][0].message.endswith("test.jsonl:1")
    assert "'the scanner shows no light at all and' stands in" in examples["leak_ngram"][0].message
    for knob in ("leak_near", "leak_ngram"):
        assert knob not in dropped(synth(recipe(tmp_path, makers, checks={**OPEN, knob: None}), silent))
    with pytest.raises(DataError, match=r"2 synthetic rows leak .*test\.jsonl:1"):
        synth(recipe(tmp_path, makers, checks={**OPEN, "leaks": "refuse"}), silent)


def test_files_that_are_no_part_of_the_data_set_are_kept_apart_too(tmp_path: Path) -> None:
    held = written(tmp_path, [{"text": "My fan hums loudly at night", "label": "hardware"}], "bench.jsonl")
    made = synth(
        recipe(tmp_path, literally("My fan hums loudly at night"), checks=OPEN, against=[held]), silent
    )
    assert dropped(made) == {"leak_near": 1}
    assert made.rows == {"train": len(SEEDS), "test": len(TEST)}


def test_what_is_not_new_or_not_of_the_matter_goes(tmp_path: Path) -> None:
    fan = "The card reader and the printer hum all day long since Monday"
    texts = [SEEDS[0]["text"] + " ", SEEDS[0]["text"], "zebra quartz violin", fan, fan + "!"]
    made = synth(
        recipe(tmp_path, literally(*texts), checks={**OPEN, "novelty": 0.8, "relevance": 0.05}), silent
    )
    assert dropped(made) == {"near_seed": 1, "same": 1, "near_synthetic": 1, "far_from_seeds": 1}
    made = synth(recipe(tmp_path, literally(*texts), checks=OPEN), silent)
    assert dropped(made) == {"same": 1}


def test_of_very_many_rows_some_are_compared_and_all_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.desk.synthetic.checks.MOST_FITTED", 8)
    monkeypatch.setattr("tunesmith.desk.synthetic.checks.COSINES", 5)
    texts = [f"The printer and the screen will not switch on ({n})" for n in range(12)]
    odd = ["zebra quartz violin", "purple elephants dance"]
    makers = literally(odd[0], *texts, odd[1])
    made = synth(recipe(tmp_path, makers, checks={**OPEN, "relevance": 0.05, "label": 0.9}), silent)
    accounted(made)
    assert dropped(made) == {"far_from_seeds": 2}
    assert sorted(row["text"] for row in new(made)) == sorted(texts)
    assert made.as_dict()["synthetic"]["seeds_compared"] == 8 < len(SEEDS)
    assert "relevance is told by 8 of the seeds" in made.as_text()


def test_rows_that_are_carried_along_are_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.desk.reading.CHUNK_ROWS", 200)

    def wanted(count: int) -> Synth:
        seeds = [
            {**row, "text": f"{n} {row['text']}" + " word" * 200} for n in range(count // 12) for row in SEEDS
        ]
        folder = tmp_path / str(count)
        folder.mkdir()
        return recipe(folder, literally("The fan hums"), seeds, checks={**OPEN, "novelty": 0.8})

    few, many = 600, 1_800
    recipes = [wanted(many), wanted(few)]
    synth(recipes[0], silent)  # what is imported counts as well
    peaks = []
    tracemalloc.start()
    for one in recipes:
        tracemalloc.reset_peak()
        accounted(synth(one, silent))
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[0] - peaks[1] < (many - few) * 800  # bytes, of rows of 1,050 characters


def test_rows_that_training_refuses_go(tmp_path: Path) -> None:
    made = synth(recipe(tmp_path, literally(" ", "fine words"), checks=OPEN), silent)
    assert dropped(made) == {"empty_text": 1}


def test_labels_that_a_bad_writer_flips_are_filtered(tmp_path: Path, endpoint: Endpoint) -> None:
    texts = {
        label: [f"My {thing} {fault} now ({n})" for thing in things for n in range(10)]
        for label, things, fault in (
            ("hardware", ("printer", "screen"), "will not switch on"),
            ("billing", ("invoice", "refund"), "was charged to the wrong account"),
        )
    }
    pairs = [(text, label) for label, found in texts.items() for text in found]
    random.Random(0).shuffle(pairs)
    flip = {"hardware": "billing", "billing": "hardware"}
    said = [{"text": t, "label": flip[label] if n % 4 == 0 else label} for n, (t, label) in enumerate(pairs)]
    endpoint.reply = lambda asked, before: says(json.dumps(said))
    maker = {"kind": "self_instruct", "count": 40, "rows": 40}
    for knob, flips in ((0.2, 0), (None, 10)):
        checks = {**OPEN, "label": knob}
        made = synth(recipe(tmp_path, [maker], checks=checks, endpoint=at(endpoint)), silent)
        right = dict(pairs)
        assert sum(right[row["text"]] != row["label"] for row in new(made)) == flips
        assert sum(right[row["text"]] == row["label"] for row in new(made)) == 30
        assert made.as_dict()["synthetic"].get("probe_accuracy") == (None if knob is None else 1.0)


def test_a_probe_that_knows_too_little_judges_nothing(tmp_path: Path) -> None:
    mixed = [{**row, "label": "ab"[n % 2]} for n, row in enumerate(SEEDS)]
    wrong = literally("The invoice and the refund were charged to the wrong account", label="a")
    for least, gone in ((0.9, {}), (0.0, {"other_label": 1})):
        checks = {**OPEN, "label": 0.0, "probe_least": least}
        found = dropped(synth(recipe(tmp_path, wrong, mixed, checks=checks), silent))
        assert found in (gone, {}), least
    made = synth(recipe(tmp_path, wrong, mixed, checks={**OPEN, "label": 0.0, "probe_least": 0.9}), silent)
    assert "too few to judge labels by, so none was" in made.as_text()


def test_a_critic_marks_rows(tmp_path: Path, endpoint: Endpoint) -> None:
    def reply(asked: str, before: int) -> Any:
        assert "Label:\nhardware (things)" in asked
        return says("10" if "fan" in asked else "mark 2" if "pump" in asked else "no idea")

    endpoint.reply = reply
    makers = literally("The fan hums", "The pump hums", "The desk hums")
    checks = {**OPEN, "critique": {"least": 6}}
    more = {"endpoint": at(endpoint), "meanings": {"hardware": "things"}}
    made = synth(recipe(tmp_path, makers, checks=checks, **more), silent)
    assert dropped(made) == {"low_mark": 1, "no_mark": 1}
    assert [(row["text"], row["synthetic"]["model"]) for row in new(made)] == [("The fan hums", None)]


def test_what_was_made_before_counts_and_is_no_seed(tmp_path: Path) -> None:
    made = synth(recipe(tmp_path, [TEMPLATES], checks={**OPEN, "max_share": 0.6}), silent)
    assert len(new(made)) == 18
    again = Augment.model_validate(
        {"output": str(tmp_path / "out"), "data": {"train": [str(tmp_path / "out")]},
         "changes": [{"kind": "noise", "times": 2}], "checks": {**OPEN, "max_share": 0.75}}
    )  # fmt: skip
    made = augment(again, silent)
    accounted(made)
    assert (made.rows, len(new(made))) == ({"train": 48, "test": 2}, 36)
    assert made.as_dict()["synthetic"]["before"] == 18
    assert made.as_dict()["synthetic"]["seeds"] == len(SEEDS)


def test_evaluation_rows_must_be_real_and_the_column_free(tmp_path: Path) -> None:
    synthetic = {**SEEDS[0], "synthetic": {"maker": "x"}}
    data = {"train": [written(tmp_path, SEEDS)], "test": [written(tmp_path, [synthetic], "t.jsonl")]}
    with pytest.raises(DataError, match=r"t\.jsonl:1: a synthetic row is among the evaluation rows"):
        synth(recipe(tmp_path, [TEMPLATES]).model_copy(update={"data": Synth.model_validate(
            {"data": data, "makers": [TEMPLATES]}).data}), silent)  # fmt: skip
    with pytest.raises(DataError, match=r"rows\.jsonl:1: field 'synthetic': 'yes'"):
        synth(recipe(tmp_path, [TEMPLATES], [{**SEEDS[0], "synthetic": "yes"}]), silent)
    made = synth(
        recipe(tmp_path, [TEMPLATES], [{**row, "synthetic": "no"} for row in SEEDS], origin="how"), silent
    )
    assert all(row["how"]["maker"] == "templates" for row in rows(made)[len(SEEDS) :])


# Models --------------------------------------------------------------------------------------------------


def at(endpoint: Endpoint, **more: Any) -> dict[str, Any]:
    return {"url": endpoint.url, "model": "m", "retries": 0, "backoff": 0, **more}


def one_row(asked: str, before: int) -> Any:
    return says(
        json.dumps({"text": f"The fan number {abs(hash((asked, before))) % 10**6} will not switch on"})
    )


GRID = {
    "kind": "grid",
    "count": 12,
    "axes": {"persona": ["a barber", "a tutor"], "style": ["curt", "polite"]},
    "shots": 1,
}


def test_a_grid_asks_for_every_cell(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.reply = one_row
    made = synth(
        recipe(tmp_path, [GRID], checks=OPEN, endpoint=at(endpoint, max_tokens=9), about="tickets"), silent
    )
    accounted(made)
    bodies = [body for _, body, _ in endpoint.requests]
    assert {(b["model"], b["temperature"], b["max_tokens"]) for b in bodies} == {("m", 0.8, 9)}
    asked = [body["messages"][0]["content"] for body in bodies]
    assert all("a data set: tickets." in text for text in asked)
    assert all('Reply with a JSON object {"text": "..."}' in text for text in asked)
    cells = [(row["synthetic"]["how"], row["label"]) for row in new(made)]
    assert len(set(cells)) == 8  # two personas, two styles, two labels; 12 rows: no cell three times
    assert max(cells.count(cell) for cell in cells) == 2
    assert all(row["synthetic"]["model"] == "m" for row in new(made))
    for row in new(made):
        (place,) = row["synthetic"]["seeds"]
        seed = SEEDS[int(place.rpartition(":")[2]) - 1]
        assert (row["label"], any(seed["text"] in text for text in asked)) == (seed["label"], True)


def test_a_run_that_failed_goes_on_where_it_ended(tmp_path: Path, endpoint: Endpoint) -> None:
    broken = True

    def reply(asked: str, before: int) -> Any:
        return one_row(asked, 0) if not broken or "barber" in asked else (400, {}, "no")

    endpoint.reply = reply
    spec = recipe(tmp_path, [GRID], checks=OPEN, endpoint=at(endpoint))
    with pytest.raises(ModelError, match=r"left 6 of 12 questions without a reply; the first: status 400"):
        synth(spec, silent)
    assert not (tmp_path / "out" / "current").exists()
    with (tmp_path / "out" / "answers.jsonl").open("a") as file:
        file.write('{"key": "torn')
    broken = False
    trial = synth(spec, silent, dry_run=True)
    assert trial.as_dict()["synthetic"]["questions"] == {"asked": 0, "known": 6, "waiting": 6}
    assert len(endpoint.requests) == 12
    made = synth(spec, silent)
    assert made.as_dict()["synthetic"]["questions"] == {"asked": 6, "known": 6, "waiting": 0}
    assert len(endpoint.requests) == 18
    again = synth(spec, silent)
    assert len(endpoint.requests) == 18
    assert rows(again) == rows(made)
    other = spec.model_copy(update={"endpoint": spec.endpoint.model_copy(update={"temperature": 0.1})})  # type: ignore[union-attr]
    synth(other, silent)
    assert len(endpoint.requests) == 30


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Sure! Here you are: {}", "not_json"),
        ('"text"', "not_json"),
        ("[1]", "not_an_object"),
        ('{"text": "a b", "label": "billing", "more": 1}', "other_fields"),
        ('{"text": "a b"}', "other_fields"),
        ('{"text": 5, "label": "billing"}', "not_text"),
        ('{"text": " ", "label": "billing"}', "not_text"),
        ('{"text": "a b", "label": "bills"}', "unknown_label"),
        ('[{"text": "a b", "label": "billing"}, {"text": "c", "label": "billing"}]', "too_many"),
        ('<think>hm</think>\n```json\n{"text": "a b", "label": "billing"}\n```', None),
    ],
)
def test_replies_are_read_strictly(
    tmp_path: Path, endpoint: Endpoint, reply: str, reason: str | None
) -> None:
    endpoint.reply = lambda asked, before: says(reply)
    maker = {"kind": "self_instruct", "count": 1, "rows": 1}
    made = synth(recipe(tmp_path, [maker], checks=OPEN, endpoint=at(endpoint)), silent)
    accounted(made)
    assert dict(made.files[-1].refused) == ({reason: 1} if reason else {})
    assert [row["text"] for row in new(made)] == (["a b"] if reason in (None, "too_many") else [])


TALKS: Rows = [
    {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"What is {n} and {n}?"},
                  {"role": "assistant", "content": f"It is {2 * n}."}]}
    for n in range(3)
]  # fmt: skip


def talks(folder: Path, maker: dict[str, Any], endpoint: Endpoint) -> Made:
    data = {"train": [written(folder, TALKS)]}
    document = {"output": str(folder / "out"), "data": data, "makers": [maker], "checks": OPEN}
    return synth(Synth.model_validate({**document, "endpoint": at(endpoint)}), silent)


def test_conversations_are_evolved_round_by_round(tmp_path: Path, endpoint: Endpoint) -> None:
    def reply(asked: str, before: int) -> Any:
        prompt = json.loads(next(line for line in asked.splitlines() if line.startswith('{"prompt"')))[
            "prompt"
        ]
        return says(json.dumps({"prompt": prompt + " And then?", "answer": "More."}))

    endpoint.reply = reply
    made = talks(tmp_path, {"kind": "evolve", "ways": ["deeper"], "rounds": 2}, endpoint)
    contents = [[turn["content"] for turn in row["messages"]] for row in new(made)]
    assert contents == [
        ["Be kind.", f"What is {n} and {n}?" + " And then?" * times, "More."]
        for times in (1, 2)
        for n in range(3)
    ]
    assert new(made)[3]["synthetic"]["how"] == "deeper (round 2)"
    assert "requirement or circumstance" in endpoint.requests[0][1]["messages"][0]["content"]


def test_answers_are_rewritten_and_prompts_stay(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.reply = lambda asked, before: says(
        '{"answer": "That makes it."}' if "What is 1" in asked else "{}"
    )
    made = talks(tmp_path, {"kind": "rewrite"}, endpoint)
    (row,) = new(made)
    assert [turn["content"] for turn in row["messages"]] == ["Be kind.", "What is 1 and 1?", "That makes it."]
    assert dict(made.files[-1].refused) == {"other_fields": 2}
    with pytest.raises(DataError, match="labels have no other words"):
        synth(recipe(tmp_path, [{"kind": "rewrite"}], endpoint=at(endpoint)), silent)
    endpoint.reply = lambda asked, before: says(json.dumps({"text": f"Other words {len(asked)} {before}"}))
    made = synth(recipe(tmp_path, [{"kind": "rewrite", "part": "prompt", "count": 3}], checks=OPEN,
                        endpoint=at(endpoint)), silent)  # fmt: skip
    for one in new(made):
        seed = SEEDS[int(one["synthetic"]["seeds"][0].rpartition(":")[2]) - 1]
        assert one["label"] == seed["label"]


def test_a_model_on_this_machine_writes_the_same_again(tmp_path: Path, base: Path) -> None:
    local = {"path": str(base), "max_new_tokens": 6}
    maker = {"kind": "rewrite", "part": "prompt", "count": 2, "prompt": "{part} {form}"}
    replies = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made = synth(recipe(tmp_path / name, [maker], local=local), silent)
        accounted(made)
        assert made.as_dict()["synthetic"]["questions"] == {"asked": 2, "known": 0, "waiting": 0}
        lines = (tmp_path / name / "out" / "answers.jsonl").read_text().splitlines()
        replies.append(sorted(json.loads(line)["reply"] for line in lines))
    assert replies[0] == replies[1]
    assert len(set(replies[0])) == 2  # one question, asked twice: what is drawn differs
    with pytest.raises(ModelError, match="and the model has room for"):
        synth(recipe(tmp_path, [maker], local={**local, "max_new_tokens": 2000}), silent)


# Augmentation --------------------------------------------------------------------------------------------


def test_augmented_rows_keep_their_labels(tmp_path: Path) -> None:
    made = augment(changing(tmp_path, [{"kind": "noise", "times": 3}, {"kind": "eda"}], checks=OPEN), silent)
    accounted(made)
    by_place = {f"{tmp_path / 'rows.jsonl'}:{n}": seed for n, seed in enumerate(SEEDS, 1)}
    assert len(new(made)) > 40
    for row in new(made):
        (place,) = row["synthetic"]["seeds"]
        assert row["label"] == by_place[place]["label"]
        assert row["text"] != by_place[place]["text"]
    assert made.as_dict()["synthetic"]["made"]["noise"]["rows"] == 36


def test_texts_with_spans_are_refused(tmp_path: Path) -> None:
    spans = [{"text": "Ann called", "spans": [{"start": 0, "end": 3, "label": "name"}]}]
    document = {
        "data": {"train": [written(tmp_path, spans)], "format": "tags"},
        "output": str(tmp_path / "o"),
    }
    with pytest.raises(DataError, match="1 x spans_or_tags"):
        augment(Augment.model_validate({**document, "changes": [{"kind": "noise"}]}), silent)


def shouted(texts: list[str]) -> list[str]:
    return [text.upper() for text in texts]


def short(texts: list[str]) -> list[str]:
    return texts[:1]


def broken(texts: list[str]) -> list[str]:
    raise KeyError(texts[0])


def test_back_translation_by_a_function(tmp_path: Path) -> None:
    change = {"kind": "back_translation", "function": f"{__name__}.shouted"}
    made = augment(changing(tmp_path, [change], checks=OPEN), silent)
    assert [row["text"] for row in new(made)] == [row["text"].upper() for row in SEEDS]
    for name, said in (
        ("short", "a list of 12 texts"),
        ("broken", "KeyError"),
        ("none", "no function 'none'"),
    ):
        with pytest.raises((DataError, ConfigError), match=said) as caught:
            augment(changing(tmp_path, [{**change, "function": f"{__name__}.{name}"}]), silent)
        assert said in str(caught.value)


def test_back_translation_by_a_model_goes_there_and_back(tmp_path: Path, endpoint: Endpoint) -> None:
    def reply(asked: str, before: int) -> Any:
        to = asked.split("into ")[1].split(".")[0]
        return says(f"[{to}] {asked.splitlines()[-1]}")

    endpoint.reply = reply
    change = {"kind": "back_translation", "pivots": ["French", "Thai"], "language": "Dutch"}
    made = augment(changing(tmp_path, [change], checks=OPEN, endpoint=at(endpoint)), silent)
    assert [row["text"] for row in new(made)] == [
        f"[Dutch] [{pivot}] {row['text']}" for pivot in ("French", "Thai") for row in SEEDS
    ]
    assert new(made)[-1]["synthetic"]["how"] == "by way of Thai"


def test_who_asks_must_name_whom(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the maker grid asks a model, and none is named"):
        recipe(tmp_path, [GRID])
    with pytest.raises(ValueError, match="leave one of them out"):
        recipe(tmp_path, [GRID], endpoint={"url": "http://x", "model": "m"}, local={"path": "p"})
