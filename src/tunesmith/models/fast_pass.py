"""A layer without gradient, where tiles compute it: all but attention in two chains, before it and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tunesmith.core.native.cache import Slots
from tunesmith.core.native.chain import LEAST, Chain, Own, Rows, Term
from tunesmith.core.native.sums import Laid, tiles
from tunesmith.core.packed import Tiled, stock_product
from tunesmith.models.fast_linear import Adapters, Ready, made_ready


class _Read(NamedTuple):
    """Layers that read the same states."""

    rights: list[Tensor | Laid]
    biases: list[Tensor | None]
    adapters: Adapters | None

    @property
    def widths(self) -> list[int]:
        return [right.shape[1] for right in self.rights]


class Parts(NamedTuple):
    norms: tuple[nn.Module, nn.Module]
    heads: _Read
    out: _Read
    gates: _Read
    down: _Read


def parts_of(layer: Any, x: Tensor, slots: Slots | None) -> Parts | None:
    """What computes this layer for states x (T, H), or None where it is not computed here."""
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    if torch.is_grad_enabled() or len(x) < LEAST or not tiles(x, *(norm.weight for norm in norms)):
        return None
    module, mlp = layer.self_attn, layer.mlp
    groups = (
        [module.q_proj, module.k_proj, module.v_proj],
        [module.o_proj],
        [mlp.gate_proj, mlp.up_proj],
        [mlp.down_proj],
    )
    found = [_read(group, x.dtype, slots) for group in groups]
    heads, out, gates, down = found
    if (
        heads is None
        or out is None
        or gates is None
        or down is None
        or out.biases + down.biases != [None] * 2
    ):
        return None
    return Parts(norms, heads, out, gates, down)


def _read(layers: Sequence[nn.Module], dtype: torch.dtype, slots: Slots | None) -> _Read | None:
    ready = (
        Ready(layers, dtype, stock_product, once=True) if slots is None else made_ready(layers, dtype, slots)
    )
    products = [p for p in ready.products if isinstance(p, Tiled)]
    if len(products) < len(layers):
        return None
    return _Read([p.right for p in products], [p.bias for p in products], ready.adapters)


def before_attention(parts: Parts, x: Tensor) -> list[Tensor]:
    """x (T, H) -> queries, keys and values, (T, heads * dim) of each."""
    chain = Chain(len(x))
    outs = [x.new_empty(len(x), width) for width in parts.heads.widths]
    _through(chain, parts.heads, _normed(chain, parts.norms[0], x), outs)
    chain.run()
    return outs


def after_attention(parts: Parts, attended: Tensor, x: Tensor) -> Tensor:
    """attended (T, heads * dim), x (T, H) as before attention -> the layer's states (T, H)."""
    chain = Chain(len(x))
    past, out = chain.own(x.shape[1]), torch.empty_like(x)
    _through(chain, parts.out, attended, [past], x)
    width, _ = parts.gates.widths
    gate, up = chain.own(width), chain.own(width)
    _through(chain, parts.gates, _normed(chain, parts.norms[1], past), [gate, up])
    chain.gate(gate, width, gate, up)
    _through(chain, parts.down, gate, [out], past)
    chain.run()
    return out


def _normed(chain: Chain, norm: Any, x: Rows) -> Own:
    out = chain.own(len(norm.weight))
    chain.norm(out, x, norm.weight, norm.variance_epsilon)
    return out


def _through(chain: Chain, read: _Read, x: Rows, outs: Sequence[Rows], past: Rows | None = None) -> None:
    """past: added to the only one."""
    beside: list[list[Term]] = [[] for _ in outs]
    if read.adapters is not None:
        downs, ups = read.adapters
        low = chain.own(sum(down.shape[0] for down in downs))
        first = 0
        for down in downs:
            chain.product(low.columns(first), down.shape[0], [(x, down.t())])
            first += down.shape[0]
        first = 0
        for number, up in enumerate(ups):
            beside[number].append((low.columns(first), up.t()))
            first += up.shape[1]
    for out, right, bias, more, width in zip(
        outs, read.rights, read.biases, beside, read.widths, strict=True
    ):
        added = past if bias is None else bias.expand(chain.rows, width)
        chain.product(out, width, [(x, right), *more], added)
