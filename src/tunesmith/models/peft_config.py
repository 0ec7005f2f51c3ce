"""What a recipe asks of an adapter, as PEFT is told it; and what PEFT cannot put on a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import (
    IA3Config,
    LoHaConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
)
from peft import LoraConfig as PeftLora
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as IA3_FEEDFORWARD,
)
from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as IA3_MODULES
from torch import nn

from tunesmith.config.tuning import PROMPTED, Tuning
from tunesmith.core import gate
from tunesmith.core.heads import Head, PooledHead
from tunesmith.core.model import Model
from tunesmith.errors import ConfigError
from tunesmith.models.heads import head_modules
from tunesmith.models.targets import beside, by_layer, is_conv1d, target_modules

KINDS = {
    "LORA": "lora",
    "IA3": "ia3",
    "LOHA": "loha",
    "VERA": "vera",
    "PROMPT_TUNING": "prompt",
    "PREFIX_TUNING": "prefix",
}
"""PEFT's name -> ours."""

INITS: dict[str, bool | str] = {"default": True, "gaussian": "gaussian", "pissa": "pissa", "olora": "olora"}
MUTATING = ("pissa", "olora")
"""First weights that are taken out of the base's."""

FIELDS: dict[str, dict[str, str]] = {
    "lora": {
        "rank": "r",
        "alpha": "lora_alpha",
        "dropout": "lora_dropout",
        "modules": "target_modules",
        "rslora": "use_rslora",
        "dora": "use_dora",
        "init": "init_lora_weights",
        "ranks": "rank_pattern",
        "alphas": "alpha_pattern",
    },
    "ia3": {"modules": "target_modules", "feedforward": "feedforward_modules"},
    "loha": {"rank": "r", "alpha": "alpha", "dropout": "rank_dropout", "modules": "target_modules"},
    "vera": {
        "rank": "r",
        "initial": "d_initial",
        "dropout": "vera_dropout",
        "modules": "target_modules",
    },
    "prompt": {"tokens": "num_virtual_tokens"},
    "prefix": {"tokens": "num_virtual_tokens"},
}
"""Our settings of each kind -> PEFT's names; a setting that is not here only says what a new adapter starts from."""


def refuse(model: Model, module: Any, method: Tuning, new_token_ids: list[int]) -> None:
    """Raises ConfigError where PEFT cannot put this kind on this model."""
    kind, conv = method.tuning, any(is_conv1d(m) for m in module.modules())
    family = module.config.model_type
    if new_token_ids and kind != "lora":
        raise ConfigError(
            f"model.template adds {len(new_token_ids)} tokens, whose embeddings {kind} tuning would neither train nor "
            "save",
            "lora or full tuning, or a template without new tokens",
            "choose another model.template, or write tuning: lora",
        )
    if conv and (kind == "loha" or (kind == "lora" and method.lora.init == "olora")):
        raise ConfigError(
            f"{family} has transposed linear layers (Conv1D), and PEFT's "
            + ("LoHa does not know them" if kind == "loha" else "OLoRA takes them for plain ones"),
            "a family with plain linear layers",
            "choose another tuning, such as lora with init default or pissa",
        )
    if kind == "lora" and method.lora.init in MUTATING and module.dtype == torch.float64:
        raise ConfigError(
            f"method.lora.init={method.lora.init} with model.dtype=float64, which PEFT does not decompose",
            "float32 or bfloat16",
            "set model.dtype=float32",
        )
    if kind in PROMPTED and model.start_id is not None:
        raise ConfigError(
            f"{kind} tuning of an encoder-decoder model ({family})", "a decoder", "choose another tuning"
        )
    if kind == "prefix" and gate.is_encoder(module.config):
        raise ConfigError(
            f"prefix tuning of an encoder ({family}), which takes no keys and values from before a row",
            "a causal model",
            "write tuning: prompt, or another kind",
        )


def peft_config(method: Tuning, model: Model, module: Any, new_token_ids: list[int]) -> PeftConfig:
    """What PEFT is told of a new adapter."""
    assert method.tuning is not None
    config = MAKERS[method.tuning](method, module, beside(model.head, module))
    config.task_type = _task_type(model)
    if model.head is not None and not isinstance(model.head.carrier, PooledHead):
        config.modules_to_save = [*(config.modules_to_save or []), *_head_layers(model.head)]
    if new_token_ids and not method.lora.train_embeddings:
        assert isinstance(config, PeftLora), "`refuse` lets no other kind have new tokens"
        config.trainable_token_indices = _token_rows(module, new_token_ids)
    return config


PEFT_HEADS = ("classifier", "score")
"""What PEFT trains and saves beside an adapter for classification, named or not."""


def _head_layers(head: Head) -> Iterator[str]:
    """Names of a stock head's layers that have weights of their own: PEFT merges (IA)3, LoHa and VeRA only beside
    these, not beside the modules around them. The parts that PEFT adds by itself stay whole: a wrapper in a wrapper
    cannot be saved."""
    for name in head_modules(head):
        if name in PEFT_HEADS:
            yield name
            continue
        part = (head.backbone if name == "pooler" else head.carrier).get_submodule(name)
        for inner, layer in part.named_modules():
            if any(True for _ in layer.parameters(recurse=False)):
                yield f"{name}.{inner}" if inner else name


def _task_type(model: Model) -> str:
    head: Head | None = model.head
    if head is None:
        return "CAUSAL_LM" if model.start_id is None else "SEQ_2_SEQ_LM"
    if isinstance(head.carrier, PooledHead):
        return "FEATURE_EXTRACTION"
    return "TOKEN_CLS" if head.kind == "token" else "SEQ_CLS"


Heads = tuple[nn.Module, ...]


def _lora(method: Tuning, module: Any, heads: Heads) -> PeftConfig:
    config = method.lora
    targets = target_modules(module, config.modules, heads)
    trained = _embeddings(module) if config.train_embeddings else []
    return PeftLora(
        r=config.rank,
        lora_alpha=config.alpha if config.alpha is not None else config.default_alpha(),
        lora_dropout=config.dropout,
        target_modules=targets,
        use_rslora=config.rslora,
        use_dora=config.dora,
        init_lora_weights=INITS[config.init],
        rank_pattern=by_layer(targets, config.ranks, "method.lora.ranks"),
        alpha_pattern=by_layer(targets, config.alphas, "method.lora.alphas"),
        modules_to_save=trained or None,
        ensure_weight_tying=len(trained) == 1 and _is_tied(module),
        fan_in_fan_out=any(is_conv1d(m) for m in module.modules()),
    )


def _ia3(method: Tuning, module: Any, heads: Heads) -> PeftConfig:
    config, family = method.ia3, module.config.model_type
    if not config.modules and family not in IA3_FEEDFORWARD:
        raise ConfigError(
            f"PEFT does not know which layers of {family} (IA)3 goes to",
            "the names of the layers of keys, values and the end of the feed-forward block",
            "write them as method.ia3.modules, and the last one as method.ia3.feedforward too",
        )
    patterns = config.modules or IA3_MODULES[family]
    inner = config.feedforward if config.modules else IA3_FEEDFORWARD[family]
    key = "method.ia3.modules"
    targets = target_modules(module, patterns, heads, key)
    inside = by_layer(targets, dict.fromkeys(inner, True), "method.ia3.feedforward")
    return IA3Config(
        target_modules=targets,
        feedforward_modules=list(inside),
        fan_in_fan_out=any(is_conv1d(m) for m in module.modules()),
    )


def _loha(method: Tuning, module: Any, heads: Heads) -> PeftConfig:
    config = method.loha
    return LoHaConfig(
        r=config.rank,
        alpha=config.alpha if config.alpha is not None else float(config.rank),
        rank_dropout=config.dropout,
        target_modules=target_modules(module, config.modules, heads, "method.loha.modules"),
    )


def _vera(method: Tuning, module: Any, heads: Heads) -> PeftConfig:
    config = method.vera
    return VeraConfig(
        r=config.rank,
        d_initial=config.initial,
        vera_dropout=config.dropout,
        target_modules=target_modules(module, config.modules, heads, "method.vera.modules"),
        fan_in_fan_out=any(is_conv1d(m) for m in module.modules()),
    )


def _prompt(method: Tuning, module: Any, heads: Heads) -> PeftConfig:
    return PromptTuningConfig(num_virtual_tokens=method.prompt.tokens)


def _prefix(method: Tuning, module: Any, heads: Heads) -> PeftConfig:
    return PrefixTuningConfig(num_virtual_tokens=method.prefix.tokens)


MAKERS: dict[str, Callable[[Tuning, Any, Heads], PeftConfig]] = {
    "lora": _lora,
    "ia3": _ia3,
    "loha": _loha,
    "vera": _vera,
    "prompt": _prompt,
    "prefix": _prefix,
}


def _is_tied(module: Any) -> bool:
    head = module.get_output_embeddings()
    return head is not None and head.weight is module.get_input_embeddings().weight


def _embeddings(module: Any) -> list[str]:
    """Names of the token embeddings and, where it is not tied to them, of the language-model head."""
    names = {id(part): name for name, part in module.named_modules()}
    layers = [module.get_input_embeddings()]
    head = module.get_output_embeddings()
    if head is not None and not _is_tied(module):
        layers.append(head)
    elif head is not None and names[id(layers[0])].split(".")[-1] != "embed_tokens":
        raise ConfigError(
            f"method.lora.train_embeddings: the embeddings of {module.config.model_type} are tied to its head, and "
            "PEFT keeps them tied only where they are called embed_tokens",
            "a family such as Llama, Qwen or Gemma, or untied embeddings",
            "leave train_embeddings out, or write tuning: full",
        )
    return [names[id(layer)] for layer in layers]


def _token_rows(module: Any, ids: list[int]) -> dict[str, list[int]]:
    """Which rows are trained in which layers: those of the embeddings and, where it is not tied to them, of the head.

    A new row of an untied head would otherwise be neither trained nor saved.
    """
    layers = [module.get_input_embeddings()]
    head = module.get_output_embeddings()
    if head.bias is not None:
        raise ConfigError(
            "this model's head has a bias, which PEFT leaves out where single rows of a head are trained",
            "a head without bias for a template that adds an end token",
            "choose another model.template, or write tuning: full",
        )
    if not _is_tied(module):
        layers.append(head)
    names = {id(part): name for name, part in module.named_modules()}
    return {names[id(layer)]: ids for layer in layers}
