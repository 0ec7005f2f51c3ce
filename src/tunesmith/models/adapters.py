"""Adapters: what they start from, how training goes on with one, how they are saved. PEFT makes them (`peft_config`).

docs/decisions/0005-adapters.md says which kinds there are and why.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLora
from peft import PeftModel, get_peft_model
from peft.tuners.cartridge.utils import initialize_kv_prefix_from_past_key_values
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.config.tuning import PrefixConfig, PromptConfig, Tuning
from tunesmith.core.heads import PooledHead
from tunesmith.core.model import Model
from tunesmith.errors import ConfigError
from tunesmith.models.load import Loaded, count_virtual
from tunesmith.models.peft_config import FIELDS, INITS, KINDS, MAKERS, MUTATING, peft_config, refuse
from tunesmith.models.targets import beside, linear_layers


def adapter_of(module: Any) -> PeftModel | None:
    """The PEFT model that a module, or the backbone of a pooled head, is."""
    worn = module.backbone if isinstance(module, PooledHead) else module
    return worn if isinstance(worn, PeftModel) else None


def kind_of(module: Any) -> str:
    """`full`, or the kind of adapter that a module wears; PEFT's name in small letters for one that is not ours."""
    worn = adapter_of(module)
    if worn is None:
        return "full"
    name: str = worn.peft_config["default"].to_dict()["peft_type"]
    return KINDS.get(name, name.lower())


def wear(loaded: Loaded, method: Tuning, new_token_ids: list[int]) -> list[str]:
    """Put a new adapter on a model, which is frozen beneath it; returns notes for a person.

    Its random first weights come from torch's generator.
    """
    assert method.tuning is not None, "defaults are resolved before a run"
    pooled = isinstance(loaded.model.module, PooledHead)
    module = loaded.model.module.backbone if pooled else loaded.model.module
    refuse(loaded.model, module, method, new_token_ids)
    config = peft_config(method, loaded.model, module, new_token_ids)
    ids = _first_tokens(loaded, method)
    past = _keys_and_values(module, ids) if method.tuning == "prefix" else None
    with warnings.catch_warnings():  # PEFT asks transformers under a name that is going away
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        worn = get_peft_model(module, config)
    worn.peft_config["default"].base_model_name_or_path = loaded.base
    if past is not None:
        initialize_kv_prefix_from_past_key_values(worn, past_key_values=past)
    elif ids is not None:
        with torch.no_grad():
            worn.prompt_encoder["default"].embedding.weight.copy_(module.get_input_embeddings()(ids))
    if method.tuning == "lora" and method.lora.init in MUTATING:
        _remember(worn)
    if pooled:
        loaded.model.module.backbone = worn
    else:
        loaded.model.module = worn
    count_virtual(loaded.model)
    return [_describe(method, worn), *_notes(loaded.model, method, new_token_ids)]


def _first_tokens(loaded: Loaded, method: Tuning) -> Tensor | None:
    """(n,) the real tokens that virtual ones start from."""
    section: PromptConfig | PrefixConfig
    if method.tuning == "prompt":
        section = method.prompt
    elif method.tuning == "prefix":
        section = method.prefix
    else:
        return None
    device = loaded.model.device
    if not section.text:
        return torch.randint(len(loaded.tokenizer), (section.tokens,)).to(device)
    ids = loaded.tokenizer(section.text, add_special_tokens=False)["input_ids"]
    repeats = math.ceil(section.tokens / len(ids))
    return torch.tensor((ids * repeats)[: section.tokens], device=device)


def _keys_and_values(module: Any, ids: Tensor | None) -> Any:
    """The cache that the model has after reading these tokens."""
    assert ids is not None
    training = module.training
    module.eval()
    with torch.no_grad():
        past = module(input_ids=ids[None], use_cache=True).past_key_values
    module.train(training)
    return past


def _describe(method: Tuning, worn: PeftModel) -> str:
    config = worn.peft_config["default"]
    if method.tuning == "prompt":
        return f"prompt tuning: {method.prompt.tokens} learned embeddings before each row"
    if method.tuning == "prefix":
        return (
            f"prefix tuning: {method.prefix.tokens} learned keys and values before each row, in every layer"
        )
    layers = f"on {len(config.target_modules)} linear layers"
    if method.tuning == "ia3":
        return f"(IA)3 {layers}, {len(config.feedforward_modules)} of them on their inputs"
    if method.tuning != "lora":
        return f"{'LoHa' if method.tuning == 'loha' else 'VeRA'} of rank {config.r} {layers}"
    name = "LoRA"
    for is_so, other in ((method.lora.rslora, "rsLoRA"), (method.lora.dora, "DoRA")):
        if is_so:
            name = other if name == "LoRA" else f"{name} and {other}"
    start = "" if method.lora.init == "default" else f", {method.lora.init} first weights"
    return f"{name} of rank {config.r} {layers}{start}"


def _notes(model: Model, method: Tuning, new_token_ids: list[int]) -> Iterator[str]:
    if model.head is not None:
        yield "the head is trained beside the adapter"
    if method.tuning == "lora" and method.lora.train_embeddings:
        yield "the token embeddings and the language-model head are trained beside the adapter"
    elif new_token_ids:
        yield f"the embeddings of {len(new_token_ids)} new tokens are trained beside the adapter"
    if method.tuning == "lora" and method.lora.init in MUTATING and model.module.dtype == torch.bfloat16:
        yield (
            f"{method.lora.init} in bfloat16 rounds the base that it trains on; the saved adapter on the true base "
            "differs by that rounding"
        )


def go_on(loaded: Loaded, method: Tuning) -> str:
    """Raises ConfigError where the recipe asks for another adapter than the one that is trained on."""
    worn = adapter_of(loaded.model.module)
    assert worn is not None
    assert method.tuning is not None
    own = worn.peft_config["default"].to_dict()
    kind = kind_of(worn)
    if kind != method.tuning:
        raise ConfigError(
            f"the adapter {loaded.adapter} is of the kind {kind}, the recipe says tuning: {method.tuning}",
            "training that goes on with an adapter keeps its kind",
            f"write tuning: {kind}"
            if kind in FIELDS
            else "export it merged and train a new one on that model",
        )
    asked = _other_settings(loaded.model, worn, method)
    if asked:
        raise ConfigError(
            f"the adapter {loaded.adapter} has other settings than the recipe: "
            + ", ".join(
                f"method.{kind}.{name} is {has} there, {said} here" for name, (said, has) in asked.items()
            ),
            "training that goes on with an adapter keeps its rank, alpha, dropout, layers and all that made it",
            "leave them out; or export the adapter merged and train a new one on that model",
        )
    sizes = {"rank": "r", "alpha": "lora_alpha", "tokens": "num_virtual_tokens"}
    words = ", ".join(f"{word} {own[name]:g}" for word, name in sizes.items() if own.get(name) is not None)
    return f"training goes on with the adapter {loaded.adapter} ({words or kind})"


def _other_settings(model: Model, worn: PeftModel, method: Tuning) -> dict[str, tuple[Any, Any]]:
    """Name of each setting that the recipe says otherwise -> (what it says, what the adapter has)."""
    assert method.tuning is not None
    section = dict(method)[method.tuning]
    default = type(section)()
    said = {name: value for name, value in section if value != dict(default)[name]}
    if "alpha" in said and said["alpha"] == section.default_alpha():
        del said["alpha"]  # `tunesmith.config.defaults` fills it in where nobody set it
    base = worn.get_base_model()
    heads = beside(model.head, base)
    wanted, own = MAKERS[method.tuning](method, base, heads).to_dict(), worn.peft_config["default"].to_dict()
    own["target_modules"] = list(linear_layers(base, heads, adapted=True))
    found: dict[str, tuple[Any, Any]] = {}
    for name, value in said.items():
        peft_name = FIELDS[method.tuning].get(name)
        if name == "train_embeddings":
            if not isinstance(base.get_input_embeddings(), ModulesToSaveWrapper):
                found[name] = (value, False)
        elif peft_name is None:
            found[name] = (repr(value), "only for a new adapter")
        elif _plain(wanted[peft_name]) != _plain(own[peft_name]):
            found[name] = (value, _words(name, own[peft_name]))
    return found


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | list) else value


def _words(name: str, own: Any) -> Any:
    """A setting of PEFT's as a recipe would say it."""
    if name in ("modules", "feedforward"):
        return sorted({layer.split(".")[-1] for layer in own})
    return {value: ours for ours, value in INITS.items()}.get(own, own) if name == "init" else own


# -- PiSSA and OLoRA: W = W' + s B0 A0 while training, saved as W + s [B, -B0] [A; A0] --------------------


def _remember(worn: PeftModel) -> None:
    """Keep each layer's first A and B: the base was changed by their product.

    They are no part of a checkpoint: a resumed run builds them again from the untouched base, and its changed base with
    them.
    """
    for layer in worn.modules():
        if isinstance(layer, LoraLayer):
            for part, matrices in (("A", layer.lora_A), ("B", layer.lora_B)):
                first = matrices["default"].weight.detach().clone()
                layer.register_buffer(f"initial_{part}", first, persistent=False)


def save_as_plain(worn: PeftModel, folder: Path) -> None:
    """Turn a saved PiSSA or OLoRA adapter in `folder` into LoRA of twice the rank on the untouched base; any other is
    left as it is.

    PEFT's own conversion (`subtract_mutated_init`) does the same sum, but loses heads and magnitudes on the way.
    """
    first = {name: buffer for name, buffer in worn.named_buffers() if ".initial_" in name}
    if not first:
        return
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for name, buffer in first.items():
        layer, _, part = name.rpartition(".initial_")
        key = f"{layer}.lora_{part}.weight"
        sign, dim = (1, 0) if part == "A" else (-1, 1)
        tensors[key] = torch.cat([tensors[key], sign * buffer.to(tensors[key])], dim).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    config = PeftLora.from_pretrained(folder)
    factor = math.sqrt(2) if config.use_rslora else 2
    config.r, config.lora_alpha = 2 * config.r, factor * config.lora_alpha
    config.rank_pattern = {name: 2 * rank for name, rank in config.rank_pattern.items()}
    config.alpha_pattern = {name: factor * alpha for name, alpha in config.alpha_pattern.items()}
    config.init_lora_weights = True
    config.save_pretrained(folder)
