"""Tiny random models of several families, and rows for them. No downloads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PretrainedConfig,
    Qwen3Config,
    RobertaConfig,
)

from tunesmith.core import attention
from tunesmith.core.model import Model
from tunesmith.models.heads import HeadSpec, build
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
        return Qwen3Config(**{**base, **more})
    if family == "gemma2":
        return Gemma2Config(**{**base, "sliding_window": 6, "query_pre_attn_scalar": 8, **more})
    if family == "gemma3":
        kinds = {"layer_types": ["sliding_attention", "full_attention"]}
        return Gemma3TextConfig(**{**base, **kinds, "sliding_window": 6, "query_pre_attn_scalar": 8, **more})
    assert family == "gpt2"
    sizes = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    dropouts = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2Config(**{**sizes, **ids, **dropouts, **more})


FAMILIES = ("llama", "qwen3", "gemma2", "gemma3", "gpt2")
ENCODERS = ("bert", "roberta", "distilbert", "electra", "modernbert")


def encoder_config(family: str, **more: Any) -> PretrainedConfig:
    """Two layers; RoBERTa's positions begin after its padding id, ModernBERT has a window of 4 to each side.

    modernbert-mean: its own classification head reads the mean, as in the models that are published.
    """
    names = (
        "hidden_size intermediate_size num_hidden_layers num_attention_heads max_position_embeddings".split()
    )
    bert: dict[str, Any] = {"vocab_size": VOCAB, **dict(zip(names, (32, 48, 2, 4, 256), strict=True))}
    bert |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if family == "bert":
        return BertConfig(**{**bert, "pad_token_id": 0, **more})
    if family == "roberta":
        ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        sizes = {"max_position_embeddings": 256 + 2, "type_vocab_size": 1}
        return RobertaConfig(**{**bert, **sizes, **ids, **more})
    if family == "electra":
        return ElectraConfig(**{**bert, "embedding_size": 24, "pad_token_id": 0, **more})
    if family == "distilbert":
        sizes = {"vocab_size": VOCAB, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}
        dropouts = {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
        return DistilBertConfig(
            **{**sizes, **dropouts, "max_position_embeddings": 256, "pad_token_id": 0, **more}
        )
    assert family.startswith("modernbert")
    local = {"layer_types": ["sliding_attention", "full_attention"], "local_attention": 8}
    sizes = {key: value for key, value in bert.items() if "dropout" not in key}
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    pooling = "mean" if family == "modernbert-mean" else "cls"
    return ModernBertConfig(**{**sizes, **local, **ids, "classifier_pooling": pooling, **more})


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


LABELS = ("bad", "good", "so-so")


def randomise(module: Any, std: float = 0.15) -> Any:
    """Matrices large enough that a wrong mask shows; biases that are not 0, and norms that are not 1."""
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=std)
        else:
            parameter.data.add_(torch.randn_like(parameter), alpha=std)
    return module


def headed(
    family: str,
    spec: HeadSpec | None = None,
    *,
    path: Literal["layout", "padded"] = "layout",
    dtype: torch.dtype = torch.float32,
    **more: Any,
) -> Model:
    """A random model with the head that `spec` says; by default it classifies into `LABELS`."""
    spec = spec or HeadSpec("classify", LABELS)
    made = config(family, **more) if family in FAMILIES else encoder_config(family, **more)
    implementation = attention.NAME if path == "layout" else "sdpa"
    attention.register()
    torch.manual_seed(0)

    def load(kind: Any) -> tuple[Any, set[str]]:
        return kind.from_config(made, attn_implementation=implementation), set()

    module, head, _ = build(Path("nowhere"), made, spec, load, None, renew=False)
    head.offset = made.pad_token_id + 1 if family == "roberta" else 0
    return Model(randomise(module).to(dtype).eval(), path, made.num_hidden_layers, head)


def text_row(
    ids: Sequence[int],
    target: Sequence[int] | Sequence[float] = (0,),
    index: int = 0,
    second: int | None = None,
) -> TokenRow:
    """A row for a head: a class, shares or numbers, or a tag for each token. second: where a pair's second begins."""
    segment = Segment(np.array(ids, dtype=np.int64), np.zeros(len(ids), dtype=np.float32))
    wanted = np.array(target)
    wanted = wanted.astype(np.int64 if wanted.dtype.kind == "i" else np.float32)
    return TokenRow(RowRef("fake.jsonl", index + 1), (segment,), wanted, second, alone=True)


def text_rows(
    count: int, kind: str = "classify", seed: int = 0, low: int = 2, high: int = 20, begin: int = 0
) -> list[TokenRow]:
    """Ragged rows for a head with three outputs. begin: this many tokens, the same, stand before each row."""
    rng = np.random.default_rng(seed)
    out = []
    for index in range(count):
        ids = [*range(3, 3 + begin), *rng.integers(3, VOCAB, int(rng.integers(low, high))).tolist()]
        target: list[Any] = [int(rng.integers(0, 3))]
        if kind == "tag":  # the first token of a row has none, nor has every fourth
            target = [-100 if place % 4 == 0 else int(rng.integers(0, 3)) for place in range(len(ids))]
        elif kind == "regress":
            target = rng.normal(size=3).tolist()
        out.append(text_row(ids, target, index))
    return out


def judged_row(
    prompt: Sequence[int],
    completions: Sequence[Sequence[int]],
    scores: Sequence[float],
    index: int = 0,
    **given: Sequence[float],
) -> TokenRow:
    """A prompt and its completions as a tree, every token of which is supervised. given: other numbers by name."""
    root = Segment(np.array(prompt, np.int64), np.zeros(len(prompt), np.float32))
    leaves = [Segment(np.array(c, np.int64), np.ones(len(c), np.float32), 0) for c in completions]
    numbers = {name: np.array(values, np.float64) for name, values in (given | {"scores": scores}).items()}
    return TokenRow(RowRef("judged.jsonl", index + 1), (root, *leaves), given=numbers)


def judged_rows(count: int, seed: int = 0, most: int = 4, ties: bool = True, **sizes: int) -> list[TokenRow]:
    """Ragged prompts with 2 to `most` completions, which have scores (two of them unequal), a made-up reference
    log-probability for each, and a margin. sizes: low, high of the completions' lengths."""
    rng = np.random.default_rng(seed)
    low, high = sizes.get("low", 1), sizes.get("high", 9)
    out = []
    for index in range(count):
        many = int(rng.integers(2, most + 1))
        scores = rng.integers(0, 3, many).astype(float) if ties else rng.permutation(many).astype(float)
        scores[0], scores[-1] = 9.0, -1.0
        texts = [rng.integers(3, VOCAB, int(rng.integers(low, high))).tolist() for _ in range(many)]
        prompt = rng.integers(3, VOCAB, int(rng.integers(2, 12))).tolist()
        given = {"reference": -rng.gamma(8.0, 1.0, many), "margin": rng.random(1)}
        out.append(judged_row(prompt, texts, scores, index, **given))
    return out
