"""Spans follow their text: after any change each covers what it covered, or the row says that it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.desk.test_make import desk_of, left, quiet

from tunesmith.config.desk import Clean
from tunesmith.data.shares import Sharing
from tunesmith.desk.clean import Cleaning
from tunesmith.desk.make import make
from tunesmith.desk.originals import restored
from tunesmith.desk.spans import SpanLost, moved

MESSY = "<p>Ada  lived in</p>\n\n\n\nRome &amp; Paris \nSent from my phone\ncafÃ© Ada"
CLEAN = "Ada lived in\n\nRome & Paris\ncafé Ada"


def spans_of(text: str, *words: str) -> list[list[Any]]:
    """[start, end, word] of each word where it stands first, of the last where it stands last."""
    found = [[text.index(word), text.index(word) + len(word), word] for word in words[:-1]]
    return [*found, [text.rindex(words[-1]), text.rindex(words[-1]) + len(words[-1]), words[-1]]]


@pytest.mark.parametrize("settings", [{}, {"data": {"format": "tags"}}], ids=["auto", "tags"])
@pytest.mark.parametrize("how", ["lists", "objects", "json"])
def test_spans_cover_the_same_words_after_cleaning(
    tmp_path: Path, settings: dict[str, Any], how: str
) -> None:
    def spelled(spans: list[list[Any]]) -> Any:
        objects = [dict(zip(("start", "end", "label", "id"), (*span, 7), strict=True)) for span in spans]
        return {"lists": spans, "objects": objects, "json": json.dumps(spans, ensure_ascii=False)}[how]

    row = {"text": MESSY, "spans": spelled(spans_of(MESSY, "Rome", "Paris", "cafÃ©", "Ada")), "n": [1, 2, 3]}
    desk = desk_of(tmp_path, [row], clean={})
    desk = desk.model_copy(update={"data": desk.data.model_copy(update=settings.get("data", {}))})
    made = make(desk, quiet, sharing=Sharing(1))
    wanted = spans_of(CLEAN, "Rome", "Paris", "café", "Ada")
    wanted[2][2] = "cafÃ©"
    assert left(made) == [{"text": CLEAN, "spans": spelled(wanted), "n": [1, 2, 3]}]
    assert made.version is not None
    assert [one for _, one in restored(made.version)] == [row]


@pytest.mark.parametrize(
    "text, span",
    [
        ("read this\nSent from my phone", "Sent from my phone"),
        ("AT&amp;T is down", "AT&am"),
        ("<script>x</script> hello <b>you</b>", "x"),
    ],
)
def test_a_span_that_is_lost_drops_its_row(tmp_path: Path, text: str, span: str) -> None:
    rows = [{"text": text, "spans": spans_of(text, span)}, {"text": "Ada", "spans": [[0, 3, "person"]]}]
    made = make(desk_of(tmp_path, rows, clean={}), quiet, sharing=Sharing(1))
    assert left(made) == rows[1:]
    assert made.steps[0].dropped == {"span_lost": 1}
    assert "span" in made.as_text()


def test_what_only_looks_like_spans_is_left_alone(tmp_path: Path) -> None:
    row = {"text": "<p>one two three</p>", "times": [{"start": 1, "end": 5}], "rgb": [[1, 2, 3]]}
    made = make(desk_of(tmp_path, [row], clean={}), quiet, sharing=Sharing(1))
    assert left(made) == [row | {"text": "one two three"}]


PIECES = st.sampled_from(
    [
        "Ada",
        " ",
        "  ",
        "\n",
        "\n\n\n",
        "<b>",
        "</b>",
        "&amp;",
        "Ã©",
        "é",
        "e\u0301",
        "\u200b",
        "```",
        "[INST]",
        "x\ty",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=12), st.data())
def test_a_span_holds_what_its_piece_became(pieces: list[str], data: st.DataObject) -> None:
    """Marked by a word that no rule knows on both sides, a span is found again by looking for them."""
    at = data.draw(st.integers(0, len(pieces)))
    text = "".join(pieces[:at]) + "QQstart" + "".join(pieces[at:]) + "QQend"
    start, end = text.index("QQstart"), len(text)
    rules = Cleaning(Clean())._rules(("text",))
    now = text
    for rule in rules:
        now = rule(now)
    try:
        found = moved(text, now, [(start, end)], rules)
    except SpanLost:
        return
    assert found == [(now.index("QQstart"), now.index("QQend") + len("QQend"))]


# Answers that stand in a text, and spans beside messages -------------------------------------------------

CONTEXT = "<p>Ada&nbsp;lived  in Rome,</p>\n\n\n\nwrite to ada@lovelace.com"
QA = {"prompt": "question", "input": "context", "completion": "title"}


def asked(answers: Any, context: str = CONTEXT, **more: Any) -> dict[str, Any]:
    return {"title": "Lives", "context": context, "question": "Where?", **(answers or {}), **more}


def squad(how: str, *answers: tuple[str, int]) -> dict[str, Any]:
    """answers: text and start."""
    lists = {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]}
    items = [{"text": text, "answer_start": start, "by": "me"} for text, start in answers]
    return {
        "lists": {"answers": lists},
        "items": {"answers": items},
        "json": {"answers": json.dumps(lists)},
        "one": {"answers": items[0]},
        "flat": {"answer": answers[0][0], "answer_start": answers[0][1]},
    }[how]


def made_of(folder: Path, rows: list[dict[str, Any]], columns: dict[str, str], **steps: Any) -> Any:
    desk = desk_of(folder, rows, **steps)
    data = desk.data.model_copy(update={"columns": columns})
    return make(desk.model_copy(update={"data": data}), quiet, sharing=Sharing(1))


@pytest.mark.parametrize("how", ["lists", "items", "json", "one", "flat"])
def test_answers_are_found_where_they_stand_after_cleaning(tmp_path: Path, how: str) -> None:
    row = asked(squad(how, ("Rome", CONTEXT.index("Rome")), ("Ada&nbsp;lived", 3)))
    made = made_of(tmp_path, [row], QA, clean={})
    clean = "Ada lived in Rome,\n\nwrite to ada@lovelace.com"
    assert left(made) == [asked(squad(how, ("Rome", 13), ("Ada lived", 0)), clean)]
    assert [one for _, one in restored(made.version)] == [row]


def test_answers_follow_scrubbing_and_what_cannot_is_dropped(tmp_path: Path) -> None:
    mail, at = "ada@lovelace.com", CONTEXT.index("ada@")
    rows = [
        asked(squad("lists", (mail, at), ("Rome", CONTEXT.index("Rome")))),
        asked(squad("lists", ("lovelace", at + 4))),  # half of what is put in another's place
        asked(squad("lists", ("Rome", 1))),  # stands there in no text
        asked(squad("lists", ("", -1))),  # no answer
        asked({}),
    ]
    made = made_of(tmp_path, rows, QA, scrub={})
    now = CONTEXT.replace(mail, "<EMAIL>")
    assert left(made) == [
        asked(squad("lists", ("<EMAIL>", at), ("Rome", CONTEXT.index("Rome"))), now),
        asked(squad("lists", ("", -1)), now),
        asked({}, now),
    ]
    [step] = made.steps
    assert (step.rows_in, step.rows_out, step.dropped.total()) == (5, 3, 2)


def test_an_answer_that_is_scrubbed_alone_drops_its_row(tmp_path: Path) -> None:
    """Its text would not be what stands at its place any more."""
    number = "536-90-4399"
    rows = [asked(squad("lists", (number, 1)), f"1{number}3")]
    made = made_of(tmp_path, rows, QA, scrub={})
    assert left(made) == []
    assert made.steps[0].dropped.total() == 1


@pytest.mark.parametrize("packed", [False, True])
def test_spans_beside_a_message_follow_its_content(tmp_path: Path, packed: bool) -> None:
    def talk(content: str, start: int, spans: list[list[Any]]) -> dict[str, Any]:
        named = [{"start": start, "end": start + 4, "label": "city"}]
        turns = [
            {"role": "user", "content": content, "entities": named},
            {"role": "assistant", "content": "Write to ada@lovelace.com in Rome", "entities": spans},
        ]
        return {"messages": json.dumps(turns) if packed else turns}

    row = talk("<b>I go</b>  to Rome", 16, [[9, 25, "mail"], [29, 33, "city"]])
    made = make(desk_of(tmp_path, [row], clean={}, scrub={}), quiet, sharing=Sharing(1))
    wanted = talk("I go to Rome", 8, [[9, 16, "mail"], [20, 24, "city"]])
    text = json.dumps(wanted).replace("ada@lovelace.com", "<EMAIL>")
    assert json.loads(json.dumps(left(made)[0])) == json.loads(text)


def test_labels_of_spans_are_scrubbed_too(tmp_path: Path) -> None:
    row = {"text": "Write to ada@lovelace.com in Rome", "spans": [[29, 33, "of ada@lovelace.com"]]}
    for spans in (row["spans"], json.dumps(row["spans"])):
        made = make(desk_of(tmp_path, [row | {"spans": spans}], scrub={}), quiet, sharing=Sharing(1))
        [found] = left(made)
        assert "ada" not in json.dumps(found)
        kept = found["spans"] if isinstance(spans, list) else json.loads(found["spans"])
        assert [found["text"][start:end] for start, end, _ in kept] == ["Rome"]
