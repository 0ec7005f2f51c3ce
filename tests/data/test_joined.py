"""Answers to one prompt, judged one by one, as one row that compares them; every row accounted for."""

from __future__ import annotations

from dataclasses import replace

from tests.data.test_trees import U, judged
from tunesmith.data.account import Account
from tunesmith.data.joined import joined
from tunesmith.types import Example, Message

V = Message("user", "How long? ")  # not the same prompt to the letter


def run(examples: list[Example], copies: dict[int, int] | None = None) -> tuple[tuple[Example, ...], Account]:
    account = Account("skip")
    for _ in {example.ref for example in examples}:
        account.read("f")
        account.use("f")
    for line, times in (copies or {}).items():
        account.repeat(next(e.ref for e in examples if e.ref.line == line), times)
    return joined(examples, account), account


def test_ratings_of_one_prompt_become_one_ranking() -> None:
    rows = [
        judged({"A": 3.0}, line=1),
        judged({"X": 5.0}, (V,), line=2),
        judged({"B": 4.0}, line=3),
        judged({"Y": 1.0}, (V,), line=4),
        judged({"C": 3.0}, line=5),
    ]
    made, account = run(rows)
    assert made == (
        replace(judged({"A": 3.0, "B": 4.0, "C": 3.0}, line=1)),
        replace(judged({"X": 5.0, "Y": 1.0}, (V,), line=2)),
    )
    assert made[0].answer == "B"
    assert account.summary() | {"files": {}} == {
        "files": {}, "read": 5, "used": 5, "dropped": {}, "notes": {"joined": 3},
    }  # fmt: skip


def test_an_answer_judged_twice_has_the_mean() -> None:
    made, account = run(
        [judged({text: score}, line=n) for n, (text, score) in enumerate([("A", 1), ("B", 2), ("A", 4)])]
    )
    assert [(c.message.content, c.score) for c in made[0].completions] == [("A", 2.5), ("B", 2.0)]
    assert account.notes["scores_averaged"] == 2


def test_rows_that_compare_nothing_are_withdrawn_and_rows_that_compare_are_left() -> None:
    pair = judged({"A": 1.0, "B": 0.0}, line=1)
    tools = replace(judged({"C": 9.0}, line=6), tools=({"name": "f"},))
    rows = [
        pair,
        judged({"A": 2.0}, line=2),
        judged({"B": 2.0}, line=3),
        judged({"A": 2.0}, (V,), line=4),
        judged({"A": 3.0}, (V,), line=5),
        tools,
    ]
    made, account = run(rows)
    assert made == (pair,)
    assert account.summary()["dropped"] == {"all_tied": 2, "alone_with_its_prompt": 3}
    assert account.summary()["used"] == 1


def test_what_is_withdrawn_later_takes_the_joined_rows_with_it() -> None:
    made, account = run([judged({"A": 1.0}, line=1), judged({"B": 0.0}, line=2)])
    account.withdraw(made[0].ref, "too_long", "9 tokens")
    summary = account.summary()
    assert (summary["used"], summary["dropped"], +account.notes) == (0, {"too_long": 2}, {})


def test_a_repeated_row_stands_as_often_as_its_first() -> None:
    a, b = judged({"A": 1.0}, line=1), judged({"B": 0.0}, line=2)
    made, account = run([a, b, b, a, b], {1: 1, 2: 2})
    assert made == (judged({"A": 1.0, "B": 0.0}, line=1),) * 2
    assert account.summary()["notes"] == {"repeated": 1, "joined": 1}
    for _ in made:
        account.withdraw(made[0].ref, "too_long", "9 tokens")
    assert account.summary()["dropped"] == {"too_long": 2}
    _, account = run([a, b, b, a, b, judged({"C": 1.0}, (U, V), line=3)][:4:3], {1: 1})
    assert account.summary()["dropped"] == {"alone_with_its_prompt": 1}
