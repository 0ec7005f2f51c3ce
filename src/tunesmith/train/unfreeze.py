"""Gradual unfreezing (arXiv:1801.06146, 3.3): the top trains first, then one more group of layers at a time.

The groups, from the top: a head in place of the language-model head, with the pooler that it reads through; each layer,
the top one with what stands above it (a final norm, the language-model head); the embeddings, tied ones too. Without
such a head the top layer's group is the first. A group of which nothing is trainable (`method.freeze`) does not count.

What trains is a function of the passes over the data so far, so a resume needs no state of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn

from tunesmith.core.model import Model
from tunesmith.errors import ConfigError
from tunesmith.models.adapters import adapter_of
from tunesmith.models.tune import LAYER


def groups(model: Model) -> dict[str, int]:
    """Name of each trainable parameter -> its group, 0 for the first that trains.

    Raises ConfigError where the model wears an adapter, is an encoder-decoder, or has layers without weights of their
    own (ALBERT).
    """
    trainable = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    if adapter_of(model.module) is not None:
        raise ConfigError(
            "train.unfreeze_every with an adapter, which has no layers that are frozen at first",
            "full-parameter tuning",
            "write method.tuning: full, or leave train.unfreeze_every out",
        )
    if model.start_id is not None:
        raise ConfigError(
            "train.unfreeze_every with an encoder-decoder model, which has two tops",
            "a decoder, or a model with a head",
            "leave train.unfreeze_every out, or choose another model",
        )
    numbered = {int(m[1]) for name, _ in model.module.named_parameters() if (m := LAYER.search(name))}
    if numbered != set(range(model.num_layers)):
        raise ConfigError(
            f"train.unfreeze_every, but {len(numbered)} of the model's {model.num_layers} layers have weights of "
            "their own",
            "a model whose layers can be trained one by one",
            "leave train.unfreeze_every out",
        )
    depths = depths_of(model, trainable)
    rank = {depth: index for index, depth in enumerate(sorted(set(depths.values())))}
    return {name: rank[depth] for name, depth in depths.items()}


def depths_of(model: Model, parameters: dict[str, nn.Parameter]) -> dict[str, int]:
    """0 for a head, 1 for the top layer ..., one more than the bottom layer's for the embeddings."""
    head: set[int] = set()
    if model.head is not None:
        inside = {id(p) for p in model.head.backbone.parameters()}
        head = {id(p) for p in model.module.parameters()} - inside
        pooler = model.head.backbone._modules.get("pooler")
        head |= {id(p) for p in pooler.parameters()} if pooler is not None else set()
    embeddings = {id(m.weight) for m in model.module.modules() if isinstance(m, nn.Embedding)}
    depths = {}
    for name, parameter in parameters.items():
        layer = LAYER.search(name)
        if id(parameter) in head:
            depths[name] = 0
        elif layer is not None:
            depths[name] = model.num_layers - int(layer[1])
        # Norms and projections of the embeddings would pull the gradient through every layer above them.
        elif id(parameter) in embeddings or "emb" in name:
            depths[name] = model.num_layers + 1
        else:
            depths[name] = 1
    return depths


def group_at(epoch: float, every: float) -> int:
    """The last group that trains after `epoch` passes over the data."""
    return math.floor(epoch / every + 1e-9)  # 0.3 / 0.1 is 2.9999999999999996


def describe(groups: Iterable[int], last_epoch: float, every: float) -> str:
    """What a person should know before the run. last_epoch: passes before the last step."""
    count = max(groups) + 1
    reached = min(group_at(last_epoch, every) + 1, count)
    return (
        f"gradual unfreezing: one more of {count} groups of layers trains every {every:g} epochs; "
        + ("all of them do" if reached == count else f"only {reached} of them do")
        + " by the last step"
    )
