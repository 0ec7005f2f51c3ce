"""What benchmarks plant, and how they count it: the numbers that pages quote are these."""

from __future__ import annotations

from collections import Counter

from tests.benchmarks import script

label_errors = script("label_errors")
synthetic = script("synthetic")


def test_as_many_labels_are_flipped_as_are_said_and_each_to_another() -> None:
    rows = [{"text": str(at), "label": "abcd"[at % 4]} for at in range(200)]
    flipped, wrong = label_errors.flip(rows, 0.05, seed=1)
    differ = {at for at in range(200) if flipped[at]["label"] != rows[at]["label"]}
    assert differ == wrong
    assert len(wrong) == 10
    assert [row["text"] for row in flipped] == [row["text"] for row in rows]
    assert label_errors.flip(rows, 0.05, seed=1) == (flipped, wrong) != label_errors.flip(rows, 0.05, seed=2)


def test_recovered_is_the_share_of_the_loss() -> None:
    assert label_errors.recovered({"clean": 0.9, "flipped": 0.8, "reviewed": 0.875}) == 0.75


def test_seeds_are_drawn_evenly_over_labels() -> None:
    rows = [{"text": str(at), "label": "a" if at < 40 else "bc"[at % 2]} for at in range(60)]
    found = synthetic.drawn(rows, 12, seed=0)
    assert Counter(row["label"] for row in found) == {"a": 4, "b": 4, "c": 4}
    assert len({row["text"] for row in found}) == 12
    assert found == synthetic.drawn(rows, 12, seed=0) != synthetic.drawn(rows, 12, seed=1)
