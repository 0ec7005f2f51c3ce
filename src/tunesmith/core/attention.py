"""Attention over the shared-prefix layout, under one name in transformers' two registries.

With a `layout` keyword each segment attends to its ancestors and to itself. Without one the function
behaves as stock SDPA, so that `generate` stays right. The signature is strict: a keyword that could change the
result and is not known here raises.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunesmith.core.layout import Layout
from tunesmith.core.native.attend import Shape, attend
from tunesmith.core.native.call import takes
from tunesmith.errors import ModelError

NAME = "tunesmith"
# Up to this many keys the written-out formula is faster on a CPU, forward and backward, than fused SDPA.
SHORT = 192

# Keywords that families hand down and that do not change attention here.
HARMLESS = frozenset(
    "position_ids use_cache cache_position output_attentions output_hidden_states return_dict "
    "past_key_values position_embeddings layer_idx num_items_in_batch output_router_logits deterministic".split()
)


def layout_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    layout: Layout | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """query (B, H, T, D), key and value (B, H_kv, T, D) -> (B, T, H, D); B is 1 with a layout.

    sliding_window counts positions; softcap as in Gemma 2 (arXiv:2408.00118, 2.1); s_aux: (H,) sink logits.
    """
    _refuse_unknown(module, rest)
    causal = is_causal if is_causal is not None else bool(module.is_causal)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if layout is None:
        if softcap is None and s_aux is None:
            output, _ = sdpa_attention_forward(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scale, is_causal=is_causal
            )
            return output, None
        return _dense(query, key, value, attention_mask, causal, dropout, scale, softcap, s_aux), None

    layout.calls += 1
    heads, key_heads, dim = query.shape[1], key.shape[1], query.shape[3]
    if takes(query, key, value) and softcap is None and s_aux is None:
        shape = Shape(heads, key_heads, dim, float(scale), causal, sliding_window or 0, dropout)
        q, k, v = (x[0].transpose(0, 1).flatten(1) for x in (query, key, value))
        return attend(q, k, v, layout, shape).view(1, -1, heads, dim), None
    flat_query, flat_key, flat_value = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, D)
    outputs = []
    for group in layout.groups:
        q, k, v = _take(flat_query, group.queries), _take(flat_key, group.keys), _take(flat_value, group.keys)
        mask = group.mask(causal, sliding_window)
        if k.shape[2] > SHORT and softcap is None and s_aux is None:
            grouped = q.shape[1] != k.shape[1]
            out = functional.scaled_dot_product_attention(
                q, k, v, mask, dropout, is_causal=mask is None, scale=scale, enable_gqa=grouped
            ).transpose(1, 2)
        else:
            out = _dense(q, k, v, mask, causal, dropout, scale, softcap, s_aux)
        outputs.append(out.flatten(0, 1))
    # Filler tokens after the last segment take any row: nothing reads theirs.
    gather = functional.pad(layout.gather, (0, query.shape[2] - layout.num_tokens))
    return torch.cat(outputs).index_select(0, gather)[None], None


def _refuse_unknown(module: torch.nn.Module, keywords: dict[str, Any]) -> None:
    unknown = sorted(k for k, v in keywords.items() if v is not None and k not in HARMLESS)
    if unknown:
        raise ModelError(
            f"the attention of {type(module).__name__} was given keywords it does not know: {', '.join(unknown)}",
            "only keywords whose meaning is known",
            "set model.path=padded",
        )


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x (T, H, D), index (G, L) -> (G, H, L, D)."""
    return x.index_select(0, index.flatten()).view(*index.shape, *x.shape[1:]).transpose(1, 2)


def _dense(
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


def register() -> None:
    """Make the name known to transformers: the attention function, and stock SDPA's masks for it."""
    AttentionInterface.register(NAME, layout_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
