"""An inspection says what rows are, in numbers that a few lines can check, and changes nothing."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.desk.test_make import ROWS, TICKETS, quiet, written

from tunesmith.config.desk import Desk
from tunesmith.data.render import Renderer
from tunesmith.data.shares import Sharing
from tunesmith.data.template import apply_choice, choose_template
from tunesmith.desk.facts import Cost, Inspecting, Inspection, Trained
from tunesmith.desk.inspect import inspect
from tunesmith.desk.lengths import Measure, Rendered, Size, binned
from tunesmith.desk.looks import _threshold, mixed
from tunesmith.desk.make import make
from tunesmith.desk.suspects import REASONS, odd_share
from tunesmith.embedded import base_model_path
from tunesmith.errors import RowError
from tunesmith.types import Example


class Words:
    """Counts words, so that a test can."""

    context = 40

    def describe(self) -> str:
        return "words"

    def of(self, kind: str, examples: Sequence[Example]) -> list[Size | RowError]:
        sizes: list[Size | RowError] = []
        for example in examples:
            prompt = sum(len(m.content.split()) for m in example.prompt)
            answer = len((example.text or example.answer).split())
            sizes.append(Size(prompt, answer, prompt + answer, prompt + answer))
        return sizes


def looked_at(*files: str, measure: Measure | None = None, **more: Any) -> Inspection:
    train, rest = (
        [f for f in files if "test" not in Path(f).name],
        [f for f in files if "test" in Path(f).name],
    )
    document = {"data": {"train": train, "test": rest}, "clean": {}, "dedup": {}} | more
    return inspect(
        Desk.model_validate(document), lambda: Inspecting(measure or Words()), quiet, sharing=Sharing(1)
    )


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_it_counts_what_each_step_alone_would_do(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    file = written(tmp_path, [{"text": "one good row", "label": "a"}, *rows])
    facts = looked_at(file).facts
    counted = []
    for step in ("clean", "dedup"):
        desk = Desk.model_validate({"data": {"train": [file]}, step: {}})
        counted += make(desk, quiet, dry_run=True, sharing=Sharing(1)).as_dict()["steps"]
    assert [{k: v for k, v in step.items() if k != "examples"} for step in facts["steps"]] == counted
    unusable = {"empty_text", "empty_answer"} & counted[0]["dropped"].keys()
    assert facts["suspicious"]["reasons"].get("unusable", 0) == sum(
        1 for row in rows if not row["text"].strip()
    )
    # What is empty only when it is mended, such as a blank of no width, is not yet so as it was read.
    assert ("unusable" in facts["suspicious"]["reasons"]) <= bool(unusable)
    assert list(tmp_path.iterdir()) == [Path(file)]


def test_lengths_labels_and_columns_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = [*TICKETS, {"text": "just this", "label": "rare", "customer": None}]
    facts = looked_at(written(tmp_path, rows)).facts
    words = sorted(len(row["text"].split()) for row in rows)
    prompt = facts["tokens"]["splits"]["train"]["prompt"]
    assert (prompt["most"], prompt["p50"]) == (words[-1], words[math.ceil(0.5 * (len(words) - 1))])
    assert prompt["mean"] == pytest.approx(np.mean(words), abs=0.05)
    assert prompt["all"] == sum(words)
    histogram = facts["tokens"]["histograms"]["prompt"]
    edges = histogram["edges"]
    assert histogram["counts"] == [sum(a <= n < b for n in words) for a, b in pairwise(edges)]
    counts = Counter(row["label"] for row in rows)
    entropy = -sum(n / len(rows) * math.log2(n / len(rows)) for n in counts.values())
    found = facts["labels"]["label"]["train"]
    assert found["counts"] == dict(counts.most_common())
    assert found["entropy"] == pytest.approx(entropy, abs=1e-4)
    assert found["evenness"] == pytest.approx(entropy / math.log2(3), abs=1e-4)
    assert (found["imbalance"], found["rarest"]) == (max(counts.values()), ["rare"])
    columns = {one["column"]: one for one in facts["files"][0]["columns"]}
    assert (columns["text"]["part"], columns["customer"]["part"]) == ("text", "")
    assert (columns["customer"]["nulls"], columns["customer"]["types"]) == (1, {"text": len(rows) - 1})
    assert facts["suspicious"]["reasons"]["label_once"] == 1


def test_what_could_not_be_read_is_counted_with_the_first_of_each(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(TICKETS[0])
    path.write_bytes(b"\xef\xbb\xbf" + f"{good}\r\n{{no\r\n{good}\r\n{{nor\r\n".encode())
    (one,) = looked_at(str(path)).facts["files"]
    assert (one["rows"], one["used"], one["encoding"]) == (4, 2, "UTF-8, byte order mark, lines end in CRLF")
    assert [(r["rows"], r["first"]["line"], r["first"]["row"]) for r in one["refused"].values()] == [
        (2, 2, "{no\r\n")
    ]


def test_the_same_prompt_with_another_label_is_a_conflict_within_and_across_splits(tmp_path: Path) -> None:
    again = {**TICKETS[0], "label": "other"}
    facts = looked_at(
        written(tmp_path, [*TICKETS, again, TICKETS[1]]),
        written(tmp_path, [{**TICKETS[2], "text": TICKETS[2]["text"], "label": "other"}], "test.jsonl"),
    ).facts
    found = facts["conflicts"]
    assert (found["prompts"], found["rows"], found["prompts_across_splits"]) == (2, 4, 1)
    assert [a["answer"] for a in found["examples"][0]["answers"]] == [TICKETS[0]["label"], "other"]
    assert facts["steps"][-1]["dropped"]["exact"] == 1


LONG = "the printer stands on the second floor beside the window " * 5
ODD: dict[str, dict[str, Any]] = {
    "unusable": {"prompt": "Where is it?", "completion": ""},
    "answer_is_prompt": {"prompt": "Say it again.", "completion": "say  it again."},
    "placeholder": {"prompt": "What is the number?", "completion": "TODO"},
    "refusal": {
        "prompt": "How late is it?",
        "completion": "As an AI language model, I cannot tell the time.",
    },
    "repetition": {"prompt": "And then?", "completion": "and then it rang " * 8},
    "odd_characters": {"prompt": "What does it show?", "completion": "▚▞▚▞ it says ▚▞▚▞"},
    "too_long": {
        "prompt": "Which one? " + " ".join(f"n{i}" for i in range(40)),
        "completion": "The last one.",
    },
    "answer_in_prompt": {
        "prompt": "Where does it stand? It stands beside the window, says Ann.",
        "completion": "it stands beside the window",
    },
}


@pytest.mark.parametrize("reason", list(ODD))
def test_each_reason_to_look_at_a_row(reason: str, tmp_path: Path) -> None:
    good = [{"prompt": f"What is {n} and one?", "completion": f"That makes {n + 1}."} for n in range(5)]
    found = looked_at(written(tmp_path, [*good, ODD[reason]])).facts["suspicious"]
    assert found["reasons"] == {reason: 1}
    assert list(found["worst"][0]["reasons"]) == [reason]
    assert found["worst"][0]["place"].endswith("rows.jsonl:6")
    assert set(REASONS) == {*ODD, "conflict", "label_once", "label_in_prompt"}


def test_the_worst_rows_come_first_and_a_label_in_its_prompt_last(tmp_path: Path) -> None:
    rows = [*TICKETS, {"text": "a billing matter", "label": "billing"}, {"text": " ", "label": "billing"}]
    found = looked_at(written(tmp_path, rows)).facts["suspicious"]
    assert [list(one["reasons"]) for one in found["worst"]] == [["unusable"], ["label_in_prompt"]]


def test_tokens_of_a_sample_stand_for_all_and_no_row_that_is_too_long_is_missed(tmp_path: Path) -> None:
    rows = [{"prompt": "a " * (n % 7 + 1), "completion": f"b{n}"} for n in range(600)]
    rows += [{"prompt": "a " * 50, "completion": "too long"}, {"prompt": "", "completion": "no prompt"}]
    document = {"data": {"train": [written(tmp_path, rows)]}}
    desk = Desk.model_validate(document)
    whole, some = (
        inspect(desk, partial(Inspecting, Words(), counted=n), quiet, sharing=Sharing(1)).facts
        for n in (0, 100)
    )
    assert (whole["tokens"]["counted"], whole["tokens"]["rows"]) == (601, 601)
    assert 90 <= some["tokens"]["counted"] <= 100
    assert some["suspicious"] == whole["suspicious"]
    assert (some["tokens"]["too_long"], some["tokens"]["longest"][0]["tokens"]) == (1, 52)
    one, other = (facts["tokens"]["splits"]["train"]["whole"] for facts in (whole, some))
    assert one["most"] == other["most"] == 52
    assert other["mean"] == pytest.approx(one["mean"], rel=0.2)
    assert other["all"] == pytest.approx(other["mean"] * 601, rel=0.01)
    assert (
        "of a sample of"
        in inspect(desk, partial(Inspecting, Words(), counted=100), quiet, sharing=Sharing(1)).as_text()
    )


def test_odd_characters_are_no_letters_of_any_script_no_code_and_no_sums() -> None:
    for text in (
        "Ünïcode: größer",
        "почему так?",
        "为什么这样？",
        "x = [i ** 2 for i in range(9)] # $5 + 3 €",
    ):
        assert odd_share(text) == 0
    assert odd_share("ab\ufffd\ufffd\ufffd") == pytest.approx(3 / 5)


@given(st.integers(1, 3000), st.integers(1, 500))
def test_the_sample_is_of_the_size_that_was_asked_for(count: int, sample: int) -> None:
    chosen = mixed(np.arange(count, dtype=np.uint64)) <= np.uint64(_threshold(count, sample))
    assert chosen.sum() == min(count, sample)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=200))
def test_every_length_lies_in_a_bin(tokens: list[int]) -> None:
    assert sum(binned(np.array(tokens))["counts"]) == len(tokens)


def test_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.desk.reading.CHUNK_ROWS", 7)
    file = written(tmp_path, [*TICKETS, *TICKETS[:5], {"text": "", "label": "x"}])
    desk = Desk.model_validate({"data": {"train": [file]}, "clean": {}, "dedup": {}})
    one, two = (inspect(desk, partial(Inspecting, Words()), quiet, sharing=Sharing(n)).facts for n in (1, 2))
    assert one == two


def test_tokens_are_those_that_training_makes(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model_path())
    choice = choose_template(tokenizer)
    apply_choice(tokenizer, choice)
    measure = Rendered(Renderer(tokenizer, choice), "base", 1024)
    row = {"prompt": "Where do you live?", "completion": "In a house by the sea."}
    facts = looked_at(written(tmp_path, [row]), measure=measure).facts["tokens"]["splits"]["train"]
    asked = [{"role": "user", "content": row["prompt"]}]
    both = [*asked, {"role": "assistant", "content": row["completion"]}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    whole = tokenizer.apply_chat_template(both)["input_ids"]
    end = len(whole) - whole[::-1].index(
        choice.end_ids[0]
    )  # what follows the end of the turn carries no loss
    assert facts["whole"]["most"] == len(whole)
    assert facts["answer"]["most"] == end - len(prompt)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.update(name for name, _ in attrs)


EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}'


def test_markup_in_rows_stays_text_on_the_page_and_the_screen(tmp_path: Path) -> None:
    rows = [
        {"text": f"{row['text']} {EVIL}", "label": f"{row['label']}{EVIL}", EVIL: EVIL} for row in TICKETS
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": EVIL, "label": EVIL}]) + EVIL)
    found = looked_at(str(path), dedup={"near": None})
    page = found.as_html()
    seen = Tags()
    seen.feed(page)
    assert not {"script", "img"} & seen.tags.keys()
    assert not {name for name in seen.attributes if name.startswith("on")}
    assert "49" not in {line.strip() for line in page.splitlines()}
    assert "alert(1)" in page
    assert "\x1b" not in found.as_text()


def test_marks_of_direction_are_shown_and_do_not_act(tmp_path: Path) -> None:
    page = looked_at(written(tmp_path, [{"text": "pay \u202exe.tnuocca\x1b[2J", "label": "a"}] * 2)).as_html()
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "\\u202exe.tnuocca\\u001b[2J" in page


def test_where_scrubbing_is_tried_nothing_of_it_is_shown(tmp_path: Path) -> None:
    mail = {"text": "write to ann.lee@example.org", "label": "contact"}
    file = written(tmp_path, [mail, {**mail, "label": "other"}, {"text": "no", "label": "other"}])
    found = looked_at(file, scrub={"kinds": ["EMAIL"]})
    counts = {step["step"]: step["changed"] for step in found.facts["steps"]}
    assert counts["scrub"] == {"EMAIL": 2}
    assert "<EMAIL>" in found.as_text()
    for said in (json.dumps(found.facts), found.as_text(), found.as_html()):
        assert "ann.lee" not in said


def test_pairs_that_people_judged_need_not_be_called_so(tmp_path: Path) -> None:
    pair = {"prompt": "Can I pay by card?", "chosen": "Yes, at the desk.", "rejected": "Perhaps."}
    turned = {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}
    facts = looked_at(written(tmp_path, [pair, turned, {**pair, "prompt": "And by cheque?"}])).facts
    assert facts["files"][0]["kind"] == "preference"
    assert (facts["conflicts"]["prompts"], facts["conflicts"]["rows"]) == (1, 2)


def test_the_screen_and_the_page_say_the_same_numbers(tmp_path: Path) -> None:
    found = looked_at(written(tmp_path, [*TICKETS, TICKETS[0]]))
    screen, page = found.as_text(), found.as_html()
    assert "exact" in screen
    assert f"{len(TICKETS) + 1:,} of {len(TICKETS) + 1:,} rows read" in screen
    assert f"{len(TICKETS) + 1} of {len(TICKETS) + 1} rows read" in page
    assert len(screen.splitlines()) < 70


def test_the_screen_shows_what_a_rule_would_make_of_a_row(tmp_path: Path) -> None:
    screen = looked_at(written(tmp_path, [{"text": "my <b>card</b>", "label": "card"}, *TICKETS])).as_text()
    assert "would be changed: html: " in screen
    assert "rows.jsonl:1 my <b>card</b> -> my card" in screen


def test_numbers_that_rows_are_answered_with_are_spread_out(tmp_path: Path) -> None:
    values = [(1.5 * at if at % 3 else -2.0, 10**at % 7) for at in range(40)]
    rows = [{"text": f"row {at}", "score": a, "stars": b} for at, (a, b) in enumerate(values)]
    file = written(tmp_path, [*rows, {"text": "bad", "score": "many", "stars": 1}])
    found = looked_at(file, data={"train": [file], "format": "number", "targets": ["score", "stars"]})
    numbers = found.facts["numbers"]
    assert list(numbers) == ["score", "stars"]
    for place, column in enumerate(numbers):
        one, mine = numbers[column]["train"], np.array([value[place] for value in values], float)
        assert one["rows"] == 40
        assert (one["mean"], one["deviation"]) == pytest.approx((mine.mean(), mine.std()))
        assert (one["least"], one["p50"], one["most"]) == (mine.min(), np.median(mine), mine.max())
        edges, counts = one["histogram"]["edges"], one["histogram"]["counts"]
        last = len(counts) - 1
        assert counts == [
            sum(a <= value < b or (at == last and value == b) for value in mine.tolist())
            for at, (a, b) in enumerate(pairwise(edges))
        ]
    page = found.as_html()
    assert page.count('id="number-') >= 2
    assert "score, train" in page
    assert '<a href="#numbers">' in page
    assert f"score, train: mean {numbers['score']['train']['mean']:.4g}" in found.as_text()
    assert '<h2 id="numbers"' not in looked_at(written(tmp_path, TICKETS, "t.jsonl")).as_html()


@pytest.mark.parametrize("processes", [1, 2])
def test_rows_are_inspected_on_the_walk_on_which_a_version_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """What is said is what an inspection says, and what is made is what is made without one."""
    monkeypatch.setattr("tunesmith.desk.reading.CHUNK_ROWS", 7)
    rows = [*TICKETS, *TICKETS[:5], {"text": "write to ann@mailbox.com", "label": "x"}]
    document = {"data": {"train": [written(tmp_path, rows)]}, "clean": {}, "scrub": {}, "dedup": {}}
    sharing, trained = Sharing(processes), []

    def cost(given: Trained) -> Cost:
        assert not list(tmp_path.rglob("*.looks.npy"))
        trained.append(given)
        return lambda: {"rows": given.count, "tokens_per_epoch": given.tokens, "not_known": "a test"}

    asked = partial(Inspecting, Words(), cost)
    one, two = (Desk.model_validate(document | {"output": str(tmp_path / name)}) for name in ("one", "two"))
    alone = inspect(one, asked, quiet, sharing=sharing)
    beside = make(one, quiet, sharing=sharing, inspecting=asked)
    without = make(two, quiet, sharing=sharing)
    assert beside.inspection is not None
    assert beside.version is not None
    assert without.version is not None
    assert beside.inspection.facts | {"steps": ()} == alone.facts | {"steps": ()}
    repeats = [step["step"] for step in beside.inspection.facts["steps"]]
    assert repeats == ["dedup"]
    assert [one.count for one in trained] == [len(rows)] * 2
    folder = beside.version.folder
    for name in ("train.jsonl", "changes.jsonl", "origins.jsonl"):
        assert (folder / name).read_bytes() == (without.version.folder / name).read_bytes()
    assert json.loads((folder / "inspection.json").read_text()) == json.loads(
        json.dumps(beside.inspection.facts)
    )
    page = (folder / "inspection.html").read_text()
    assert "What each step would do" not in page
    assert "ann@mailbox.com" not in page + (folder / "inspection.json").read_text() + beside.as_text()
    assert {"inspection.html", "inspection.json"} <= beside.version.manifest["files"].keys()
    assert json.loads(json.dumps(beside.as_dict()))["inspection"]["rows"] == {"train": len(rows)}
