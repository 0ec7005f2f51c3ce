"""Which layers an adapter is put on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from torch import nn

from tunesmith.core.heads import Head, PooledHead
from tunesmith.errors import ConfigError

Value = TypeVar("Value")


def beside(head: Head | None, module: nn.Module) -> tuple[nn.Module, ...]:
    """Layers that are no part of the model's body: its heads."""
    if head is None:
        return (module.get_output_embeddings(),)  # type: ignore[operator]
    if isinstance(head.carrier, PooledHead):
        return ()
    return tuple(part for part in head.carrier.children() if part is not head.backbone)


def linear_layers(
    module: nn.Module, heads: tuple[nn.Module, ...], *, adapted: bool = False
) -> dict[str, nn.Module]:
    """Full name -> linear layer, the heads excepted; `adapted`: only those that wear an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()  # of an adapted layer or of the head: parts, and no layers of the model
    for name, part in module.named_modules():
        if name.startswith(inside):
            continue
        wears = isinstance(part, BaseTunerLayer)
        is_head = any(part is head for head in heads)
        if wears or is_head or name.endswith("pooler"):
            inside += (f"{name}.",)
        plain = isinstance(part, nn.Linear) or is_conv1d(part)
        if not is_head and (wears or (plain and not adapted)):
            found[name] = part
    return found


def is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layer, which keeps its weight transposed."""
    return type(module).__name__ == "Conv1D"


def target_modules(
    module: nn.Module, patterns: list[str], heads: tuple[nn.Module, ...], key: str = "method.lora.modules"
) -> list[str]:
    """Full names of the linear layers that the patterns choose, the heads excepted. key: where they were said."""
    linear = list(linear_layers(module, heads))
    if "all-linear" in patterns:
        return linear
    chosen: list[str] = []
    for pattern in patterns:
        hits = _hits(pattern, linear, key)
        chosen += [n for n in hits if n not in chosen]
    return chosen


def by_layer(names: list[str], values: Mapping[str, Value], key: str) -> dict[str, Value]:
    """Full name -> value of the first pattern that it matches; names without a match are left out."""
    found: dict[str, Value] = {}
    for pattern, value in values.items():
        for name in _hits(pattern, names, key):
            found.setdefault(name, value)
    return found


def _hits(pattern: str, names: list[str], key: str) -> list[str]:
    """The names whose last part the pattern is, or that it matches as a regular expression; one at least."""
    regex = compiled(pattern)
    hits = [n for n in names if n.split(".")[-1] == pattern or regex.search(n)]
    if not hits:
        last = sorted({n.split(".")[-1] for n in names})
        raise ConfigError(f"{key}: no linear layer matches '{pattern}'", "one of " + ", ".join(last))
    return hits


def compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"'{pattern}' is not a regular expression: {error}", "Python's re syntax"
        ) from error
