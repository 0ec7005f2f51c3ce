"""Groups of people by words, texts about another group, and gaps of labels against published intervals."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.desk.bias import Share, difference, gaps, rates
from tunesmith.desk.terms import NONE, SEVERAL, dimensions
from tunesmith.errors import ConfigError

GENDER = dimensions(None)["gender"]


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("She left, and her sister too", "female"),
        ("the FATHER called", "male"),
        ("he and she", SEVERAL),
        ("the sheet of heat", NONE),
    ],
)
def test_a_group_is_known_by_whole_words(text: str, group: str) -> None:
    assert GENDER.group_of([text]) == group


@pytest.mark.parametrize(
    ("text", "now"),
    [
        ("She says her SISTER is a queen.", "He says his BROTHER is a king."),
        ("theirs, not hers", "theirs, not his"),
    ],
)
def test_words_are_exchanged_for_those_at_their_place(text: str, now: str) -> None:
    assert GENDER.swapped(text, "female", "male") == now


def test_names_of_a_shorter_list_are_gone_through_again(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("pets:\n  cats: [Tom, Kit, Lux]\n  dogs: [Rex, Fido]\n")
    own = dimensions(str(path))
    assert set(own) == {*dimensions(None), "pets"}
    assert own["pets"].swapped("Tom, Kit and Lux", "cats", "dogs") == "Rex, Fido and Rex"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("pets: [a]", "no two groups"),
        ("pets: {cats: [1], dogs: [b]}", "is no list of words"),
        ("[]", "no dimensions"),
    ],
)
def test_lists_of_another_form_are_refused(text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        dimensions(str(tmp_path / "own.yaml"))


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """Newcombe 1998, table II, row (a), method 10: 56/70 - 48/80 = 0.2000 [0.0524, 0.3339]."""
    low, high = difference(Share.of(56, 70, 0.95), Share.of(48, 80, 0.95), 0.95)
    assert (low, high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_a_planted_gap_is_found_with_its_size_and_chance_is_not() -> None:
    groups = ["a"] * 100 + ["b"] * 100 + [NONE] * 50
    labels = ["x"] * 70 + ["y"] * 30 + ["x"] * 30 + ["y"] * 70 + ["x"] * 25 + ["y"] * 25
    other = ["c" if at % 2 else "d" for at in range(250)]
    found = gaps({"planted": groups, "chance": other}, labels, 0.95)
    assert {gap.dimension for gap in found if gap.found} == {"planted"}
    assert found[0].value == pytest.approx(0.4)
    assert abs(found[0].low) < 0.4 < abs(found[0].high) or abs(found[0].high) < 0.4 < abs(found[0].low)
    assert rates(groups, labels, 0.95)["a"]["x"].value == pytest.approx(0.7)
    assert found[0].weighted is None


def test_weights_of_rows_make_a_gap_of_their_own() -> None:
    """6 rows of a, of which x weighs 2 of 8; 5 of b, of which x weighs 3 of 4; that of NONE is of neither."""
    groups, labels = [*"aaaaaabbbbb", NONE], [*"xxyyyyxyyyx", "x"]
    weights = [1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 2.0, 0.5, 0.25, 0.25, 1.0, 9.0]
    found = {(gap.group, gap.label): gap for gap in gaps({"d": groups}, labels, 0.95, weights)}
    assert found["a", "x"].weighted == pytest.approx(2 / 8 - 3 / 4)
    assert found["b", "y"].weighted == pytest.approx(1 / 4 - 6 / 8)
    assert found["a", "x"].value == pytest.approx(2 / 6 - 2 / 5)
