"""Splits that share nothing, in the proportions asked for, the same for the same seed."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.split import Parts, normalised, prompt_key, split
from tunesmith.errors import DataError
from tunesmith.types import Example, Message, RowRef


def row(text: str, label: str | None = None, answer: str = "a", line: int = 1) -> Example:
    turns = (Message("user", text), Message("assistant", label or answer))
    return Example(RowRef("f", line), turns, label=label)


def parts(
    train: list[Example],
    validation: list[Example] | None = None,
    test: list[Example] | None = None,
    fractions: tuple[float, float] = (0.1, 0.1),
    seed: int = 0,
) -> tuple[Parts, Counter[str]]:
    removed: Counter[str] = Counter()

    def withdraw(example: Example, reason: str, message: str) -> None:
        assert message
        removed[reason] += 1

    made = split(
        train,
        validation,
        test,
        validation_fraction=fractions[0],
        test_fraction=fractions[1],
        seed=seed,
        withdraw=withdraw,
    )
    return made, removed


ROWS = st.lists(
    st.builds(
        row,
        st.integers(0, 60).map(lambda n: ["Text {}", "  text {} ", "TEXT\n{}"][n % 3].format(n // 3)),
        st.sampled_from(["a", "b", "c", "d"]),
    ),
    max_size=60,
)
SOME = [row(f"TEXT {n}", "ab"[n % 2]) for n in range(30)]


def keys(rows: tuple[Example, ...]) -> set[object]:
    return {" ".join(example.prompt[0].content.lower().split()) for example in rows}


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 5))
def test_50_equal_inputs_never_straddle_and_no_row_is_lost(rows: list[Example], seed: int) -> None:
    rows = SOME + rows
    made, removed = parts(rows, seed=seed)
    names = (made.train, made.validation, made.test)
    assert not keys(names[0]) & keys(names[1])
    assert not keys(names[0]) & keys(names[2])
    assert not keys(names[1]) & keys(names[2])
    assert Counter(map(id, rows)) == Counter(map(id, (*names[0], *names[1], *names[2])))
    assert not removed


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, validation=ROWS, test=ROWS)
def test_51_given_files_take_their_rows_out_of_train(
    rows: list[Example], validation: list[Example], test: list[Example]
) -> None:
    rows = [*rows, row("only here", "a"), row("and here", "b")]
    validation = [*validation, row("mine", "a"), row("mine too", "b")]
    test = [*test, row("last", "a"), row("and last", "b")]
    made, removed = parts(rows, validation, test)
    in_test = keys(tuple(test))
    assert made.test == tuple(test)
    assert made.validation == tuple(v for v in validation if not keys((v,)) & in_test)
    taken = in_test | keys(made.validation)
    assert made.train == tuple(r for r in rows if not keys((r,)) & taken)
    assert removed["in_test"] == sum(bool(keys((r,)) & in_test) for r in [*rows, *validation])
    assert removed.total() == len(rows) + len(validation) - len(made.train) - len(made.validation)


def test_the_same_seed_gives_the_same_splits() -> None:
    rows = [row(f"t{i}", "ab"[i % 2]) for i in range(100)]
    assert parts(rows, seed=3)[0] == parts(rows, seed=3)[0]
    assert parts(rows, seed=3)[0] != parts(rows, seed=4)[0]


def test_splits_are_stratified_and_rare_classes_stay_in_train() -> None:
    rows = [row(f"t{i}", f"class {i % 10}") for i in range(1000)] + [
        row(f"r{i}", f"rare {i}") for i in range(30)
    ]
    made, _ = parts(rows, fractions=(0.1, 0.2))
    for name, share in ((made.validation, 10), (made.test, 20)):
        counts = Counter(example.label for example in name)
        assert all(abs(counts[f"class {i}"] - share) <= 1 for i in range(10))
    assert {example.label for example in made.train} == {example.label for example in rows}
    assert not made.unseen_labels


def test_small_classes_together_give_their_share() -> None:
    rows = [row(f"t{i}", f"class {i % 77}") for i in range(77 * 3)]
    made, _ = parts(rows)
    assert (len(made.validation), len(made.test)) == (23, 23)


def test_a_fraction_of_zero_makes_no_split() -> None:
    made, _ = parts([row(f"t{i}") for i in range(20)], fractions=(0, 0))
    assert (len(made.train), made.validation, made.test) == (20, (), ())


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_53_too_few_rows_are_an_error_that_says_what_to_do(count: int) -> None:
    with pytest.raises(DataError, match="at least 2 rows"):
        parts([row(f"t{i}") for i in range(count)])


def test_an_empty_given_split_is_an_error() -> None:
    train = [row(f"t{i}") for i in range(30)]
    with pytest.raises(DataError, match="the test split has 1"):
        parts(train, test=[row("x")])
    with pytest.raises(DataError, match="the train split has 0"):
        parts(train, test=train)


def test_fractions_must_leave_something() -> None:
    with pytest.raises(DataError, match="a sum below 1"):
        parts([row(f"t{i}") for i in range(30)], fractions=(0.5, 0.5))


def test_31_one_class_is_an_error() -> None:
    with pytest.raises(DataError, match="every training row has the label 'a'"):
        parts([row(f"t{i}", "a") for i in range(30)])


def test_32_labels_without_training_rows_are_listed_loudly() -> None:
    train = [row(f"t{i}", "ab"[i % 2]) for i in range(30)]
    made, _ = parts(train, test=[row("x", "zeta"), row("y", "a")])
    assert made.unseen_labels == ("zeta",)
    assert any("zeta" in warning for warning in made.warnings)


def test_repeats_and_conflicts_in_train_are_kept_and_counted() -> None:
    train = [row(f"t{i}", "ab"[i % 2]) for i in range(30)] + [row("T0", "a"), row("t0 ", "b")]
    made, _ = parts(train, fractions=(0, 0))
    assert len(made.train) == 32
    assert made.warnings == (
        "1 of 32 training rows repeat another (kept)",
        "1 training inputs stand with more than one label",
    )


@given(st.text(st.sampled_from("aA. \n\x1c\x07~\xa0éÉe\u0301ßİ")))
def test_normalised_texts_are_in_nfc_without_case_and_white_space(text: str) -> None:
    assert normalised(text) == " ".join(unicodedata.normalize("NFC", text).casefold().split())


def test_10_equal_is_meant_after_normalisation() -> None:
    assert normalised("Cafe\u0301  AU\nlait ") == normalised("café au lait")
    text = Example(RowRef("f", 1), text="A  b")
    assert prompt_key(text) == prompt_key(Example(RowRef("f", 2), text="a b"))
    assert prompt_key(text) != prompt_key(row("a b"))
