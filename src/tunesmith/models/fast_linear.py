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
from tunesmith.core.native.call import do, now, takes, whole
from tunesmith.core.native.ops import column_sums
from tunesmith.core.native.sums import Laid, Pair, Scaled, Sum, fill, ready, tiles, together
from tunesmith.core.native.tape import apply
from tunesmith.core.packed import MakeProduct, Product, Tiled
from tunesmith.models.fast_source import Kind, Passed, Plain, Source

ADAPTER = "default"
PLAIN = Plain()


Factor = Tensor | Scaled


class Adapters(NamedTuple):
    """Of layers that read the same states, as these states are multiplied by them: downs, A (r, H) of each or all one
    under another; ups, s B (N, r) of each."""

    downs: list[Factor]
    ups: list[Factor]


def made_ready(layers: Sequence[nn.Module], dtype: torch.dtype, slots: Slots) -> Ready:
    """As long as rows are written in these slots."""
    return slots.ready(layers[0], partial(Ready, layers, dtype, slots.product))


def linears(
    source: Tensor | Source,
    layers: Sequence[nn.Module],
    slots: Slots | None = None,
    past: Tensor | None = None,
) -> list[Tensor]:
    """What the source makes, (T, H), through each layer, and what goes past it; layers that are neither plain nor plain
    LoRA around plain ones run as they are. past (T, N): added to what the only layer says.

    slots: of rows that are being written, without gradient; what is made of weights is kept there.
    """
    kind, of = source if isinstance(source, Source) else (PLAIN, (source,))
    parts, scales = _parts(layers, of[0]) if slots is None else (None, [])
    if parts is not None and takes(*of):
        given = (past, *(whole(t) for t in of)) if kind is not PLAIN else (past, *of)
        return list(apply(_Linears, kind, len(of), tuple(scales), *given, *parts))
    x, *beside = kind.by_autograd(*of)
    if slots is not None:
        outs = made_ready(layers, x.dtype, slots)(x)
    elif parts is not None:
        outs = list(apply(_Linears, PLAIN, 1, tuple(scales), None, x, *parts))
    else:
        now()
        outs = [layer(x) for layer in layers]
    if past is not None:
        now()
        outs = [past + outs[0]]
    return [*outs, *beside]


class Ready:
    """Layers that read the same states, for many calls between which no weight changes; or for one, with adapters as
    they lie where tiles read them so."""

    def __init__(
        self, layers: Sequence[Any], dtype: torch.dtype, product: MakeProduct, *, once: bool = False
    ) -> None:
        self.adapters: Adapters | None = None
        if all(_is_plain_lora(layer) for layer in layers):
            parts, scales = _lora_parts(layers)
            downs, ups = parts[2::4], parts[3::4]
            in_place = once and _lie((*downs, *ups))
            self.adapters = (
                _in_place(downs, ups, scales) if in_place else _adapters(downs, ups, scales, dtype)
            )
            layers = [layer.base_layer for layer in layers]
        self.products: list[Product] = [
            product(la.weight, la.bias) if type(la) is nn.Linear else la for la in layers
        ]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """x (T, H) -> each layer's output (T, N)."""
        if all(isinstance(p, Tiled) for p in self.products):
            outs = [x.new_empty(len(x), p.right.shape[1]) for p in self.products if isinstance(p, Tiled)]
            do(self.into(_lines(x), outs))
            return outs
        outs = [p(x) for p in self.products]
        if self.adapters is not None:
            low, todo = _low(x, self.adapters.downs)
            parts = zip(outs, _split(low, self.adapters.ups), self.adapters.ups, strict=True)
            fill(*todo, *(Sum(out, [(part, up.t())], out, after=True) for out, part, up in parts))
        return outs

    def into(self, x: Tensor, outs: Sequence[Tensor], past: Tensor | None = None) -> Callable[[], None]:
        """What fills `outs` by x, any number of times. past: is added to the only one, which may be itself."""
        rights = [p.right for p in self.products if isinstance(p, Tiled)]
        biases = [p.bias for p in self.products if isinstance(p, Tiled)]
        if len(rights) == len(outs) and (past is None or biases == [None]):
            return ready(*_sums(x, rights, biases, self.adapters, outs, past)[0])

        def run() -> None:
            for out, found in zip(outs, self(x), strict=True):
                out.copy_(found if past is None else past + found)

        return run


def _parts(layers: Sequence[nn.Module], x: Tensor) -> tuple[list[Tensor | None] | None, list[float]]:
    """Of `_Linears`, where it computes these layers; and the adapters' scales."""
    if all(_is_plain_lora(layer) for layer in layers):
        return _lora_parts(layers)
    if not all(type(la) is nn.Linear and takes(x, la.weight) for la in layers):
        return None, []
    return [part for la in layers for part in (la.weight, la.bias, None, None)], []  # type: ignore[misc]


def _lora_parts(layers: Sequence[nn.Module]) -> tuple[list[Tensor | None], list[float]]:
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
    """Copies in this type."""
    down = torch.cat([a.to(dtype) for a in downs if a is not None])
    return Adapters([down], [(b * s).to(dtype) for b, s in zip(ups, scales, strict=True) if b is not None])


def _in_place(
    downs: Sequence[Tensor | None], ups: Sequence[Tensor | None], scales: Sequence[float]
) -> Adapters:
    """As they lie, in float32."""
    of_downs: list[Factor] = [Scaled(a) for a in downs if a is not None]
    return Adapters(of_downs, [Scaled(b, s) for b, s in zip(ups, scales, strict=True) if b is not None])


def _lie(adapters: Sequence[Tensor | None]) -> bool:
    """Whether tiles read them as they are."""
    return all(a is not None and a.dtype is torch.float32 and a.is_contiguous() for a in adapters)


def _kept(tensors: Sequence[Tensor], ctx: Any) -> Adapters:
    """As on the way forth, of what was kept of them."""
    layers = len(ctx.scales)
    downs, ups = tensors[:-layers], tensors[-layers:]
    return Adapters([*downs], [*ups]) if ctx.copied else _in_place(downs, ups, ctx.scales)


def _low(x: Tensor, downs: Sequence[Factor]) -> tuple[Tensor, list[Sum]]:
    """(T, sum of ranks), x through all A; and what fills it."""
    ranks = [down.shape[0] for down in downs]
    low = x.new_empty(x.shape[0], sum(ranks))
    return low, [
        Sum(part, [(x, down.t())]) for part, down in zip(low.split_with_sizes(ranks, 1), downs, strict=True)
    ]


def _sums(
    x: Tensor,
    rights: Sequence[Tensor | Laid],
    biases: Sequence[Tensor | None],
    adapters: Adapters | None,
    outs: Sequence[Tensor],
    past: Tensor | None,
) -> tuple[list[Sum], Tensor | None]:
    """What fills outs; and x through all A, which it fills before them. past: added to the only one."""
    terms: list[list[Pair]] = [[(x, right)] for right in rights]
    todo: list[Sum] = []
    low: Tensor | None = None
    if adapters is not None:
        low, todo = _low(x, adapters.downs)
        for each, part, up in zip(terms, _split(low, adapters.ups), adapters.ups, strict=True):
            each.append((part, up.t()))
    for number, (out, each, bias) in enumerate(zip(outs, terms, biases, strict=True)):
        todo.append(Sum(out, each, _added(bias, past, out), after=number == 0 and low is not None))
    return todo, low


class _Linears(torch.autograd.Function):
    """count: of the tensors that the source is made of, which come first. parts: of each layer weight (N, H), bias (N,)
    or None, A (r, H) and B (N, r), or None twice in all of them."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: Kind,
        count: int,
        scales: tuple[float, ...],
        past: Tensor | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        of, parts = [t for t in tensors[:count] if t is not None], tensors[count:]
        biases, downs, ups = (parts[i::4] for i in (1, 2, 3))
        weights = [w for w in parts[::4] if w is not None]
        # What stays is taken before what goes with this call, and so has no holes.
        outs = [of[0].new_empty(of[0].shape[0], w.shape[0]) for w in weights]
        x, made_of = kind.made(*of)
        x = _lines(x)
        adapters, kept = None, []
        if scales:
            ctx.copied = not (tiles(x) and _lie((*downs, *ups)))
            adapters = _adapters(downs, ups, scales, x.dtype) if ctx.copied else _in_place(downs, ups, scales)
            kept = [f if isinstance(f, Tensor) else f.data for f in (*adapters.downs, *adapters.ups)]
        todo, low = _sums(x, [w.t() for w in weights], biases, adapters, outs, past)
        fill(*todo)
        ctx.save_for_backward(*made_of, *weights, low, *kept)
        ctx.kind, ctx.scales, ctx.sizes = kind, scales, (count, len(made_of), len(weights))
        ctx.dtype = x.dtype if downs[0] is None else downs[0].dtype
        return (*outs, *(t.view_as(t) for t in of[:1] if kind.passes))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with together(grads[0]):
            return _Linears._back(ctx, *grads)

    @staticmethod
    def _back(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        count, of_source, layers = ctx.sizes
        saved = ctx.saved_tensors  # once: what is computed again is then gone
        made_of, (*weights, low) = saved[:of_source], saved[of_source:][: layers + 1]
        lines = [_lines(g) for g in grads[:layers]]
        terms: list[Pair] = list(zip(lines, weights, strict=True))
        todo: list[Sum] = []
        if ctx.scales:
            downs, ups = _kept(saved[of_source + layers + 1 :], ctx)
            of_low = torch.empty_like(low)
            todo += [Sum(p, [(g, u)]) for p, g, u in zip(_split(of_low, ups), lines, ups, strict=True)]
            ranks = [down.shape[0] for down in downs]
            terms += zip(of_low.split_with_sizes(ranks, 1), downs, strict=True)
        passed = whole(grads[layers]) if len(grads) > layers else None
        of_x = None
        if any(ctx.needs_input_grad[4 : 4 + count]):
            of_x = lines[0].new_empty(lines[0].shape[0], weights[0].shape[1])
            beside = passed if isinstance(ctx.kind, Passed) else None  # a norm's way back comes between
            todo.append(Sum(of_x, terms, beside, after=bool(ctx.scales)))
        fill(*todo)
        x, of_made = ctx.kind.back(of_x, passed, ctx.needs_input_grad[3 + count], *made_of)
        x = _lines(x)
        of_downs: Sequence[Tensor | None] = [None] * layers
        of_ups: list[Tensor] = []
        todo = []
        if ctx.scales:
            of_down = x.new_empty(low.shape[1], x.shape[1], dtype=ctx.dtype)
            todo.append(Sum(of_down, [(of_low.t(), x)]))
            of_downs = of_down.split_with_sizes([up.shape[1] for up in ups])
            of_ups = [x.new_empty(up.shape, dtype=ctx.dtype) for up in ups]
            for of_up, part, grad, scale in zip(of_ups, _split(low, ups), lines, ctx.scales, strict=True):
                todo.append(Sum(of_up.t(), [(part.t(), grad)], scale=scale))
        wanted = ctx.needs_input_grad[4 + count :]
        of_weights = [torch.empty_like(w) if n else None for w, n in zip(weights, wanted[::4], strict=True)]
        todo += [Sum(w, [(g.t(), x)]) for w, g in zip(of_weights, lines, strict=True) if w is not None]
        fill(*todo)
        of_biases = [column_sums(g, g.dtype) if n else None for g, n in zip(lines, wanted[1::4], strict=True)]
        of_past = grads[0] if ctx.needs_input_grad[3] else None
        out: list[Tensor | None] = [None, None, None, of_past, *of_made]
        for each in zip(of_weights, of_biases, of_downs, of_ups or of_downs, strict=True):
            out += each
        return tuple(out)


def _added(bias: Tensor | None, past: Tensor | None, out: Tensor) -> Tensor | None:
    """What a product is added to, of out's shape."""
    if bias is None:
        return past
    if past is None:
        return bias.expand_as(out)
    now()
    return past + bias


def _split(low: Tensor, ups: Sequence[Factor]) -> tuple[Tensor, ...]:
    """(T, sum of ranks) -> of each layer (T, its rank)."""
    parts: tuple[Tensor, ...] = low.split_with_sizes([up.shape[1] for up in ups], 1)
    return parts


def _lines(x: Tensor) -> Tensor:
    """Each row's elements side by side; rows may stand apart."""
    return x if x.stride(1) == 1 else whole(x)
