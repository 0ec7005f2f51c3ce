"""What is offered to each anchor, and what TF-IDF makes of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from tunesmith.evaluate.baselines import BASELINES
from tunesmith.evaluate.ranking import Offered, tfidf_ranking
from tunesmith.scoring import score
from tunesmith.types import Example, Message, RowRef


def pair(anchor: str, positive: str, *negatives: str) -> Example:
    turns = (Message("user", anchor), Message("assistant", positive))
    return Example(RowRef("f", 1), turns, negatives=negatives)


def test_an_anchor_is_offered_neither_itself_nor_what_belongs_to_its_twin() -> None:
    rows = [pair("a", "x", "z"), pair("a", "y"), pair("x", "w", "z")]
    offered = Offered.of(rows)
    assert offered.texts == ("x", "z", "y", "w")
    assert offered.barred == ((2,), (0,), (0,))
    likeness = np.tile([4.0, 3.0, 2.0, 1.0], (3, 1))
    ranked = [json.loads(r) for r in offered.ranked(lambda rows: likeness[rows])]
    assert ranked == [["x", "z", "w"], ["z", "y", "w"], ["z", "y", "w"]]


def test_an_anchor_is_not_offered_what_belongs_to_others_of_its_class() -> None:
    rows = [replace(pair(a, p), label=c) for a, p, c in (("a", "b", "x"), ("b", "a", "x"), ("c", "d", "y"))]
    offered = Offered.of(rows)
    assert offered.texts == ("b", "a", "d")
    assert offered.barred == ((1,), (0,), ())


def test_tfidf_ranks_by_shared_words() -> None:
    rows = [
        pair("open the red door", "the red door opens inward"),
        pair("feed the cat", "a cat eats at noon"),
    ]
    test = [pair("where is the cat", "the cat sleeps"), pair("paint a door", "a door needs two coats")]
    (baseline,) = BASELINES["ranking"]
    said = baseline.answer(rows, test)
    assert score("ranking", [e.answer for e in test], said).metrics["recall_at_1"] == 1.0
    assert (
        tfidf_ranking(["!"], ["?"], ["!", "?"], Offered.of([pair("!", "."), pair("?", ",")]))
        == ['[".", ","]'] * 2
    )


def test_many_anchors_are_ranked_a_part_at_a_time() -> None:
    rows = [pair(f"a{i}", f"b{i}") for i in range(1100)]
    offered = Offered.of(rows)
    eye = np.eye(1100)
    assert [json.loads(r)[0] for r in offered.ranked(lambda part: eye[part])] == [
        f"b{i}" for i in range(1100)
    ]
