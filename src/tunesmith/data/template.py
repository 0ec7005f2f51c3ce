"""Which text a conversation becomes: the model's own chat template, `plain`, `raw`, or a Jinja file.

All four are Jinja chat templates in the end, so that a saved model carries its template with it and any
other server renders the same prompts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.errors import ConfigError, DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["chat", "plain", "raw", "file"]

NEW_END = "<|end|>"
PLAIN = """\
{%- for message in messages -%}
### {{ message['role'] | capitalize }}:
{{ message['content'] }}
{%- if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}


{% endfor %}
{%- if add_generation_prompt %}### Assistant:
{% endif %}"""
RAW = (
    "{%- for message in messages %}{{ message['content'] }}"
    "{%- if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor -%}"
)
# What ends a document, where a vocabulary has another token for that than for the end of a turn.
DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
PROBE = (("user", "Probe question"), ("assistant", "Probe answer"))


@dataclass(frozen=True)
class TemplateChoice:
    """A template settled for one tokenizer.

    text: the Jinja source. end_ids: the ids that end a generation, the one that ends a turn first; empty while
    `new_tokens` (added by `apply_choice`) are not in the vocabulary. notes: what a person should know.
    """

    kind: Kind
    text: str
    end_ids: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)
    new_tokens: list[str] = field(default_factory=list)


def choose_template(tokenizer: PreTrainedTokenizerBase, setting: str = "auto") -> TemplateChoice:
    """The template for `model.template`; see `ModelConfig.template`.

    Raises ModelError for a slow tokenizer, ConfigError for a setting that is neither a kind nor a file, and
    DataError for a template whose assistant turns do not end.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} is a slow one, without character offsets",
            "a fast tokenizer (tokenizer.json)",
            "load the model once with transformers' AutoTokenizer and save the tokenizer it converts",
        )
    notes: list[str] = []
    kind, text = _template(tokenizer, setting, notes)
    if tokenizer.pad_token_id is None:
        notes.append(
            "the tokenizer has no padding token; padding reuses the end token, which is still trained"
        )
    if kind in ("plain", "raw") and adds_bos(tokenizer):
        text = "{{ bos_token }}" + text
    if tokenizer.eos_token_id is None and ("eos_token" in text or kind in ("plain", "raw")):
        notes.append(f"the tokenizer has no end token; {NEW_END} is added for it")
        return TemplateChoice(kind, text, (), notes, [NEW_END])
    ends = find_ends(tokenizer, text)
    if tokenizer.eos_token_id is not None and ends[0] != tokenizer.eos_token_id:
        ended, eos = tokenizer.convert_ids_to_tokens(ends[0]), tokenizer.eos_token
        notes.append(
            f"the template ends a turn with {ended}, not with the tokenizer's {eos}; both end an answer"
        )
    if kind == "file" and adds_bos(tokenizer) and tokenizer.bos_token_id not in _probe_ids(tokenizer, text):
        notes.append(
            f"the template does not write {tokenizer.bos_token}, which this model's texts begin with"
        )
    return TemplateChoice(kind, text, ends, notes)


def apply_choice(tokenizer: PreTrainedTokenizerBase, choice: TemplateChoice) -> int:
    """Makes the tokenizer carry the choice: new end token, padding, template. Returns how many ids were added.

    The caller resizes the model's embeddings when it is not 0. Saving the tokenizer saves the template.
    """
    added = 0
    if choice.new_tokens:
        added = int(tokenizer.add_special_tokens({"eos_token": choice.new_tokens[0]}))
    ends = choice.end_ids or find_ends(tokenizer, choice.text)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(ends[0])
    if choice.kind != "chat":
        tokenizer.chat_template = choice.text
    return added


def _template(tokenizer: PreTrainedTokenizerBase, setting: str, notes: list[str]) -> tuple[Kind, str]:
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if setting == "auto":
        if own:
            return "chat", own
        notes.append("the model has no chat template; plain headings are used (### User: / ### Assistant:)")
        return "plain", PLAIN
    if setting == "plain":
        return "plain", PLAIN
    if setting == "raw":
        return "raw", RAW
    path = Path(setting)
    if not path.is_file():
        raise ConfigError(
            f"model.template = {setting}: neither a kind of template nor a file",
            "auto, plain, raw, or the path of a Jinja file",
        )
    return "file", path.read_text(encoding="utf-8")


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether this tokenizer by itself puts its begin token before a text."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def find_ends(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """The ids that end a generation: the token the template writes after an assistant turn, then eos.

    Raises DataError where no single added token follows the turn's text.
    """
    turn = _rendered_turn(tokenizer, text)
    after = turn.rpartition(PROBE[1][1])[2]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    controls = set(tokenizer.added_tokens_decoder) | {tokenizer.eos_token_id}
    ends = [token for token in ids if token in controls and tokenizer.decode([token]).strip()]
    eos = tokenizer.eos_token_id
    if not ends:
        raise DataError(
            f"the chat template ends an assistant turn with {after!r}, which is no special token",
            "a special token after each assistant turn, so that the model learns to stop",
            "write {{ eos_token }} there in a Jinja file and set model.template to its path, "
            "or set model.template=plain",
        )
    return (ends[0],) if eos is None or eos == ends[0] else (ends[0], eos)


def _probe_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    whole = render_text(tokenizer, text, [{"role": "user", "content": "a"}], prompt=True)
    ids: list[int] = tokenizer(whole, add_special_tokens=False)["input_ids"]
    return ids


def _rendered_turn(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    messages = [{"role": role, "content": content} for role, content in PROBE]
    prompt = render_text(tokenizer, text, messages[:1], prompt=True)
    whole = render_text(tokenizer, text, messages)
    if not whole.startswith(prompt):
        raise DataError(
            f"the chat template asks for an answer with {prompt[-60:]!r}, but writes a turn as {whole[-90:]!r}",
            "the prompt with add_generation_prompt to be how the assistant's turn begins",
            "correct it in a Jinja file and set model.template to its path, or set model.template=plain",
        )
    turn = whole.removeprefix(prompt)
    if PROBE[1][1] not in turn:
        raise DataError(
            "the chat template does not write the assistant's text",
            "messages with 'role' and 'content'",
            "set model.template=plain",
        )
    return turn


def freeze_dates(text: str, now: datetime) -> str:
    """The template with each strftime_now('…') replaced by its value, so that every rendering agrees.

    Raises DataError for a format that is not written out.
    """
    frozen = re.sub(
        r"strftime_now\(\s*(['\"])(.*?)\1\s*\)", lambda found: repr(now.strftime(found.group(2))), text
    )
    if re.search(r"strftime_now\s*\(", frozen):
        raise DataError(
            "the chat template computes the format of a date",
            "strftime_now with the format written out",
            "write the format as text in a Jinja file and set model.template to its path",
        )
    return frozen


def render_text(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None = None,
    *,
    prompt: bool = False,
) -> str:
    """The conversation as the template writes it. prompt: up to where the assistant's next turn begins.

    Raises DataError with the template's own words where it refuses the conversation.
    """
    from jinja2.exceptions import TemplateError

    try:
        rendered: str = tokenizer.apply_chat_template(
            messages, tools=tools or None, chat_template=text, add_generation_prompt=prompt, tokenize=False
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise DataError(f"the chat template refuses the conversation: {error}") from None
    return rendered
