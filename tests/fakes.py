"""Tiny random models of several families, and rows for them. No downloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    Qwen3Config,
)

from tunesmith.core import attention
from tunesmith.core.model import Model
from tunesmith.types import RowRef, Segment, TokenRow

VOCAB = 96


def _llama(**more: Any) -> PretrainedConfig:
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return LlamaConfig(**{**settings, **more})


def config(family: str, **more: Any) -> PretrainedConfig:
    common = _llama().to_dict()
    keys = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
        "max_position_embeddings tie_word_embeddings pad_token_id bos_token_id eos_token_id"
    ).split()
    base = {key: common[key] for key in keys}
    if family == "llama":
        return _llama(**more)
    if family == "qwen3":
        return Qwen3Config(**base, **more)
    if family == "gemma2":
        return Gemma2Config(**base, sliding_window=6, query_pre_attn_scalar=8, **more)
    if family == "gemma3":
        return Gemma3TextConfig(
            **base,
            sliding_window=6,
            query_pre_attn_scalar=8,
            layer_types=["sliding_attention", "full_attention"],
            **more,
        )
    assert family == "gpt2"
    return GPT2Config(
        vocab_size=VOCAB,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, **more},
    )


FAMILIES = ("llama", "qwen3", "gemma2", "gemma3", "gpt2")


def module(family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float64, **more: Any) -> Any:
    """A random model with weights large enough that a wrong mask shows."""
    attention.register()
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config(family, **more), attn_implementation=attention.NAME)
    for parameter in made.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.15)
    return made.to(dtype)


def model(
    family: str = "llama", path: Literal["layout", "padded"] = "layout", module_: Any = None, **more: Any
) -> Model:
    """Padded runs under stock attention: SDPA, or eager where SDPA cannot soft-cap (Gemma 2; float32 only, as its
    eager softmax is)."""
    inner = module_ if module_ is not None else module(family, **more)
    if path == "padded":
        inner.set_attn_implementation("eager" if family == "gemma2" else "sdpa")
    return Model(inner, path, inner.config.num_hidden_layers)


def row(ids: Sequence[int], supervised_from: int, index: int = 0, weight: float = 1.0) -> TokenRow:
    """A row of one segment whose tokens from `supervised_from` (>= 1) on carry loss."""
    weights = np.zeros(len(ids), dtype=np.float32)
    weights[supervised_from:] = weight
    return TokenRow(RowRef("fake.jsonl", index + 1), (Segment(np.array(ids, dtype=np.int64), weights),))


def rows(count: int, seed: int = 0, low: int = 4, high: int = 20, begin: int = 0) -> list[TokenRow]:
    """Ragged rows, each with its own share of supervised tokens and, now and then, a weight of 0.5.

    begin: this many tokens, the same and not supervised, stand before each row.
    """
    rng = np.random.default_rng(seed)
    out = []
    for index in range(count):
        length = int(rng.integers(low, high))
        ids = [*range(3, 3 + begin), *rng.integers(3, VOCAB, length).tolist()]
        out.append(row(ids, begin + int(rng.integers(1, length)), index, 0.5 if index % 5 == 4 else 1.0))
    return out
