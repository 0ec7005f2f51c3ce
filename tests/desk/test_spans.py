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
from tunesmith.desk.make import make, restored
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
