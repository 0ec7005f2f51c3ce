"""Rows that plans make are those that rendering makes; and what cannot be planned is rendered."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.chats import byte_tokenizer, renderer
from tests.data.test_render import CONTENTS
from tunesmith.data.plans import Supervise
from tunesmith.data.render import Renderer
from tunesmith.data.template import apply_choice, choose_template
from tunesmith.errors import RowError
from tunesmith.types import Example, Message, RowRef, TokenRow

PLANNED = ("embedded", "chatml, pad == eos", "chatml, other eos", "llama 3", "gemma", "phi 3")
RENDERED = ("llama 2", "qwen 3", "plain", "plain with bos", "raw")
SUPERVISE: tuple[Supervise, ...] = ("completion", "assistant", "all")
# The end of a turn stands in the piece of the next text.
QUESTIONS = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}<|end|>{% else %}"
    "\nQ: {{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def with_template(template: str) -> Renderer:
    tokenizer = byte_tokenizer(None, "<|end|>")
    tokenizer.chat_template = template
    choice = choose_template(tokenizer, "auto")
    apply_choice(tokenizer, choice)
    return Renderer(tokenizer, choice)


def talk(*contents: str, weights: tuple[float | None, ...] = ()) -> Example:
    roles = ("user", "assistant")
    given = dict(zip(range(1, len(contents), 2), weights, strict=False))
    messages = [Message(roles[i % 2], text, given.get(i)) for i, text in enumerate(contents)]
    return Example(RowRef("rows.jsonl", 7), tuple(messages))


def planned(made: Renderer, example: Example, supervise: Supervise) -> TokenRow | None:
    assert made._plans is not None
    (row,) = made._plans.rows([example], supervise)
    return row


def rendered(made: Renderer, example: Example, supervise: Supervise) -> list[TokenRow] | RowError:
    without = copy.copy(made)
    without._plans = None
    (found,) = without.rows_of([example], supervise)
    return found


MADE = {name: renderer(name) for name in PLANNED} | {"questions": with_template(QUESTIONS)}


@pytest.mark.parametrize("supervise", SUPERVISE)
@pytest.mark.parametrize("name", MADE)
@settings(max_examples=30, deadline=None)  # x 21
@given(
    contents=st.lists(CONTENTS, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0),
    weights=st.lists(st.sampled_from([None, 0.0, 0.5, 1.0]), max_size=3).map(tuple),
)
def test_a_planned_row_is_the_rendered_one(
    name: str, supervise: Supervise, contents: list[str], weights: tuple[float | None, ...]
) -> None:
    made = MADE[name]
    assert planned(made, talk(*["x"] * len(contents), weights=weights), "all") is not None
    example = talk(*contents, weights=weights)
    row = planned(made, example, supervise)
    if row is None:
        return
    (other,) = rendered(made, example, supervise)
    assert row.ref == other.ref
    assert row.segments[0].ids.dtype == other.segments[0].ids.dtype
    assert row.segments[0].weights.dtype == other.segments[0].weights.dtype
    np.testing.assert_array_equal(row.segments[0].ids, other.segments[0].ids)
    np.testing.assert_array_equal(row.segments[0].weights, other.segments[0].weights)


@pytest.mark.parametrize("supervise", SUPERVISE)
@pytest.mark.parametrize("name", MADE)
def test_plain_words_are_planned(name: str, supervise: Supervise) -> None:
    for example in (talk("The end.", "yes"), talk("a", "b", "  c ", "no <", "# d", "é\n")):
        assert planned(MADE[name], example, supervise) is not None


@pytest.mark.parametrize("name", RENDERED)
def test_texts_that_share_a_piece_are_rendered(name: str) -> None:
    """No special token stands between the user's text and the assistant's, or the template asks what a text says."""
    assert planned(renderer(name), talk("a", "b"), "completion") is None
    assert isinstance(rendered(renderer(name), talk("a", "b"), "completion"), list)


def test_rows_planned_and_rendered_keep_their_order() -> None:
    """The second holds a control token, the fourth is wrong, the others are planned."""
    made = renderer("embedded")
    texts = ("one", "<|im_end|>", "two", "a\ufdd0", "three")
    found = made.rows_of([talk(text, "x") for text in texts], "completion")
    said = [
        row.reason if isinstance(row, RowError) else made.tokenizer.decode(row[0].segments[0].ids.tolist())
        for row in found
    ]
    assert said[3] == "special_token_text"
    assert all(text in said[i] for i, text in enumerate(texts) if i != 3)


def test_a_prompt_whose_tokens_change_with_its_turn_is_rendered() -> None:
    """The line end before the answer and those it begins with are one token in the whole text."""
    made = MADE["chatml, other eos"]
    assert planned(made, talk("a", "yes"), "completion") is not None
    assert planned(made, talk("a", "\n\nyes"), "completion") is None
    before = made.split_rows
    (row,) = made.rows(talk("a", "\n\nyes"), "completion")
    assert made.split_rows == before + 1
    prompt = made.prompt_ids([Message("user", "a")])
    assert row.segments[0].ids[: len(prompt)].tolist() == prompt


@pytest.mark.parametrize(
    "user",
    ["<|im_start|>user\n<{{ m['content'] }}<|im_end|>", "<|im_start|>user\n{{ m['content'] }}>\n<|im_end|>"],
    ids=["before", "after"],
)
def test_a_text_that_may_make_a_control_token_with_its_neighbour_is_rendered(user: str) -> None:
    template = (
        f"{{% for m in messages %}}{{% if m['role'] == 'user' %}}{user}{{% else %}}"
        "<|im_start|>{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    assert planned(with_template(template.replace("im_end", "end")), talk("a", "b"), "completion") is None
    fine = template.replace("im_end", "end").replace("\n<{{", "\n{{").replace("}}>\n", "}}\n")
    assert planned(with_template(fine), talk("a", "b"), "completion") is not None


def test_a_plan_that_does_not_make_its_first_row_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made = with_template(QUESTIONS)
    monkeypatch.setattr("tunesmith.data.plans.Planner._tokens_to", lambda *_, **__: 0)
    assert planned(made, talk("a", "b"), "completion") is None
    assert isinstance(made.rows_of([talk("a", "b")], "completion")[0], list)


def test_a_first_row_that_must_be_rendered_says_nothing_of_the_others() -> None:
    made = with_template(QUESTIONS)
    assert planned(made, talk("a", "b", weights=(0.0,)), "completion") is None
    assert planned(made, talk("a", "b"), "completion") is not None


def test_tools_and_what_is_no_conversation_are_rendered() -> None:
    made = renderer("embedded")
    ref = RowRef("rows.jsonl", 7)
    assert planned(made, Example(ref, text="plain"), "all") is None
    assert planned(made, Example(ref, talk("a", "b").messages, tools=({"name": "f"},)), "all") is None
    extra = (Message("user", "a", None, {"name": "x"}), Message("assistant", "b"))
    assert planned(made, Example(ref, extra), "all") is None
    assert planned(made, talk("a", "b", weights=(0.0,)), "completion") is None  # it has nothing to learn
