"""Judged rows as trees: the prompt of serving once, each completion as the template writes it in its conversation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.chats import STYLES, renderer
from tests.data.test_render import CONTENTS, conversations
from tunesmith.data.account import Account
from tunesmith.data.tokens import preview
from tunesmith.data.trees import longest_path, tokenise_trees, trees_of
from tunesmith.errors import RowError
from tunesmith.types import Completion, Example, Message, RowRef, TokenRow

U = Message("user", "How long?")


def judged(
    answers: dict[str, float], prompt: tuple[Message, ...] = (U,), line: int = 1, margin: float | None = None
) -> Example:
    completions = tuple(Completion(Message("assistant", text), score) for text, score in answers.items())
    best = max(completions, key=lambda completion: completion.score)
    return Example(RowRef("f", line), (*prompt, best.message), completions=completions, margin=margin)


def tree(name: str, example: Example) -> TokenRow:
    (row,) = trees_of(renderer(name), [example])
    assert isinstance(row, TokenRow), row
    return row


@pytest.mark.parametrize("name", STYLES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_path_is_the_conversation_as_supervised_learning_has_it(name: str, data: st.DataObject) -> None:
    """Of every completion, for every family of templates; and the root is what serving gives."""
    made = renderer(name)
    prompt = data.draw(conversations(STYLES[name].system))[:-1]
    answers = data.draw(st.lists(CONTENTS, min_size=1, max_size=4, unique=True))
    row = tree(name, judged({text: float(n) for n, text in enumerate(answers)}, prompt))
    root, *leaves = row.segments
    assert root.ids.tolist() == made.prompt_ids(prompt)
    assert not root.weights.any()
    assert [leaf.parent for leaf in leaves] == [0] * len(answers)
    for answer, leaf in zip(answers, leaves, strict=True):
        alone = made.rows(Example(RowRef("f", 1), (*prompt, Message("assistant", answer))), "completion")[-1]
        whole = alone.segments[0].ids.tolist()
        end = len(whole) - whole[::-1].index(made.end_ids[0])
        assert root.ids.tolist() + leaf.ids.tolist() == whole[:end]
        assert (leaf.weights == 1).all()
    assert row.given["scores"].tolist() == [float(n) for n in range(len(answers))]
    assert row.given["scores"].dtype == "float64"


@pytest.mark.parametrize("name", ["embedded", "chatml, other eos", "llama 3", "phi 3"])
def test_a_path_is_what_the_template_writes(name: str) -> None:
    """Held to the tokenizer's own rendering of each whole conversation, up to its end token."""
    made = renderer(name)
    prompt = (Message("user", "Hi"), Message("assistant", "Hello."), U)
    row = tree(name, judged({"Two days.": 1.0, " Soon, I hope\n": 0.0}, prompt))
    root, *leaves = row.segments
    for completion, leaf in zip(("Two days.", " Soon, I hope\n"), leaves, strict=True):
        chat = [m.for_template() for m in (*prompt, Message("assistant", completion))]
        text: Any = made.tokenizer.apply_chat_template(chat, tokenize=False)
        whole = made.tokenizer(text, add_special_tokens=False)["input_ids"]
        end = len(whole) - whole[::-1].index(made.end_ids[0])
        assert root.ids.tolist() + leaf.ids.tolist() == whole[:end]


def test_an_answer_that_would_merge_with_its_prompt_is_encoded_by_itself() -> None:
    made = renderer("raw")
    for text in ("n", "n fox"):  # would be one token with the end of the prompt
        row = tree("raw", judged({text: 1.0}, (Message("user", "the quick brow"),)))
        root, leaf = row.segments
        assert root.ids.tolist() == made.prompt_ids([Message("user", "the quick brow")])
        assert made.tokenizer.decode(leaf.ids) == f"{text}</s>"


def test_the_margin_comes_along_and_a_row_that_cannot_be_rendered_is_its_error() -> None:
    made = renderer("llama 2")
    system = (Message("system", "S"), U)
    rows = trees_of(made, [judged({"a": 1, "b": 0}, margin=0.5), judged({"a": 1, "b": 0}, system, line=9)])
    assert isinstance(rows[0], TokenRow)
    assert rows[0].given["margin"].tolist() == [0.5]
    assert isinstance(rows[1], RowError)
    assert (rows[1].reason, rows[1].line) == ("template_refuses", 9)


# Length ----------------------------------------------------------------------------------------------


def tokenised(
    examples: list[Example], limit: int, mode: Any, name: str = "llama 3"
) -> tuple[list[TokenRow], Account]:
    account = Account("skip")
    for example in examples:
        account.read(example.ref.file)
        account.use(example.ref.file)
    rows = tokenise_trees(examples, renderer(name), limit, mode, account)
    summary = account.summary()
    assert summary["read"] == summary["used"] + sum(summary["dropped"].values())
    assert summary["used"] == len(rows)
    return rows, account


def test_a_row_is_as_long_as_its_longest_path() -> None:
    example = judged({"yes " * 10: 1.0, "no " * 20: 0.0, "The end.": 0.0})
    (whole,), _ = tokenised([example], 10_000, "drop")
    size = longest_path(whole)
    assert size == max(len(whole.segments[0].ids) + len(leaf.ids) for leaf in whole.segments[1:])
    assert size < whole.num_tokens
    for mode in ("drop", "cut"):
        assert len(tokenised([example], size, mode)[0]) == 1
    rows, account = tokenised([example], size - 1, "drop")
    assert (rows, account.summary()["dropped"]) == ([], {"too_long": 1})


def test_the_start_of_the_prompt_is_cut_and_its_begin_token_stays() -> None:
    example = judged({"yes " * 10: 1.0, "no": 0.0})
    (whole,), _ = tokenised([example], 10_000, "drop")
    for less in (1, 5, len(whole.segments[0].ids) - 2):
        (row,), account = tokenised([example], longest_path(whole) - less, "cut")
        root, *leaves = (segment.ids.tolist() for segment in row.segments)
        full, *answers = (segment.ids.tolist() for segment in whole.segments)
        assert root == full[:1] + full[1 + less :]
        assert leaves == answers
        assert longest_path(row) == longest_path(whole) - less
        assert +account.notes == {"prompt_cut": 1}
    (row,), account = tokenised([example], 100, "cut", "embedded")  # without a begin token
    assert not +account.notes


def test_only_answers_that_do_not_fit_alone_lose_their_end() -> None:
    example = judged({"yes " * 10: 1.0, "no": 0.0})
    (whole,), _ = tokenised([example], 10_000, "drop")
    full, *answers = (segment.ids.tolist() for segment in whole.segments)
    (row,), account = tokenised([example], 7, "cut")
    root, *leaves = (segment.ids.tolist() for segment in row.segments)
    assert root == [full[0], full[-1]]
    assert leaves == [answers[0][:5], answers[1][:5]]
    assert +account.notes == {"prompt_cut": 1, "answer_cut": sum(len(ids) > 5 for ids in answers)}


# Shown -----------------------------------------------------------------------------------------------


def test_a_person_sees_the_prompt_and_each_answer_with_its_score() -> None:
    row = tree("embedded", judged({"Two days.": 4.5, "Soon.": -1.0}, margin=0.5))
    assert str(preview(renderer("embedded"), row)) == (
        "<|im_start|>user\nHow long?<|im_end|>\n<|im_start|>assistant\n"
        "\n\nscore 4.5: [[Two days.<|im_end|>]]\n\nscore -1: [[Soon.<|im_end|>]]\n\nmargin 0.5"
    )
