"""Layers by our own kernels, where a family's layer is one of those written here and a check finds it equal.

The module stays what it was, with its weights under their names; only `forward` is replaced, and only for calls with a
layout. On a GPU the same layers are computed by PyTorch's operators, FlashAttention and Liger's kernels. What neither
takes (float64) goes the stock way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, PretrainedConfig

from tunesmith.core import attention, gate, liger, native
from tunesmith.core.device import CPU
from tunesmith.core.layout import Layout
from tunesmith.core.model import Model
from tunesmith.core.native.call import now, takes
from tunesmith.core.native.ops import dropout, embed
from tunesmith.core.native.sums import together
from tunesmith.models import fast_decoder, fast_encoder, fast_step

TOLERANCE = 1e-4
"""Relative to the largest value of a tensor, or to FLOOR times the largest of all (gradients that are zero but for
rounding, as those of an encoder's key biases)."""
FLOOR = 1e-3
_checked: dict[str, str] = {}


def quicken(model: Model, config: PretrainedConfig, device: torch.device = CPU) -> str:
    """Give the model's layers the fast forward where it holds on the device that they will be on; returns what was
    done, in words, or nothing."""
    layers = _layers(model.module)
    if model.path != "layout" or not layers:
        return ""
    if device == CPU and native.library() is None:
        return f"plain PyTorch layers: {native.why_not()}"
    problem = check(config)
    if problem:
        return f"plain PyTorch layers: {problem}"
    norms = _last_norms(model.module)
    for part, forward in (*layers, *norms):
        part.forward = partial(forward, part)
    if len(layers) == model.num_layers:
        last = norms[-1][0] if norms else layers[-1][0]
        last.forward = partial(_read_next, last.forward)
        model.together = partial(together, next(layers[0][0].parameters()))
    embedding = (
        model.module.get_input_embeddings()
        if model.head is None
        else model.head.backbone.get_input_embeddings()
    )
    if type(embedding) is nn.Embedding and _is_plain(embedding):
        vars(embedding)["forward"] = partial(_embed, embedding)
    for name, part in model.module.named_modules():
        if type(part) is nn.Dropout and name.endswith("embeddings.dropout"):
            vars(part)["forward"] = partial(_drop, part)
    model.fast_head = model.head is None
    base = model.module.get_base_model() if isinstance(model.module, PeftModel) else model.module
    if model.fast_head and device == CPU and fast_step.is_backbone(getattr(base, "model", None)):
        model.step = fast_step.step
    if device == CPU:
        by = "by our own kernels"
    else:
        by = f"of our own on {device}" + (", norms and gates by Liger" if liger.installed() else "")
    return f"layers {by} ({len(layers)} of {type(layers[0][0]).__name__})"


def _is_plain(embedding: nn.Embedding) -> bool:
    return embedding.max_norm is None and not embedding.scale_grad_by_freq


def _embed(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embed(ids, embedding.weight, embedding.padding_idx)


def _drop(part: nn.Dropout, x: Tensor) -> Tensor:
    """Masks of our own generator, drawn on all cores."""
    made: Tensor = (
        _read_next(partial(dropout, x, part.p)) if part.training and takes(x) else type(part).forward(part, x)
    )
    return made


def _read_next(forward: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """What follows may be an operator of PyTorch's."""
    out = forward(*args, **more)
    now()
    return out


def _layers(module: Any) -> list[tuple[Any, Callable[..., Any]]]:
    """Each layer of a kind that is written here, with its forward."""
    kinds = (fast_decoder, fast_encoder)
    return [(m, kind.forward) for m in module.modules() for kind in kinds if kind.is_layer(m)]


def _last_norms(module: Any) -> list[tuple[Any, Callable[..., Any]]]:
    """What stands after the last of our layers."""
    return [
        (m, fast_decoder.norm) for name, m in module.named_modules() if fast_decoder.is_last_norm(name, m)
    ]


def check(config: PretrainedConfig) -> str:
    """What is wrong with the fast layers of a tiny clone, logits (an encoder's states) and gradients; empty where they
    equal the stock ones."""
    key = gate.fingerprint(config)
    if key not in _checked:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _checked[key] = _compare(config)
    return _checked[key]


def _compare(config: PretrainedConfig) -> str:
    encoder = gate.is_encoder(config)
    kind = AutoModel if encoder else AutoModelForCausalLM
    tiny = kind.from_config(
        gate.shrink(config), attn_implementation=attention.NAME, dtype=torch.float32
    ).eval()
    for parameter in tiny.parameters():
        torch.nn.init.normal_(
            parameter, std=0.25
        )  # not their first values, ones and zeros, which hide mistakes
    layout = Layout.of([6, 5, 7, 9, 3], [-1] * 5 if encoder else [-1, 0, 0, -1, -1])
    ids = torch.randint(10, 60, (layout.num_tokens,))
    found = []
    for fast in (False, True):
        for part, forward in (*_layers(tiny), *_last_norms(tiny)) if fast else []:
            part.forward = partial(forward, part)
        tiny.zero_grad()
        out = _outputs(tiny, ids, layout, fast and not encoder)
        (out * torch.linspace(-1, 1, out.shape[-1])).sum().backward()
        found.append([out.detach(), *(p.grad.clone() for p in tiny.parameters() if p.grad is not None)])
    least = FLOOR * max(stock.abs().max().item() for stock in found[0])
    for stock, ours in zip(*found, strict=True):
        gap = (stock - ours).abs().max().item() / max(stock.abs().max().item(), least)
        if not gap <= TOLERANCE:
            return f"they differ from the stock ones by {gap:.1e} (relative)"
    return ""


def _outputs(tiny: Any, ids: Tensor, layout: Layout, plain_head: bool) -> Tensor:
    """Logits, (1, T, V), or an encoder's states, (1, T, H)."""
    inputs = {
        "input_ids": ids[None],
        "position_ids": layout.positions[None],
        "attention_mask": torch.empty(1, 1, 0, 0),
        "layout": layout,
    }
    if gate.is_encoder(tiny.config):
        return tiny(**inputs)[0]  # type: ignore[no-any-return]
    if plain_head:
        return tiny.lm_head(tiny.model(**inputs, use_cache=False).last_hidden_state)  # type: ignore[no-any-return]
    return tiny(**inputs, use_cache=False).logits  # type: ignore[no-any-return]
