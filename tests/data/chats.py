"""Tiny tokenizers and the chat-template styles of the field, written small."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tunesmith.data.render import Renderer
from tunesmith.data.template import PLAIN, RAW, TemplateChoice, apply_choice, choose_template
from tunesmith.embedded import __path__ as embedded

CORPUS = [
    "\n\n\n\n\nx" * 9,
    "The quick brown fox jumps over the lazy dog.\n\nAnd then? 3 4 5 < > | : # - the end of the answer, yes",
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('no system turns here') }}"
    "{% elif m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header|>{{ m['role'] }}<|end_header|>\n\n"
    "{{ m['content'] | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header|>assistant<|end_header|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# Strips the thinking of earlier turns, and writes an empty one in the last.
QWEN3 = (
    "{%- for m in messages %}{%- set text = m['content'] %}"
    "{%- if m['role'] == 'assistant' %}{%- set thought = '' %}"
    "{%- if '</think>' in text %}{%- set thought = text.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{%- set text = text.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\n' }}"
    "{%- if loop.last %}{{- '<think>\n' + thought + '\n</think>\n\n' }}{%- endif %}{{- text + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + m['role'] + '\n' + text + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
# A second end token after the last turn only.
PHI3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)

SPECIAL = (
    "<|im_start|> <|im_end|> <|eot|> <|start_header|> <|end_header|> <start_of_turn> <end_of_turn> "
    "<|end|> <|user|> <|assistant|> <|system|>"
).split()


def byte_tokenizer(bos: str | None, eos: str | None, pad: str | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE as Llama 3 and Qwen have; adds bos by itself when there is one."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(
        Regex(r" ?\w+|\s*[\r\n]+|\s+(?!\S)|\s+| ?[^\s\w]+"), "isolated"
    )  # as Llama 3
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet))
    return _wrapped(tokenizer, bos, eos, pad)


def piece_tokenizer(bos: str | None, eos: str | None) -> PreTrainedTokenizerFast:
    """SentencePiece style, as Llama 2 has: what begins a string gets a space, and bytes fall back."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    extra = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=extra))
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = spec["added_tokens"][:1]  # bytes are in the vocabulary, but are no special tokens
    return _wrapped(Tokenizer.from_str(json.dumps(spec)), bos, eos, None)


def _wrapped(
    tokenizer: Tokenizer, bos: str | None, eos: str | None, pad: str | None
) -> PreTrainedTokenizerFast:
    names = [name for name in (bos, eos, pad) if name]
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in names + SPECIAL]
    )
    tokenizer.add_tokens(
        [AddedToken(name, special=False, normalized=False) for name in ("<think>", "</think>")]
    )
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    given = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{k: v for k, v in given.items() if v})


@dataclass(frozen=True)
class Style:
    """trims: the template trims contents. system: it takes a system turn. splits: several turns make several rows."""

    make: Any
    template: str
    end: str
    trims: bool = False
    system: bool = True
    splits: bool = False
    before: str = ""  # what the template writes before the supervised text
    after: str = ""  # and between it and the end


STYLES = {
    "embedded": Style(None, CHATML, "<|im_end|>"),
    "chatml, pad == eos": Style(
        lambda: byte_tokenizer(None, "<|im_end|>", "<|im_end|>"), CHATML, "<|im_end|>"
    ),
    "chatml, other eos": Style(lambda: byte_tokenizer(None, "<|endoftext|>"), CHATML, "<|im_end|>"),
    "llama 2": Style(
        lambda: piece_tokenizer("<s>", "</s>"), LLAMA2, "</s>", True, False, before=" ", after=" "
    ),
    "llama 3": Style(lambda: byte_tokenizer("<|begin|>", "<|eot|>"), LLAMA3, "<|eot|>", True),
    "gemma": Style(lambda: byte_tokenizer("<bos>", "<eos>", "<pad>"), GEMMA, "<end_of_turn>", True, False),
    "qwen 3": Style(
        lambda: byte_tokenizer(None, "<|im_end|>", "<|endoftext|>"),
        QWEN3,
        "<|im_end|>",
        splits=True,
        before="<think>\n\n</think>\n\n",
    ),
    "phi 3": Style(lambda: byte_tokenizer("<s>", "<|endoftext|>"), PHI3, "<|end|>"),
    "plain": Style(lambda: byte_tokenizer(None, "<|endoftext|>"), PLAIN, "<|endoftext|>"),
    "plain with bos": Style(lambda: piece_tokenizer("<s>", "</s>"), PLAIN, "</s>"),
    "raw": Style(lambda: byte_tokenizer("<s>", "</s>"), RAW, "</s>"),
}


@functools.cache
def renderer(name: str) -> Renderer:
    style = STYLES[name]
    if style.make is None:
        tokenizer = AutoTokenizer.from_pretrained(f"{embedded[0]}/base-8m")
    else:
        tokenizer = style.make()
        if style.template not in (PLAIN, RAW):
            tokenizer.chat_template = style.template
    setting = {PLAIN: "plain", RAW: "raw"}.get(style.template, "auto")
    choice: TemplateChoice = choose_template(tokenizer, setting)
    apply_choice(tokenizer, choice)
    return Renderer(tokenizer, choice)
