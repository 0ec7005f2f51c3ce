"""Which templates are provably fixed around the messages' texts, and that what is written so is what they render."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.chats import CHATML, GEMMA, LLAMA2, LLAMA3, PHI3, QWEN3, byte_tokenizer
from tunesmith.data.skeleton import Skeletons, is_transparent
from tunesmith.data.template import PLAIN, RAW, render_text

# As Qwen 2.5 has it: tools, a default system turn, a text that is asked whether there is one.
QWEN25 = (
    "{%- if tools %}{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- endif %}"
    "{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}"
    "{%- elif messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou help.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if (message.role == 'user') or (message.role == 'system' and not loop.first) or"
    " (message.role == 'assistant' and not message.tool_calls) %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- elif message.role == 'assistant' %}{{- '<|im_start|>' + message.role }}"
    "{%- if message.content %}{{- '\n' + message.content }}{%- endif %}"
    "{%- for call in message.tool_calls %}{%- if call.function is defined %}{%- set call = call.function %}{%- endif %}"
    "{{- call.name }}{%- endfor %}{{- '<|im_end|>\n' }}{%- elif message.role == 'tool' %}"
    "{%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != 'tool') %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- message.content }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
# As Llama 2 and Mistral have it: the system text goes into the first user turn.
WITH_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set first = messages[0]['content'] | trim %}{% else %}{% set rest = messages %}{% set first = '' %}{% endif %}"
    "{% for m in rest %}{% if loop.index0 == 0 and first %}{% set text = '<<' + first + '>>' + m['content'] %}"
    "{% else %}{% set text = m['content'].strip() %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' ~ text ~ ' [/INST]' }}{% else %}{{ text }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
FIXED = {
    "chatml": CHATML,
    "llama 2": LLAMA2,
    "llama 3": LLAMA3,
    "gemma": GEMMA,
    "phi 3": PHI3,
    "plain": PLAIN,
    "raw": RAW,
    "qwen 2.5": QWEN25,
    "system goes first": WITH_SYSTEM,
}


@pytest.mark.parametrize("template", FIXED.values(), ids=FIXED)
def test_a_template_that_only_writes_texts_is_known_for_one(template: str) -> None:
    assert is_transparent(template)


LOOP = "{%% for m in messages %%}%s{%% endfor %%}"


@pytest.mark.parametrize(
    "template",
    [
        QWEN3,
        *(
            LOOP % body
            for body in (
                "{{ m.content | upper }}",
                "{{ ('a' + m.content) | trim }}",
                "{{ m.content | replace('a', 'b') }}",
                "{{ m.content[:5] }}",
                "{{ m.content.split('x')[0] }}",
                "{{ m.content | length }}",
                "{{ m | tojson }}",
                "{{ m }}",
                "{{ m.get('content') | upper }}",
                "{{ m['values']() | list }}",
                "{{ m['con' + 'tent'] | upper }}",
                "{{ '%s' % m.content }}",
                "{{ 'x' if m.content == 'y' else 'z' }}",
                "{% if 'x' in m.content %}y{% endif %}",
                "{% if m.content is equalto 'x' %}y{% endif %}",
                "{% for c in m.content %}{{ c }}-{% endfor %}",
                "{% filter upper %}{{ m.content }}{% endfilter %}",
                "{% set t %}{{ m.content }}{% endset %}{{ t | upper }}",
                "{% set t = m.content %}{{ t | upper }}",
                "{% set n = namespace(t=m.content) %}{{ n.t | upper }}",
                "{% set n = namespace() %}{% set n.t = m.content %}{{ n.t | upper }}",
                "{{ loop.previtem.content | upper }}",
                "{{ loop['nextitem'].content | upper }}",
                "{% set l = loop %}{{ l.previtem.content | upper }}",
                "{{ raise_exception(m.content) }}",
                "{{ [1, 2] | random }}{{ m.content }}",
                "{% for k, v in m.items() %}{{ v | upper }}{% endfor %}",
                "{% with t = m.content %}{{ t | upper }}{% endwith %}",
            )
        ),
        "{% macro w(t) %}{{ t | upper }}{% endmacro %}" + LOOP % "{{ w(m.content) }}",
        "{{ messages | map(attribute='content') | join(',') }}",
        "{{ messages | last }}",
        "{% for m in messages if m.content != 'x' %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}",  # which does not even parse
    ],
)
def test_a_template_that_does_more_with_a_text_is_refused(template: str) -> None:
    assert not is_transparent(template)


TOKENIZER = byte_tokenizer("<s>", "</s>")
TEXTS = st.text(st.sampled_from("a \n\t\u2003\u00a0é{}%<|>0\ufdd2"), max_size=8)


@pytest.mark.parametrize("template", FIXED.values(), ids=FIXED)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_written_is_what_is_rendered(template: str, data: st.DataObject) -> None:
    skeletons = Skeletons(template)
    for _ in range(4):  # the first conversation of its roles makes the pieces, the others use them
        roles = data.draw(
            st.sampled_from([("user", "assistant"), ("user",), ("system", "user", "assistant")])
        )
        messages = [{"role": role, "content": data.draw(TEXTS)} for role in roles]
        prompt = data.draw(st.booleans())

        def render(given: list[dict[str, Any]], prompt: bool = prompt) -> str:
            return render_text(TOKENIZER, template, given, prompt=prompt)

        if roles[0] == "system" and template in (LLAMA2, GEMMA):
            continue
        written = skeletons.write(messages, prompt, render)
        if all(m["content"].strip() for m in messages):
            assert written == render(messages)
        else:
            assert written is None


def test_messages_that_hold_more_than_a_text_are_rendered() -> None:
    skeletons = Skeletons(CHATML)
    assert (
        skeletons.write([{"role": "user", "content": "a", "name": "b"}], True, lambda given: "rendered")
        is None
    )
