"""Linear layers that read the same states, with LoRA (arXiv:2106.09685) beside them, as one function.

y_i = x W_i^T + b_i + s_i (x A_i^T) B_i^T. PEFT computes each adapter on its own, in float32 beside bfloat16 weights,
with copies there and back. Here the A of all layers are one product, everything is computed in the states' own type,
and gradients come out in the adapters' type. Equal to PEFT's own up to rounding (tests/models/test_fast.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.core.native.cache import Slots
from tunesmith.core.packed import MakeProduct, Product, stock_product

ADAPTER = "default"


class Adapters(NamedTuple):
    """Of layers that read the same states, in these states' type: down (sum of ranks, H), their A one under another;
    ups: of each s B."""

    down: Tensor
    ups: list[Tensor]


def linears(x: Tensor, layers: Sequence[nn.Module], slots: Slots | None = None) -> list[Tensor]:
    """x (T, H) through each layer; layers that are not plain LoRA around plain linear ones run as they are.

    slots: of rows that are being written, without gradient; what is made of weights is kept there.
    """
    if slots is not None:
        return slots.ready(layers[0], partial(_once, layers, x.dtype, slots.product))(x)
    if not all(_is_plain_lora(layer) for layer in layers):
        return [layer(x) for layer in layers]
    parts, scales = _parts(layers)
    return list(_LoraLinears.apply(x, tuple(scales), *parts))  # type: ignore[no-untyped-call]


def _once(
    layers: Sequence[Any], dtype: torch.dtype, product: MakeProduct
) -> Callable[[Tensor], list[Tensor]]:
    """x -> its way through each layer, for many calls between which no weight changes."""
    if not all(_is_plain_lora(layer) for layer in layers):
        made = [product(la.weight, la.bias) if type(la) is nn.Linear else la for la in layers]
        return lambda x: [each(x) for each in made]
    parts, scales = _parts(layers)
    adapters = _adapters(parts[2::4], parts[3::4], scales, dtype)
    products = [product(la.base_layer.weight, la.base_layer.bias) for la in layers]
    return lambda x: _through(x, adapters, products)[1]


def _parts(layers: Sequence[nn.Module]) -> tuple[list[Tensor | None], list[float]]:
    """Weight, bias, A and B of each layer, one after another; and their scales."""
    parts: list[Tensor | None] = []
    scales = []
    for layer in layers:
        assert isinstance(layer, LoraLinear)
        base = layer.get_base_layer()
        parts += [base.weight, base.bias, layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight]
        scales.append(float(layer.scaling[ADAPTER]))
    return parts, scales


def _is_plain_lora(layer: nn.Module) -> bool:
    """One active adapter without dropout, bias or variant (DoRA and others) on a linear layer with frozen weights."""
    return (
        isinstance(layer, LoraLinear)
        and type(layer.base_layer) is nn.Linear
        and layer.active_adapters == [ADAPTER]
        and not (layer.disable_adapters or layer.merged or layer.lora_variant)
        and not layer.lora_bias[ADAPTER]
        and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
        and not layer.base_layer.weight.requires_grad
        and (layer.base_layer.bias is None or not layer.base_layer.bias.requires_grad)
    )


def _adapters(
    downs: Sequence[Tensor | None], ups: Sequence[Tensor | None], scales: Sequence[float], dtype: torch.dtype
) -> Adapters:
    down = torch.cat([a.to(dtype) for a in downs if a is not None])
    return Adapters(down, [(b * s).to(dtype) for b, s in zip(ups, scales, strict=True) if b is not None])


def _through(x: Tensor, adapters: Adapters, products: Sequence[Product]) -> tuple[Tensor, list[Tensor]]:
    """(T, sum of ranks) x through all A, and the layers' outputs. products: each layer's own, x W^T + b."""
    low = x @ adapters.down.t()
    outs = []
    parts = low.split([up.shape[1] for up in adapters.ups], 1)
    for times, up, part in zip(products, adapters.ups, parts, strict=True):
        outs.append(times(x).addmm_(part, up.t()))
    return low, outs


class _LoraLinears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: tuple[float, ...], *parts: Tensor | None) -> tuple[Tensor, ...]:
        weights, biases, downs, ups = (parts[i::4] for i in range(4))
        adapters = _adapters(downs, ups, scales, x.dtype)
        own = [stock_product(w, b) for w, b in zip(weights, biases, strict=True) if w is not None]
        low, outs = _through(x, adapters, own)
        ctx.save_for_backward(x, adapters.down, low, *adapters.ups, *(w for w in weights if w is not None))
        ctx.ranks = [up.shape[1] for up in adapters.ups]
        ctx.scales, ctx.dtype = scales, downs[0].dtype if downs[0] is not None else x.dtype
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, down, low, *rest = ctx.saved_tensors
        scaled, weights = rest[: len(ctx.ranks)], rest[len(ctx.ranks) :]
        of_low = torch.cat([g @ up for g, up in zip(grads, scaled, strict=True)], 1)
        of_down = (of_low.t() @ x).to(ctx.dtype).split(ctx.ranks)
        out: list[Tensor | None] = [None, None]
        for grad, part, scale, one in zip(grads, low.split(ctx.ranks, 1), ctx.scales, of_down, strict=True):
            out += [None, None, one, (grad.t() @ part).to(ctx.dtype).mul_(scale)]
        if ctx.needs_input_grad[0]:
            of_x = of_low @ down
            for grad, weight in zip(grads, weights, strict=True):
                of_x.addmm_(grad, weight)
            out[0] = of_x
        return tuple(out)
