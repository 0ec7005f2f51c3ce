"""Attention over the layout by PyTorch's own operators: on a GPU, and of what the kernels do not take."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.core.layout import Layout
from tunesmith.core.varlen import attend_spans, flashes

# Up to this many keys the written-out formula is faster on a CPU, forward and backward, than fused SDPA.
SHORT = 192


def attend_tree(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    causal: bool,
    scale: float,
    window: int | None,
    *,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
) -> Tensor:
    """query (T, H, D), key and value (T, H_kv, D), T >= the layout's tokens -> (T, H, D); rows past them mean nothing.

    window, softcap and s_aux as in `tunesmith.core.attention`.
    """
    plain = softcap is None and s_aux is None
    if plain and flashes(query, dropout):
        return attend_spans(query, key, value, layout, causal, window, scale)
    outputs = []
    for group in layout.groups:
        q, k, v = _take(query, group.queries), _take(key, group.keys), _take(value, group.keys)
        mask = group.mask(causal, window)
        if k.shape[2] > SHORT and plain:
            grouped = q.shape[1] != k.shape[1]
            out = functional.scaled_dot_product_attention(
                q, k, v, mask, dropout, is_causal=mask is None, scale=scale, enable_gqa=grouped
            ).transpose(1, 2)
        else:
            out = dense(q, k, v, mask, causal, dropout, scale, softcap, s_aux)
        outputs.append(out.flatten(0, 1))
    # Filler tokens after the last segment take any row: nothing reads theirs.
    gather = functional.pad(layout.gather, (0, len(query) - layout.num_tokens))
    return torch.cat(outputs).index_select(0, gather)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x (T, H, D), index (G, L) -> (G, H, L, D)."""
    return x.index_select(0, index.flatten()).view(*index.shape, *x.shape[1:]).transpose(1, 2)


def dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout: float,
    scale: float,
    softcap: float | None,
    s_aux: Tensor | None,
) -> Tensor:
    """The formula written out: for short rows, and for what SDPA cannot do (soft-capped scores, sink logits)."""
    batch, heads, num_queries, _ = query.shape
    num_keys, shared = key.shape[2], heads // key.shape[1]
    # Heads that share a key head are stacked along the queries: one product for all of them.
    stacked = (query * scale).reshape(batch, -1, shared * num_queries, query.shape[3])
    scores = (stacked @ key.transpose(-1, -2)).view(batch, heads, num_queries, num_keys)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None and causal and num_queries > 1:
        mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril()
    if mask is not None:  # not -inf: a padded query of a batch may see no key at all
        scores = (
            scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
            if mask.dtype == torch.bool
            else scores + mask[..., :num_keys]
        )
    if s_aux is not None:
        sinks = s_aux.to(scores.dtype)[None, :, None, None].expand(batch, -1, num_queries, 1)
        scores = torch.cat([scores, sinks], -1)
    high = torch.promote_types(scores.dtype, torch.float32)
    probabilities = functional.dropout(
        scores.softmax(-1, dtype=high).to(query.dtype)[..., :num_keys], dropout
    )
    stacked = probabilities.reshape(batch, -1, shared * num_queries, num_keys)
    return (stacked @ value).view(batch, heads, num_queries, -1).transpose(1, 2)
