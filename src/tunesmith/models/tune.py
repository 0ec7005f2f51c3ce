"""What is trained: all weights, all but frozen parts, or an adapter."""

from __future__ import annotations

import re
from typing import Any

from peft.utils.other import ModulesToSaveWrapper
from torch import nn

from tunesmith.config.tuning import FreezeConfig, Tuning, Writes
from tunesmith.core.heads import Head, PooledHead
from tunesmith.core.model import Model
from tunesmith.errors import ConfigError
from tunesmith.models.adapters import adapter_of, go_on, wear
from tunesmith.models.load import Loaded
from tunesmith.models.peft_config import PEFT_HEADS
from tunesmith.models.targets import compiled

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.")
EMBEDDINGS = re.compile(r"(?:^|\.)embeddings(?:_project)?\.")


def prepare(loaded: Loaded, method: Tuning, new_token_ids: list[int]) -> list[str]:
    """Make the trainable parameters trainable and nothing else; returns notes for a person.

    A run on top of an adapter goes on training that adapter (the same `tuning`), or merges it first (`full`).
    """
    assert method.tuning is not None, "defaults are resolved before a run"
    if isinstance(method, Writes) and loaded.head is not None:
        raise ConfigError(
            f"method.type={dict(method)['type']} on {loaded.base}, a model with a head for "
            + ", ".join(loaded.head.labels[:5]),
            "a language model",
            f"write method.type={loaded.head.method}, or name the model that it was made from",
        )
    notes = []
    if method.tuning == "full":
        if loaded.adapter is not None:
            loaded.model.module = merged(loaded.model.module)
            notes.append(
                f"the adapter {loaded.adapter} was merged into its base before full-parameter training"
            )
            loaded.adapter = None
        notes += _full(loaded.model.module, method.freeze)
    elif loaded.adapter is None:
        notes += wear(loaded, method, new_token_ids)
    elif new_token_ids:
        raise ConfigError(
            f"the adapter {loaded.adapter} does not train the rows of {len(new_token_ids)} tokens that "
            "model.template adds, and an adapter cannot grow",
            "a template that ends answers with a token the adapter knows",
            "choose another model.template, or write tuning: full, which merges the adapter first",
        )
    else:
        notes.append(go_on(loaded, method))
    module = loaded.model.module
    _freeze_unread(loaded.model.head)
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    total = sum(p.numel() for p in module.parameters())
    if trainable == 0:
        raise ConfigError("nothing is left to train", "at least one trainable parameter", "freeze less")
    notes.append(f"{trainable:,} of {total:,} parameters are trained ({trainable / total:.1%})")
    return notes


def _full(module: nn.Module, freeze: FreezeConfig) -> list[str]:
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    patterns = [compiled(p) for p in freeze.patterns]
    unused = set(freeze.patterns)
    layers = {int(m[1]) for name, _ in module.named_parameters() if (m := LAYER.search(name))}
    if freeze.layers and freeze.layers > len(layers):
        raise ConfigError(
            f"method.freeze.layers={freeze.layers}", f"at most the model's {len(layers)} layers"
        )
    frozen = 0
    for name, parameter in module.named_parameters():
        layer = LAYER.search(name)
        hits = [p.pattern for p in patterns if p.search(name)]
        unused -= set(hits)
        stop = (
            bool(hits)
            or (layer is not None and int(layer[1]) < freeze.layers)
            or (freeze.embeddings and (id(parameter) in embeddings or EMBEDDINGS.search(name) is not None))
        )
        parameter.requires_grad_(not stop)
        frozen += stop
    if unused:
        raise ConfigError(
            f"method.freeze.patterns: no parameter matches {sorted(unused)}",
            "patterns that match parameter names, such as " + next(n for n, _ in module.named_parameters()),
        )
    return [f"{frozen} weight tensors are frozen"] if frozen else []


def lr_factors(model: Model, layer_decay: float, head_factor: float) -> dict[str, float]:
    """Name of each parameter -> its learning rate as a multiple of the run's.

    The top layer, the norm above it and the language-model head have 1; a layer below has the one above it times
    `layer_decay`, the embeddings (with the norm on them) those of the first layer times it again; a head in place of
    the language-model head has `head_factor`. Learned tokens before the rows have 1.
    """
    backbone = {id(p) for p in model.head.backbone.parameters()} if model.head is not None else None
    embeddings = {id(m.weight) for m in model.module.modules() if isinstance(m, nn.Embedding)}
    factors = {}
    for name, parameter in model.module.named_parameters():
        layer = LAYER.search(name)
        if "prompt_encoder." in name:
            factors[name] = 1.0
        elif backbone is not None and id(parameter) not in backbone:
            factors[name] = head_factor
        elif layer is not None:
            factors[name] = layer_decay ** (model.num_layers - 1 - int(layer[1]))
        else:
            lowest = id(parameter) in embeddings or EMBEDDINGS.search(name)
            factors[name] = layer_decay**model.num_layers if lowest else 1.0
    return factors


def merged(module: Any) -> Any:
    """The module with its adapter's update added to its weights (LoRA: W + alpha / r * B A).

    Raises ConfigError for adapters that change no weights.
    """
    worn = adapter_of(module)
    assert worn is not None, "a module with an adapter"
    if worn.peft_config["default"].is_prompt_learning:
        raise ConfigError(
            "prompt and prefix tuning put learned tokens before each row and change no weights: nothing can be merged",
            "an adapter that changes weights, such as LoRA",
            "use the adapter as it is",
        )
    if isinstance(module, PooledHead):
        module.backbone = worn.merge_and_unload()
        return module
    base = worn.get_base_model()
    for name in PEFT_HEADS:  # PEFT itself unwraps a head of several layers for LoRA only
        head = base._modules.get(name)
        if isinstance(head, ModulesToSaveWrapper):
            setattr(base, name, head.modules_to_save["default"])
    return worn.merge_and_unload()


def _freeze_unread(head: Head | None) -> None:
    """A pooler that the head does not read through has no gradient and keeps its weights."""
    if head is not None and isinstance(head.carrier, PooledHead):
        pooler = head.backbone._modules.get("pooler")
        if pooler is not None:
            pooler.requires_grad_(False)


def grow_embeddings(loaded: Loaded, new_ids: list[int]) -> None:
    """Give tokens that were added to the tokenizer rows in the embeddings; the rows of old tokens keep their bits.

    A new row starts at the mean of the old ones. Nothing grows where the embedding has spare rows.
    """
    if not new_ids:
        return
    module = loaded.model.module
    if len(loaded.tokenizer) > module.get_input_embeddings().num_embeddings:
        module.resize_token_embeddings(len(loaded.tokenizer), mean_resizing=False)
    for layer in {
        id(m.weight): m for m in (module.get_input_embeddings(), module.get_output_embeddings())
    }.values():
        weight = layer.weight.data
        weight[new_ids] = weight[: min(new_ids)].float().mean(0).to(weight.dtype)
