"""Stepwise rows: how they are spelled, what is refused, and where in a token row the end of a step is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.chats import STYLES, renderer
from tests.data.spellings import USER, S, U
from tests.data.test_judgements import jsonl, read
from tests.data.test_pair_rows import WORDPIECE
from tunesmith.config.run import DataConfig
from tunesmith.core.batch import Batch
from tunesmith.data.account import Account
from tunesmith.data.encode import encode
from tunesmith.data.flat import FlatExamples, flat_examples
from tunesmith.data.inputs import scored_mapping, to_scored
from tunesmith.data.load import load_splits
from tunesmith.data.pair_rows import CompletionsEncoder
from tunesmith.data.steps import steps_of
from tunesmith.data.tokens import preview
from tunesmith.data.trees import longest_path, tokenise_trees, trees_of
from tunesmith.errors import DataError, RowError
from tunesmith.types import Completion, Example, Message, RowRef, TokenRow

NAN = float("nan")
ROW: dict[str, Any] = {"prompt": "Q", "completions": ["2 + 2 = 4.", "So 5."], "labels": [True, False]}
READ = [("2 + 2 = 4.\n", 1.0), ("So 5.\n", 0.0)]

SPELLINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "TRL stepwise": (ROW, {}),
    "words": (ROW | {"labels": ["good", "NO"]}, {}),
    "numbers": (ROW | {"labels": [1, 0.0]}, {}),
    "their own ends": (ROW | {"completions": ["2 + 2 = 4.\n", "So 5.\n"]}, {}),
    "messages": ({"messages": [USER], "steps": ROW["completions"], "labels": [1, 0]}, {}),
    "steps that are messages": (
        ROW | {"completions": [{"role": "assistant", "content": text} for text in ROW["completions"]]}, {}),
    "objects": (
        {"question": "Q", "steps": [{"text": "2 + 2 = 4.", "label": True}, {"text": "So 5.", "label": 0}]}, {}),
    "named columns": (
        {"ask": "Q", "parts": ROW["completions"], "said": [1, 0]},
        {"columns": {"prompt": "ask", "completions": "parts", "labels": "said"}}),
    "lists as JSON": (
        {"prompt": "Q", "completions": json.dumps(ROW["completions"]), "labels": "[true, false]"}, {}),
}  # fmt: skip


def said(example: Example) -> list[tuple[str, float]]:
    return [(c.message.content, c.score) for c in example.completions]


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_is_read_as_what_it_means(tmp_path: Path, name: str) -> None:
    row, config = SPELLINGS[name]
    for format in ("judged", "stepwise"):
        (example,), mapping, _ = read(jsonl(tmp_path, [row]), format=format, **config)
        assert (mapping.kind, example.prompt, example.stepwise) == ("stepwise", (U,), True)
        assert said(example) == READ
        assert example.answer == "2 + 2 = 4.\nSo 5."


def test_soft_labels_and_steps_that_nobody_judged(tmp_path: Path) -> None:
    row = {"system": "S", "prompt": "Q", "steps": [" A ", "B", "C"], "labels": [0.25, None, "0.5"]}
    (example,), _, _ = read(jsonl(tmp_path, [row]))
    assert example.prompt == (S, U)
    assert repr(said(example)) == repr([("A ", 0.25), ("B\n", NAN), ("C\n", 0.5)])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no_steps": (ROW | {"completions": [], "labels": []}, "field 'completions': an empty list"),
    "empty_step": (ROW | {"completions": ["A", " \n"]}, r"field 'completions\[1\]': nothing in it"),
    "not_a_string": (ROW | {"completions": ["A", 3]}, "int '3'"),
    "lengths_differ": (ROW | {"labels": [True]}, "1 labels of 2 steps"),
    "no_labels": (ROW | {"labels": [None, None]}, "none of 2 steps has a label"),
    "bad_label": (ROW | {"labels": [True, "perhaps"]}, r"field 'labels\[1\]': 'perhaps' is no verdict on a step"),
    "not_a_list": (ROW | {"labels": {"0": True}}, "a dict, not a list"),
    "prompt_has_answer": (
        ROW | {"prompt": [USER, {"role": "assistant", "content": "A"}]}, "ends on the assistant's turn"),
    "empty_prompt": (ROW | {"prompt": " "}, "field 'prompt': nothing in it"),
    "missing_field": (ROW | {"labels": None}, "field 'labels': null"),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_a_row_that_cannot_be_used_is_dropped_by_its_reason(tmp_path: Path, reason: str) -> None:
    row, message = REFUSED[reason]
    path = jsonl(tmp_path, [row, ROW])
    examples, _, account = read(path, format="stepwise")
    assert len(examples) == 1
    assert account.summary()["dropped"] == {reason: 1}
    with pytest.raises(DataError, match=message):
        load_splits(DataConfig(train=[path], format="stepwise", on_bad_row="stop"), 0, tmp_path)


@pytest.mark.parametrize("label", [2, -1, "NaN", "inf", -0.1, [True], {}, ""])
def test_a_label_is_a_verdict_or_a_number_from_0_to_1(tmp_path: Path, label: object) -> None:
    _, _, account = read(jsonl(tmp_path, [ROW | {"labels": [True, label]}, ROW]), format="stepwise")
    assert account.summary()["dropped"] == {"bad_label": 1}


def test_supervised_learning_refuses_steps_and_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="these are stepwise rows") as found:
        read(jsonl(tmp_path, [ROW]), format="auto")
    assert "method.type=stepwise" in str(found.value)


def test_steps_to_be_scored_need_no_labels(tmp_path: Path) -> None:
    trained = DataConfig(format="stepwise")
    row = {"prompt": "Q", "completions": ["A", "B"]}
    found = to_scored(scored_mapping([row], trained, "f"), row, RowRef("f", 1))
    assert repr(said(found)) == repr([("A\n", NAN), ("B\n", NAN)])
    with pytest.raises(DataError, match="no steps to be scored among prompt, completion"):
        scored_mapping([{"prompt": "Q", "completion": "A"}], trained, "f")
    with pytest.raises(RowError, match="an empty list"):
        to_scored(scored_mapping([row], trained, "f"), row | {"completions": []}, RowRef("f", 1))


# Token rows ----------------------------------------------------------------------------------------------


def stepwise(steps: Sequence[str], labels: Sequence[float], prompt: str = "Q") -> Example:
    texts = steps_of(steps)
    completions = tuple(
        Completion(Message("assistant", text), label) for text, label in zip(texts, labels, strict=True)
    )
    answer = Message("assistant", "".join(texts).rstrip())
    return Example(RowRef("f", 1), (Message("user", prompt), answer), completions=completions, stepwise=True)


STEPS = ("Two and two are 4.", "Times 3 is 12.", "So the answer is 12.")


def account_of_one() -> Account:
    account = Account("skip")
    account.read("f")
    account.use("f")
    return account


def tree(name: str, example: Example) -> TokenRow:
    (row,) = trees_of(renderer(name), [example])
    assert isinstance(row, TokenRow), row
    return row


@pytest.mark.parametrize("name", STYLES)
def test_each_step_continues_the_one_before_and_its_last_token_has_the_label(name: str) -> None:
    made = renderer(name)
    row = tree(name, stepwise(STEPS, [1.0, NAN, 0.0]))
    root, *steps = row.segments
    prompt = made.prompt_ids([Message("user", "Q")])
    assert root.ids.tolist()[: len(prompt)] == prompt
    assert [segment.parent for segment in row.segments] == [-1, 0, 1, 2]
    assert row.completions == [1, 2, 3]
    for step, text, label in zip(steps, STEPS, (1.0, NAN, 0.0), strict=True):
        assert made.tokenizer.decode(step.ids).strip() == text
        assert step.weights.tolist() == [0.0] * (len(step.ids) - 1) + [float(label == label)]
    assert longest_path(row) == row.num_tokens


@pytest.mark.parametrize("name", STYLES)
def test_what_follows_a_step_does_not_change_it(name: str) -> None:
    whole = tree(name, stepwise(STEPS, [1.0, 1.0, 0.0]))
    for count in (1, 2):
        part = tree(name, stepwise(STEPS[:count], [1.0] * count))
        assert [s.ids.tolist() for s in part.segments] == [
            s.ids.tolist() for s in whole.segments[: count + 1]
        ]


def test_completions_of_a_batch_are_the_steps_of_its_rows() -> None:
    """Also where rows begin alike and what they share stands once."""
    rows = [tree("embedded", stepwise(STEPS, [1.0, 0.0, 0.0])), tree("embedded", stepwise(STEPS[:1], [1.0]))]
    for share in (True, False):
        batch = Batch.from_rows(rows, share=share)
        assert batch.completions_of_rows == [3, 1]
        ends = [batch.layout.path_tokens(segment) for segment in batch.completions]
        for end, (row, count) in zip(ends, [(0, 1), (0, 2), (0, 3), (1, 1)], strict=True):
            ids = np.concatenate([segment.ids for segment in rows[row].segments[: count + 1]])
            assert batch.input_ids[end].tolist() == ids.tolist()
    assert bool(Batch.from_rows(rows).shared)


def test_steps_that_do_not_fit_are_left_out_and_counted() -> None:
    made, account = renderer("embedded"), account_of_one()
    example = stepwise(STEPS, [1.0, NAN, 0.0])
    root, *steps = tree("embedded", example).segments
    limit = 1 + sum(len(step.ids) for step in steps[:2])
    (row,) = tokenise_trees([example], made, limit, "cut", account)
    assert [segment.ids.tolist() for segment in row.segments] == [
        root.ids.tolist()[-1:],
        *(step.ids.tolist() for step in steps[:2]),
    ]
    assert repr(row.given["scores"].tolist()) == repr([1.0, NAN])
    assert row.given["left_out"].tolist() == [1.0]
    assert account.notes["steps_left_out"] == account.notes["prompt_cut"] == 1
    assert "score 1: " in str(preview(made, row))
    for labels in ([NAN, NAN, 0.0], [1.0, 1.0, 1.0]):  # no label is left; not even a step is
        limit = limit if labels[0] != 1.0 else 4
        assert not tokenise_trees([stepwise(STEPS, labels)], made, limit, "cut", account_of_one())
    (found,) = trees_of(made, [example], 4)
    assert isinstance(found, RowError)
    assert found.reason == "too_long"


def test_an_encoder_reads_the_answer_up_to_the_end_of_each_step() -> None:
    encoder = CompletionsEncoder(WORDPIECE)
    example = stepwise(STEPS[:2], [1.0, 0.0], "one two three")
    row = encoder.row(example)
    stock = [WORDPIECE("one two three", " ".join(STEPS[:count]))["input_ids"] for count in (1, 2)]
    assert [segment.ids.tolist() for segment in row.segments] == stock
    assert row.given["scores"].tolist() == [1.0, 0.0]
    account = account_of_one()
    (cut,) = encode([example], encoder, len(stock[0]), "cut", account)
    assert [segment.ids.tolist() for segment in cut.segments] == stock[:1]
    assert account.notes["steps_left_out"] == 1
    assert not encode([example], encoder, 6, "cut", account_of_one())
    assert not encode([stepwise(STEPS[:2], [NAN, 0.0])], encoder, len(stock[0]), "cut", account_of_one())


def test_examples_are_kept_as_they_are() -> None:
    example = stepwise(STEPS, [1.0, NAN, 0.25])
    arrays = flat_examples([example], {"f": 0})
    (kept,) = FlatExamples(arrays, ["f"])
    assert repr(kept) == repr(example)


def test_a_person_sees_that_a_steps_last_token_alone_is_learned_from() -> None:
    made = renderer("embedded")
    row = tree("embedded", stepwise(["3 * 4 is 12.", "So it is 14."], [1.0, NAN]))
    prompt, first, second = (made.tokenizer.decode(segment.ids.tolist()) for segment in row.segments)
    last = made.tokenizer.decode(row.segments[1].ids.tolist()[-1:])
    assert 0 < len(last) < len(first)
    shown = f"{prompt}\n\nscore 1: {first[: -len(last)]}[[{last}]]\n\nscore nan: {second}"
    assert str(preview(made, row)) == shown
