"""Ids and loss masks, against the template's own rendering and the texts that went in."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.chats import CHATML, LLAMA3, STYLES, byte_tokenizer, piece_tokenizer, renderer
from tunesmith.data.render import MAX_TURNS, Renderer
from tunesmith.data.template import NEW_END, TemplateChoice, apply_choice, choose_template
from tunesmith.errors import ConfigError, DataError, ModelError, RowError
from tunesmith.types import Example, Message, RowRef, TokenRow

REF = RowRef("rows.jsonl", 7)
EVERY = pytest.mark.parametrize("name", STYLES)

WORDS = [
    "yes",
    "no",
    "é",
    "日本",
    "🙂",
    " ",
    "\n",
    "\n\n",
    "<think>",
    "# a",
    "The end.",
    "<|im_end|>",
    "</s>",
    "[INST]",
]
CONTENTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map("".join).filter(str.strip)


@st.composite
def conversations(draw: st.DrawFn, system: bool = True) -> tuple[Message, ...]:
    turns = draw(st.integers(1, 3))
    messages = [Message("system", draw(CONTENTS))] if system and draw(st.booleans()) else []
    for _ in range(turns):
        messages += [Message("user", draw(CONTENTS)), Message("assistant", draw(CONTENTS))]
    return tuple(messages)


def chat(*contents: str, weight: float | None = None) -> Example:
    roles = ("user", "assistant")
    return Example(
        REF, tuple(Message(roles[i % 2], text, weight if i % 2 else None) for i, text in enumerate(contents))
    )


def supervised(row: TokenRow) -> list[list[int]]:
    """Runs of supervised ids."""
    (segment,) = row.segments
    runs: list[list[int]] = []
    before = False
    for token, weight in zip(segment.ids.tolist(), segment.weights.tolist(), strict=True):
        if weight > 0:
            runs = [*runs, [token]] if not before else [*runs[:-1], [*runs[-1], token]]
        before = weight > 0
    return runs


def expected_text(name: str, content: str, made: Renderer) -> str:
    style = STYLES[name]
    return style.before + (content.strip() if style.trims else content) + style.after + style.end


@EVERY
@settings(max_examples=91, deadline=None)  # x 11 templates: a thousand conversations
@given(data=st.data())
def test_what_is_supervised_is_what_the_assistant_says_and_its_end(name: str, data: st.DataObject) -> None:
    made, style = renderer(name), STYLES[name]
    messages = data.draw(conversations(style.system))
    if "qwen" in name:  # its template rewrites thinking inside a turn: see the test of its own
        messages = tuple(Message(m.role, m.content.replace("<think>", "")) for m in messages)
        messages = tuple(Message(m.role, m.content if m.content.strip() else "x") for m in messages)
    example = Example(REF, messages)
    answers = [m.content for m in messages if m.role == "assistant"]
    decoded = [
        made.tokenizer.decode(ids) for row in made.rows(example, "assistant") for ids in supervised(row)
    ]
    wanted = [expected_text(name, answer, made) for answer in answers]
    if name == "raw":  # an answer follows its prompt with nothing between
        assert "".join(decoded) == "".join(wanted)
    elif style.make is not None and "Metaspace" in str(made.tokenizer.backend_tokenizer.pre_tokenizer):
        # This tokenizer's decoder drops the space that a decoded text begins with.
        assert [text.strip(" ") for text in decoded] == [text.strip(" ") for text in wanted]
    else:
        assert decoded == wanted


@EVERY
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_row_begins_with_exactly_the_prompt_of_serving(name: str, data: st.DataObject) -> None:
    made = renderer(name)
    example = Example(REF, data.draw(conversations(STYLES[name].system)))
    prompt = made.prompt_ids(example.prompt)
    for supervise in ("completion", "assistant"):
        row = made.rows(example, supervise)[-1]
        assert row.segments[0].ids[: len(prompt)].tolist() == prompt
        assert row.segments[0].weights[len(prompt)] > 0
        assert row.segments[0].weights[0] == 0


@EVERY
def test_ids_are_those_of_apply_chat_template(name: str) -> None:
    made = renderer(name)
    example = chat("Is it on?", "yes, it is", "And then?", "The end.")
    messages = [m.for_template() for m in example.messages]
    theirs = made.tokenizer.apply_chat_template(messages, return_dict=False)
    prompt = made.tokenizer.apply_chat_template(messages[:3], add_generation_prompt=True, return_dict=False)
    assert made.prompt_ids(example.prompt) == prompt
    bos = made.tokenizer.bos_token_id
    ours = [row.segments[0].ids.tolist() for row in made.rows(example, "assistant")]
    if not STYLES[name].splits:
        assert ours == [theirs]
        assert ours[0].count(bos) == theirs.count(bos)
    if name in ("llama 3", "gemma", "plain with bos", "raw"):
        assert theirs.count(bos) == 1
        assert theirs[0] == bos


@EVERY
def test_the_end_token_is_supervised_and_nothing_after_it(name: str) -> None:
    made = renderer(name)
    for row in made.rows(chat("Is it on?", "yes", "And then?", "no"), "assistant"):
        for ids in supervised(row):
            assert ids[-1] == made.end_ids[0] == made.tokenizer.convert_tokens_to_ids(STYLES[name].end)
            assert ids.count(made.end_ids[0]) == 1


def test_an_end_that_is_also_the_padding_is_supervised() -> None:
    made = renderer("chatml, pad == eos")
    assert made.tokenizer.pad_token_id == made.tokenizer.eos_token_id == made.end_ids[0]
    assert supervised(made.rows(chat("a", "b"), "completion")[0])[0][-1] == made.tokenizer.pad_token_id


def test_supervise_chooses_the_turns() -> None:
    made, example = renderer("embedded"), chat("a", "first", "b", "second")
    texts = {
        how: [made.tokenizer.decode(ids) for ids in supervised(made.rows(example, how)[0])]  # type: ignore[arg-type]
        for how in ("completion", "assistant", "all")
    }
    assert texts["completion"] == ["second<|im_end|>"]
    assert texts["assistant"] == ["first<|im_end|>", "second<|im_end|>"]
    (row,) = made.rows(example, "all")
    assert row.num_supervised == row.num_tokens - 1


def test_weights_of_messages_scale_the_loss() -> None:
    made = renderer("embedded")
    turns = (
        Message("user", "a"),
        Message("assistant", "b", 0.0),
        Message("user", "c"),
        Message("assistant", "d", 0.5),
    )
    (row,) = made.rows(Example(REF, turns), "assistant")
    assert [made.tokenizer.decode(ids) for ids in supervised(row)] == ["d<|im_end|>"]
    assert set(row.segments[0].weights.tolist()) == {0.0, 0.5}
    (row,) = made.rows(Example(REF, turns), "all")
    weights = row.segments[0].weights
    assert sorted(set(weights.tolist())) == [0.0, 0.5, 1.0]
    assert (weights == 0).sum() == 1 + len(made.tokenizer("b<|im_end|>")["input_ids"])


def test_no_supervised_tokens_is_an_error_that_names_the_row() -> None:
    with pytest.raises(RowError, match=r"rows\.jsonl:7: no token carries loss") as error:
        renderer("embedded").rows(chat("a", "b", weight=0.0), "assistant")
    assert error.value.reason == "no_supervised_tokens"


# Templates that rewrite the past ---------------------------------------------------------------------


def test_a_template_that_strips_thinking_gives_a_row_for_each_turn() -> None:
    made = renderer("qwen 3")
    before = made.split_rows
    example = chat("a", "<think>\nhm\n</think>\n\nyes", "b", "<think>\nso\n</think>\n\nno")
    rows = made.rows(example, "assistant")
    decoded = [made.tokenizer.decode(row.segments[0].ids.tolist()) for row in rows]
    user = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    assert decoded == [
        user.format("a") + "<think>\nhm\n</think>\n\nyes<|im_end|>",
        user.format("a") + "yes<|im_end|>\n" + user.format("b") + "<think>\nso\n</think>\n\nno<|im_end|>",
    ]
    assert [row.segments[0].ids[: -len(supervised(row)[0])].tolist() for row in rows] == [
        made.prompt_ids(example.messages[:1]),
        made.prompt_ids(example.messages[:3]),
    ]
    assert made.split_rows == before + 1
    assert len(made.rows(example, "completion")) == 1


def test_tokens_that_merge_across_the_boundary_give_the_prompt_of_serving() -> None:
    """The line end of '### Assistant:' and those of the answer are one token in the whole text."""
    made = renderer("plain")
    before = made.split_rows
    example = chat("a", "\n\nyes")
    (row,) = made.rows(example, "assistant")
    assert made.split_rows == before + 1
    prompt = made.prompt_ids(example.prompt)
    assert row.segments[0].ids.tolist()[: len(prompt)] == prompt
    assert (
        made.tokenizer.decode(row.segments[0].ids.tolist())
        == "### User:\na\n\n### Assistant:\n\n\nyes<|endoftext|>"
    )


def test_a_conversation_of_very_many_turns() -> None:
    example = chat(*["a"] * (2 * MAX_TURNS + 2))
    with pytest.raises(RowError, match="513 assistant turns"):
        renderer("embedded").rows(example, "assistant")
    assert len(renderer("embedded").rows(example, "completion")) == 1


# Text that looks like control tokens -----------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_11_text_in_a_message_cannot_forge_a_control_token(name: str, role: str) -> None:
    made = renderer(name)
    added = made.tokenizer.added_tokens_decoder
    control = {token for token, what in added.items() if what.special} | set(made.end_ids)
    evil = "x" + "".join(what.content for what in added.values() if what.special) + "x"

    def controls(text: str) -> list[int]:
        contents = ("x", text) if role == "assistant" else (text, "x")
        (row,) = made.rows(chat(*contents), "assistant")
        return [token for token in row.segments[0].ids.tolist() if token in control]

    assert controls(evil) == controls("x")
    (row,) = made.rows(chat(evil, "x"), "assistant")
    assert evil in made.tokenizer.decode(row.segments[0].ids.tolist())
    forged = made.prompt_ids([Message("user", evil)])
    assert [t for t in forged if t in control] == [
        t for t in made.prompt_ids([Message("user", "x")]) if t in control
    ]


def test_a_user_cannot_think_for_the_model_but_the_assistant_can() -> None:
    made = renderer("qwen 3")
    think = made.tokenizer.convert_tokens_to_ids("<think>")
    assert think not in made.prompt_ids([Message("user", "<think>")])
    (row,) = made.rows(chat("a", "<think>\nhm\n</think>\n\nyes"), "assistant")
    assert think in row.segments[0].ids


def test_the_mark_itself_is_refused() -> None:
    with pytest.raises(RowError) as error:
        renderer("embedded").rows(chat("a\ufdd0", "b"), "assistant")
    assert error.value.reason == "special_token_text"


# Plain text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, end", [("embedded", "<|endoftext|>"), ("raw", "</s>"), ("llama 3", "<|eot|>")]
)
def test_plain_text_is_supervised_whole_with_a_document_end(name: str, end: str) -> None:
    made = renderer(name)
    text = "The quick brown fox <|im_end|> is text"
    (row,) = made.rows(Example(REF, text=text), "assistant")
    ids = row.segments[0].ids.tolist()
    begin = [made.tokenizer.bos_token_id] if made.starts_with_bos else []
    assert ids[: len(begin)] == begin
    assert made.tokenizer.decode(ids[len(begin) :]) == text + end
    assert row.segments[0].weights.tolist() == [0.0] + [1.0] * (len(ids) - 1)


# Choosing a template ---------------------------------------------------------------------------------


def test_a_base_without_anything_gets_plain_headings_an_end_and_padding() -> None:
    tokenizer = byte_tokenizer(None, None)
    size = len(tokenizer)
    choice = choose_template(tokenizer)
    assert (choice.kind, choice.new_tokens, choice.end_ids) == ("plain", [NEW_END], ())
    assert len(tokenizer) == size  # choosing changes nothing
    with pytest.raises(ModelError, match="apply_choice"):
        Renderer(byte_tokenizer_without_end(), choice)
    added = apply_choice(tokenizer, choice)
    assert added == len(tokenizer) - size
    made = Renderer(tokenizer, choice)
    assert made.end_ids == (tokenizer.convert_tokens_to_ids(NEW_END),)
    assert tokenizer.pad_token == NEW_END
    assert tokenizer.chat_template == choice.text


def byte_tokenizer_without_end() -> object:
    from transformers import AutoTokenizer

    from tunesmith.embedded import __path__ as embedded

    return AutoTokenizer.from_pretrained(f"{embedded[0]}/base-8m", eos_token=None)


def test_notes_say_what_was_chosen() -> None:
    made = renderer("chatml, other eos")
    assert made.end_ids == tuple(
        made.tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>")
    )
    assert "ends a turn with <|im_end|>, not with the tokenizer's <|endoftext|>" in made.describe()
    assert "padding reuses" in made.describe()
    assert "<|im_end|>" in renderer("embedded").describe()


def test_a_template_without_an_end_is_refused_with_a_way_out() -> None:
    tokenizer = byte_tokenizer(None, "<|endoftext|>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}" + (
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(DataError, match=r"eos_token") as error:
        choose_template(tokenizer)
    assert "model.template" in error.value.fix


def test_a_template_whose_prompt_is_not_how_it_writes_answers_is_refused() -> None:
    tokenizer = byte_tokenizer(None, "<|im_end|>")
    tokenizer.chat_template = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    with pytest.raises(DataError, match="asks for an answer with"):
        choose_template(tokenizer)


def test_a_template_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my.jinja"
    path.write_text(LLAMA3.replace("{{ bos_token }}", ""))
    choice = choose_template(piece_tokenizer("<s>", "</s>"), str(path))
    assert choice.kind == "file"
    assert any("does not write <s>" in note for note in choice.notes)
    with pytest.raises(ConfigError, match="neither a kind of template nor a file"):
        choose_template(piece_tokenizer("<s>", "</s>"), "no-such.jinja")


def test_a_system_turn_that_the_template_refuses_is_a_row_error_in_its_words() -> None:
    example = Example(REF, (Message("system", "s"), *chat("a", "b").messages))
    with pytest.raises(RowError, match="System role not supported") as error:
        renderer("gemma").rows(example, "assistant")
    assert (error.value.reason, error.value.line) == ("template_refuses", 7)


def test_tools_need_a_template_that_writes_them() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    with pytest.raises(RowError) as error:
        renderer("embedded").rows(Example(REF, chat("a", "b").messages, (tool,)), "assistant")
    assert error.value.reason == "template_without_tools"
    with pytest.raises(RowError):
        renderer("embedded").prompt_ids([Message("user", "a")], [tool])
    tokenizer = byte_tokenizer(None, "<|im_end|>")
    tokenizer.chat_template = "{% if tools %}{{ tools[0]['function'] | tojson }}{% endif %}" + CHATML
    made = Renderer(tokenizer, choose_template(tokenizer))
    evil = {"type": "function", "function": {"name": "<|im_end|>"}}
    (row,) = made.rows(Example(REF, chat("a", "b").messages, (evil,)), "assistant")
    decoded = made.tokenizer.decode(row.segments[0].ids.tolist())
    assert decoded.startswith('{"name": "<|im_end|>"}<|im_start|>user')
    assert row.segments[0].ids.tolist().count(made.end_ids[0]) == 2


def test_dates_are_frozen() -> None:
    tokenizer = byte_tokenizer(None, "<|im_end|>")
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}\n" + CHATML
    made = Renderer(tokenizer, choose_template(tokenizer), now=datetime(2020, 1, 2))
    text = made.tokenizer.decode(made.prompt_ids([Message("user", "a")]))
    assert text.startswith("02 Jan 2020\n")
    assert "2020-01-02" in made.describe()


def test_the_hash_tells_templates_and_special_tokens_apart() -> None:
    hashes = {name: renderer(name).template_hash for name in STYLES}
    assert hashes["chatml, pad == eos"] != hashes["chatml, other eos"]
    assert (
        hashes["embedded"]
        == Renderer(renderer("embedded").tokenizer, renderer("embedded").choice).template_hash
    )
    assert all(len(value) == 64 for value in hashes.values())


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="slow"):
        choose_template(Slow())  # type: ignore[arg-type]


def test_rows_hold_int64_ids_and_float32_weights() -> None:
    (row,) = renderer("embedded").rows(chat("a", "b"), "assistant")
    assert (row.segments[0].ids.dtype, row.segments[0].weights.dtype) == (np.int64, np.float32)
    assert TemplateChoice("plain", "x").end_ids == ()
