"""Attention over the shared-prefix layout by batched products; softmax, gathers and rotary positions in kernels.

softmax(scale * q k^T) v as in arXiv:1706.03762, 3.2.1. Rows are computed in blocks of queries against the keys that
they see at most (`Layout.blocks`), so no masks exist, and of a long row's square only the lower steps are computed.
Up to KEPT keys the shares are kept for the backward pass, above they are computed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunesmith.core.layout import Block, Layout
from tunesmith.core.native.call import call, takes, whole
from tunesmith.core.native.ops import dropped, seed
from tunesmith.core.native.short import AttendShort, are_short
from tunesmith.core.native.sums import product, tiles
from tunesmith.core.native.tape import apply
from tunesmith.core.plain import attend_tree

KEPT = 512


@dataclass(frozen=True)
class Shape:
    """heads share key heads in equal groups; window in places, 0: any distance; dropout: of the shares."""

    heads: int
    key_heads: int
    dim: int
    scale: float
    causal: bool
    window: int
    dropout: float = 0.0


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    shape: Shape,
    rotary: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """query (T, heads * dim), key and value (T, key_heads * dim), T >= the layout's tokens -> (T, heads * dim).

    rotary: cosines and sines (T, dim) with which query and key are turned first. Rows past the layout's mean nothing.
    What the kernels do not take, PyTorch's operators compute.
    """
    if not takes(query, key, value):
        return _attend_plain(query, key, value, layout, shape, rotary)
    in_tiles = tiles(query, key, value) and shape.dim % 32 == 0
    alike = rotary is None and not (shape.causal or shape.window) and shape.heads == shape.key_heads
    if not in_tiles and alike and are_short(layout):
        query, key, value = (_rows(x) for x in (query, key, value))
        sizes = (shape.heads, shape.dim, shape.scale)
        return apply(AttendShort, query, key, value, layout.starts, sizes, shape.dropout)  # type: ignore[no-any-return]
    cos, sin = (None, None) if rotary is None else layout.turns(*rotary)
    way = _AttendTiles if in_tiles else _Attend
    out: Tensor = apply(way, query, key, value, cos, sin, layout, shape)
    return out


def _attend_plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    shape: Shape,
    rotary: tuple[Tensor, Tensor] | None,
) -> Tensor:
    q, k, v = (x.view(len(x), -1, shape.dim) for x in (query, key, value))
    if rotary is not None:
        q, k = turned(q, *rotary), turned(k, *rotary)
    window = shape.window or None
    return attend_tree(q, k, v, layout, shape.causal, shape.scale, window, dropout=shape.dropout).flatten(1)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (T, heads, dim), cos and sin (T, dim): each token's heads turned to its position (arXiv:2104.09864, 34, with
    the halves of a head as real and imaginary parts)."""
    first, second = x.chunk(2, -1)
    return (x * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]).to(x.dtype)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cos: Tensor | None,
        sin: Tensor | None,
        layout: Layout,
        shape: Shape,
    ) -> Tensor:
        query, key, value = (_rows(x) for x in (query, key, value))
        out = query.new_zeros(query.shape)
        kept: list[Tensor] = []
        ctx.seed = seed() if shape.dropout else 0
        for number, block in enumerate(layout.blocks(shape.causal)):
            q, k, v = _gathered(block, query, key, value, cos, sin, shape)
            shares = _shares(block, q, k, shape)
            read = _dropped(shares, ctx.seed + number, shape)
            _scatter(block, product(read, v), None, None, out, shape)
            if block.keys.shape[1] <= KEPT and any(ctx.needs_input_grad):
                kept.append(shares)
        ctx.save_for_backward(query, key, value, cos, sin, *kept)
        ctx.layout, ctx.shape = layout, shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, cos, sin, *kept = ctx.saved_tensors
        layout, shape = ctx.layout, ctx.shape
        grad = _rows(grad)
        of_query = torch.zeros_like(query)
        of_key, of_value = (torch.zeros(len(key), shape.key_heads * shape.dim) for _ in range(2))
        for number, block in enumerate(layout.blocks(shape.causal)):
            q, k, v = _gathered(block, query, key, value, cos, sin, shape)
            shares = kept.pop(0) if block.keys.shape[1] <= KEPT else _shares(block, q, k, shape)
            of_out = gather(grad, block.queries, block.real, shape.heads, shape.dim, None, None)
            of_out = of_out.view(q.shape)
            read = _dropped(shares, ctx.seed + number, shape)
            of_scores = _dropped(product(of_out, v.transpose(1, 2)), ctx.seed + number, shape)
            call(
                "softmax_backward",
                shares.dtype,
                shares,
                of_scores,
                shares.shape[0] * shares.shape[1],
                shares.shape[2],
                shape.scale,
            )
            _scatter(block, product(of_scores, k), cos, sin, of_query, shape)
            for sums, part in (
                (of_key, product(of_scores.transpose(1, 2), q)),
                (of_value, product(read.transpose(1, 2), of_out)),
            ):
                call(
                    "scatter_add_heads",
                    part.dtype,
                    part.contiguous(),
                    block.keys,
                    block.real_keys,
                    sums,
                    len(block.keys),
                    shape.key_heads,
                    block.keys.shape[1],
                    shape.dim,
                )
        return (
            of_query,
            _written(of_key, cos, sin, key, shape),
            _written(of_value, None, None, value, shape),
            None,
            None,
            None,
            None,
        )


class _AttendTiles(torch.autograd.Function):
    """The same without blocks and shares in memory, a head of a piece at a time (attend.h)."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cos: Tensor | None,
        sin: Tensor | None,
        layout: Layout,
        shape: Shape,
    ) -> Tensor:
        query, key, value = (_rows(x) for x in (query, key, value))
        out = torch.empty(query.shape, dtype=query.dtype)
        out[layout.num_tokens :] = 0
        norms = torch.empty(2, shape.heads, len(query)) if any(ctx.needs_input_grad) else None
        ctx.seed = seed() if shape.dropout else 0
        inputs = _said(query, key, value, cos, sin, layout, shape, ctx.seed)
        call("attend_tiles", None, *inputs, out, out.stride(0), norms, len(query))
        ctx.save_for_backward(query, key, value, cos, sin, out, norms)
        ctx.layout, ctx.shape = layout, shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, cos, sin, out, norms = ctx.saved_tensors
        grad, layout = _rows(grad), ctx.layout
        made = [torch.empty(x.shape, dtype=x.dtype) for x in (query, key, value)]
        for x in made:
            x[layout.num_tokens :] = 0
        inputs = _said(query, key, value, cos, sin, layout, ctx.shape, ctx.seed)
        rows = (y for x in (grad, *made) for y in (x, x.stride(0)))
        call("attend_tiles_backward", None, *inputs, out, out.stride(0), norms, len(query), *rows)
        return (*made, None, None, None, None)


def _said(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    layout: Layout,
    shape: Shape,
    seed: int,
) -> tuple[Tensor | int | float | None, ...]:
    pieces = layout.pieces(shape.causal)
    units = (pieces.units, len(pieces.units) - 1)
    heads = (shape.key_heads, shape.heads // shape.key_heads, shape.dim)
    rows = (query, query.stride(0), key, key.stride(0), value, value.stride(0), cos, sin)
    seen = (int(shape.causal), shape.window, shape.scale)
    return (*rows, pieces.table, pieces.tokens, *units, *heads, *seen, seed, float(shape.dropout))


def _rows(x: Tensor) -> Tensor:
    """Heads side by side in each row; rows may stand apart."""
    return x if x.stride(-1) == 1 else whole(x)


def gather(
    x: Tensor, index: Tensor, real: Tensor, heads: int, dim: int, cos: Tensor | None, sin: Tensor | None
) -> Tensor:
    """x (T, heads * dim), index (G, L) of tokens, of which real (G,) count -> (G, heads, L, dim), the others zero.

    cos, sin: (T, dim) float32, turn each token's heads to its position.
    """
    if not takes(x):
        rows = x.view(len(x), heads, dim)
        rows = rows if cos is None or sin is None else turned(rows, cos, sin)
        within = torch.arange(index.shape[1], device=x.device) < real[:, None]
        return (rows[index] * within[:, :, None, None]).transpose(1, 2)
    rows = x.new_empty(len(index), heads, index.shape[1], dim)
    call(
        "gather_heads",
        x.dtype,
        x,
        x.stride(0),
        index,
        real,
        cos,
        sin,
        rows,
        len(index),
        heads,
        index.shape[1],
        dim,
    )
    return rows


def _gathered(
    block: Block,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    shape: Shape,
) -> tuple[Tensor, Tensor, Tensor]:
    """(G * key_heads, shared * Q, dim), queries that share a key head one under another; (G * key_heads, K, dim)
    twice."""
    q = gather(query, block.queries, block.real, shape.heads, shape.dim, cos, sin)
    k = gather(key, block.keys, block.real_keys, shape.key_heads, shape.dim, cos, sin)
    v = gather(value, block.keys, block.real_keys, shape.key_heads, shape.dim, None, None)
    groups, keys = len(q) * shape.key_heads, block.keys.shape[1]
    return q.view(groups, -1, shape.dim), k.view(groups, keys, shape.dim), v.view(groups, keys, shape.dim)


def _shares(block: Block, q: Tensor, k: Tensor, shape: Shape) -> Tensor:
    scores = product(q, k.transpose(1, 2))
    call(
        "softmax_seen",
        scores.dtype,
        scores,
        block.before,
        block.real,
        block.real_keys,
        len(block.queries),
        shape.heads,
        block.queries.shape[1],
        block.keys.shape[1],
        int(shape.causal),
        shape.window,
        shape.scale,
    )
    return scores


def _dropped(shares: Tensor, seed: int, shape: Shape) -> Tensor:
    """The same mask for the same block's shares and for their gradient."""
    return dropped(shares, seed, shape.dropout) if shape.dropout else shares


def _scatter(
    block: Block, rows: Tensor, cos: Tensor | None, sin: Tensor | None, out: Tensor, shape: Shape
) -> None:
    call(
        "scatter_heads",
        rows.dtype,
        rows.contiguous(),
        block.queries,
        block.real,
        cos,
        sin,
        out,
        out.stride(0),
        len(block.queries),
        shape.heads,
        block.queries.shape[1],
        shape.dim,
    )


def _written(sums: Tensor, cos: Tensor | None, sin: Tensor | None, like: Tensor, shape: Shape) -> Tensor:
    out = torch.empty(like.shape, dtype=like.dtype)
    call("write_heads", like.dtype, sums, cos, sin, out, out.stride(0), len(sums), shape.key_heads, shape.dim)
    return out
