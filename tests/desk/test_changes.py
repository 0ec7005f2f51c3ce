"""Texts said another way: each knob does what it says and no more, and what counts character by character stays."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tunesmith.config.augment import Augment, Eda, Noise
from tunesmith.desk.synthetic.typing import ROWS, mistyped, neighbours
from tunesmith.desk.synthetic.words import lexicon_of, varied
from tunesmith.errors import ConfigError

NO_NOISE = dict.fromkeys(
    ("neighbours", "doubled", "missing", "exchanged", "case", "punctuation", "contractions"), 0.0
)
NO_EDA = dict.fromkeys(("synonyms", "insertions", "swaps", "deletions"), 0.0)
TEXT = "I cannot pay: please send Order-77 to me@shop.example today, it is big!"


def noise(text: str = TEXT, seed: int = 0, **shares: Any) -> str:
    spec = Noise.model_validate({**NO_NOISE, **shares})
    return mistyped(text, spec, neighbours(spec.layout), random.Random(seed))


def eda(text: str = TEXT, seed: int = 0, **shares: Any) -> str:
    spec = Eda.model_validate({**NO_EDA, **shares})
    return varied(text, spec, lexicon_of(spec.lexicon), random.Random(seed))


def test_noise_of_nothing_is_nothing() -> None:
    assert noise() == TEXT


def test_each_kind_of_noise_does_its_own() -> None:
    assert noise("Abc", case=1) == "abc"
    assert noise("a, b. (c)", punctuation=1) == "a b (c)"
    assert noise("I do not know, it's so", contractions=1) == "I dont know, its so"
    assert noise("Do not. CANNOT", contractions=1) == "Dont. Cant"
    assert noise("abc", doubled=1) == "aabbcc"
    assert noise("abc d", missing=1) == " "
    assert noise("abcd e", exchanged=1) == "badc e"
    beside = neighbours("qwerty")
    slipped = noise("hello", neighbours=1)
    assert all(new in beside[old] for old, new in zip("hello", slipped, strict=True))


def test_numbers_and_addresses_are_not_mistyped() -> None:
    out = noise(seed=3, missing=1, punctuation=1)
    assert out.split() == ["Order-77", "me@shop.example"]


@pytest.mark.parametrize("layout", ROWS)
def test_keys_that_touch_are_neighbours_of_one_another(layout: str) -> None:
    beside = neighbours(layout)
    assert set(beside) == set("abcdefghijklmnopqrstuvwxyz")
    assert all(letter in beside[other] for letter, near in beside.items() for other in near)
    assert all(letter not in near for letter, near in beside.items())
    if layout == "qwerty":
        assert set(beside["g"]) == set("ftyhbv")


def test_shares_of_noise_are_shares() -> None:
    text = " ".join(["abcdefgh"] * 500)
    for name in ("neighbours", "doubled", "missing"):
        out = noise(text, **{name: 0.1})
        changed = {
            "neighbours": sum(a != b for a, b in zip(text, out, strict=False)),
            "doubled": len(out) - len(text),
            "missing": len(text) - len(out),
        }[name]
        assert 330 <= changed <= 470, name  # 4,000 letters: 400, four standard errors are 76


def test_each_operation_on_words_does_its_own() -> None:
    words = TEXT.split()
    assert eda() == TEXT
    assert Counter(eda(swaps=0.3).split()) == Counter(words)
    assert eda(swaps=0.3) != TEXT
    fewer = Counter(eda(deletions=0.3, seed=1).split())
    assert sum(fewer.values()) == len(words) - round(0.3 * len(words))
    assert fewer <= Counter(words)
    more = Counter(eda(insertions=0.2).split())
    added = more - Counter(words)
    others = {other for word in words for other in lexicon_of(None).get(word.strip(":,!").lower(), ())}
    assert sum(added.values()) == round(0.2 * len(words))
    assert set(added) <= others


def test_synonyms_keep_case_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("big, large\n")
    assert eda("Big, BIG (big) bigger", synonyms=1, lexicon=str(path)) == "Large, LARGE (large) bigger"
    path.write_text("big\n")
    with pytest.raises(ConfigError, match=r"lexicon\.txt:1: 'big'"):
        lexicon_of(str(path))
    with pytest.raises(ConfigError, match="not-there"):
        lexicon_of("not-there")


def test_codes_are_neither_replaced_nor_left_out() -> None:
    for seed in range(20):
        assert {"Order-77", "me@shop.example"} <= set(eda(seed=seed, deletions=0.9).split())


@given(st.text(max_size=60), st.integers(0, 5))
def test_any_text_can_be_varied(text: str, seed: int) -> None:
    noise(text, seed, neighbours=0.3, doubled=0.2, missing=0.2, exchanged=0.3, case=0.5, contractions=1)
    out = eda(text, seed, synonyms=0.3, insertions=0.3, swaps=0.3, deletions=0.9)
    assert bool(out.split()) == bool(text.split())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "noise", **NO_NOISE}, "noise with every share 0"),
        ({"kind": "eda", **NO_EDA}, "eda with every share 0"),
        ({"kind": "noise", "missing": 0.6, "doubled": 0.6}, "sum to 1.23"),
        ({"kind": "back_translation"}, "asks a model, and none is named"),
        ({"kind": "back_translation", "function": "f"}, "match"),
    ],
)
def test_what_changes_nothing_or_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Augment.model_validate({"data": {"train": ["a.jsonl"]}, "changes": [change]})
