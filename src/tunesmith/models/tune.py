"""What is trained: all weights, all but frozen parts, or low-rank adapters."""

from __future__ import annotations

import re
import warnings

from torch import nn

from tunesmith.config.run import FreezeConfig, LoraConfig, SftConfig
from tunesmith.errors import ConfigError
from tunesmith.models.load import Loaded

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.")


def prepare(loaded: Loaded, method: SftConfig, new_token_ids: list[int]) -> list[str]:
    """Make the trainable parameters trainable and nothing else; returns notes for a person.

    A run on top of an adapter goes on training that adapter (`tuning: lora`), or merges it first (`full`).
    """
    assert method.tuning is not None, "defaults are resolved before a run"
    notes = []
    if method.tuning == "full":
        if loaded.adapter is not None:
            loaded.model.module = loaded.model.module.merge_and_unload()
            notes.append(
                f"the adapter {loaded.adapter} was merged into its base before full-parameter training"
            )
            loaded.adapter = None
        notes += _full(loaded.model.module, method.freeze)
    elif loaded.adapter is None:
        notes += _lora(loaded, method.lora, new_token_ids)
    elif new_token_ids:
        raise ConfigError(
            f"the adapter {loaded.adapter} does not train the rows of {len(new_token_ids)} tokens that "
            "model.template adds, and an adapter cannot grow",
            "a template that ends answers with a token the adapter knows",
            "choose another model.template, or write tuning: full, which merges the adapter first",
        )
    else:
        notes.append(_go_on(loaded, method.lora))
    module = loaded.model.module
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    total = sum(p.numel() for p in module.parameters())
    if trainable == 0:
        raise ConfigError("nothing is left to train", "at least one trainable parameter", "freeze less")
    notes.append(f"{trainable:,} of {total:,} parameters are trained ({trainable / total:.1%})")
    return notes


def _full(module: nn.Module, freeze: FreezeConfig) -> list[str]:
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    patterns = [_compile(p) for p in freeze.patterns]
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
            or (freeze.embeddings and id(parameter) in embeddings)
        )
        parameter.requires_grad_(not stop)
        frozen += stop
    if unused:
        raise ConfigError(
            f"method.freeze.patterns: no parameter matches {sorted(unused)}",
            "patterns that match parameter names, such as " + next(n for n, _ in module.named_parameters()),
        )
    return [f"{frozen} weight tensors are frozen"] if frozen else []


def _lora(loaded: Loaded, config: LoraConfig, new_token_ids: list[int]) -> list[str]:
    from peft import LoraConfig as PeftLora
    from peft import TaskType, get_peft_model

    module = loaded.model.module
    targets = target_modules(module, config.modules)
    adapter = PeftLora(
        r=config.rank,
        lora_alpha=config.alpha if config.alpha is not None else 2 * config.rank,
        lora_dropout=config.dropout,
        target_modules=targets,
        task_type=TaskType.CAUSAL_LM,
        trainable_token_indices=_token_rows(module, new_token_ids) if new_token_ids else None,
        # GPT-2's Conv1D keeps its weight transposed; PEFT wants to be told.
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in module.modules()),
    )
    with warnings.catch_warnings():  # PEFT asks transformers under a name that is going away
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        loaded.model.module = get_peft_model(module, adapter)
    loaded.model.module.peft_config["default"].base_model_name_or_path = loaded.base
    notes = [f"LoRA of rank {config.rank} on {len(targets)} linear layers"]
    if new_token_ids:
        notes.append(f"the embeddings of {len(new_token_ids)} new tokens are trained beside the adapter")
    return notes


def _go_on(loaded: Loaded, config: LoraConfig) -> str:
    """Raises ConfigError where the recipe asks for another adapter than the one that is trained on."""
    own = loaded.model.module.peft_config["default"]
    adapted = _linear(loaded.model.module.get_base_model(), adapted=True)
    default = LoraConfig()
    asked: dict[str, tuple[object, object]] = {}  # what the recipe says, what the adapter has
    if config.rank not in (default.rank, own.r):
        asked["rank"] = (config.rank, own.r)
    # `tunesmith.config.defaults` makes 2 x rank of an alpha that nobody set.
    if config.alpha not in (None, 2 * config.rank, own.lora_alpha):
        asked["alpha"] = (config.alpha, own.lora_alpha)
    if config.dropout not in (default.dropout, own.lora_dropout):
        asked["dropout"] = (config.dropout, own.lora_dropout)
    if config.modules != default.modules:
        wanted = target_modules(loaded.model.module.get_base_model(), config.modules)
        if set(wanted) != set(adapted):
            asked["modules"] = (config.modules, sorted({name.split(".")[-1] for name in adapted}))
    if asked:
        raise ConfigError(
            f"the adapter {loaded.adapter} has other settings than the recipe: "
            + ", ".join(f"method.lora.{k} is {own_} there, {said} here" for k, (said, own_) in asked.items()),
            "training that goes on with an adapter keeps its rank, alpha, dropout and layers",
            "leave them out; or export the adapter merged and train a new one on that model",
        )
    return f"training goes on with the adapter {loaded.adapter} (rank {own.r}, alpha {own.lora_alpha:g})"


def _linear(module: nn.Module, *, adapted: bool = False) -> list[str]:
    """Full names of the linear layers, the head excepted; `adapted`: only those that wear an adapter."""
    from peft.tuners.lora import LoraLayer

    head = module.get_output_embeddings()  # type: ignore[operator]
    names: list[str] = []
    inside: tuple[str, ...] = ()  # of an adapted layer or of the head: parts, and no layers of the model
    for name, part in module.named_modules():
        if name.startswith(inside):
            continue
        wears = isinstance(part, LoraLayer)
        if wears or part is head:
            inside += (f"{name}.",)
        plain = isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"
        if part is not head and (wears or (plain and not adapted)):
            names.append(name)
    return names


def _token_rows(module: nn.Module, ids: list[int]) -> dict[str, list[int]]:
    """Which rows are trained in which layers: those of the embeddings and, where it is not tied to them, of the head.

    A new row of an untied head would otherwise be neither trained nor saved.
    """
    layers = [module.get_input_embeddings()]  # type: ignore[operator]
    head = module.get_output_embeddings()  # type: ignore[operator]
    if head.bias is not None:
        raise ConfigError(
            "this model's head has a bias, which PEFT leaves out where single rows of a head are trained",
            "a head without bias for a template that adds an end token",
            "choose another model.template, or write tuning: full",
        )
    if head.weight is not layers[0].weight:
        layers.append(head)
    names = {id(part): name for name, part in module.named_modules()}
    return {names[id(layer)]: ids for layer in layers}


def target_modules(module: nn.Module, patterns: list[str]) -> list[str]:
    """Full names of the linear layers that the patterns choose, the head excepted."""
    linear = _linear(module)
    if "all-linear" in patterns:
        return linear
    chosen: list[str] = []
    for pattern in patterns:
        regex = _compile(pattern)
        hits = [n for n in linear if n.split(".")[-1] == pattern or regex.search(n)]
        if not hits:
            last = sorted({n.split(".")[-1] for n in linear})
            raise ConfigError(
                f"method.lora.modules: no linear layer matches '{pattern}'", "one of " + ", ".join(last)
            )
        chosen += [n for n in hits if n not in chosen]
    return chosen


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"'{pattern}' is not a regular expression: {error}", "Python's re syntax"
        ) from error


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
