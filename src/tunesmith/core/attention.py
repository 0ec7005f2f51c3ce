"""Attention over the shared-prefix layout, under one name in transformers' two registries.

With a `layout` keyword each segment attends to its ancestors and to itself. Without one the function
behaves as stock SDPA, so that `generate` stays right. The signature is strict: a keyword that could change the
result and is not known here raises.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunesmith.core.layout import Layout
from tunesmith.core.native.attend import Shape, attend
from tunesmith.core.native.call import takes
from tunesmith.core.plain import attend_tree, dense
from tunesmith.errors import ModelError

NAME = "tunesmith"

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
        return dense(query, key, value, attention_mask, causal, dropout, scale, softcap, s_aux), None

    layout.calls += 1
    heads, key_heads, dim = query.shape[1], key.shape[1], query.shape[3]
    if takes(query, key, value) and softcap is None and s_aux is None:
        shape = Shape(heads, key_heads, dim, float(scale), causal, sliding_window or 0, dropout)
        q, k, v = (x[0].transpose(0, 1).flatten(1) for x in (query, key, value))
        return attend(q, k, v, layout, shape).view(1, -1, heads, dim), None
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    out = attend_tree(
        q, k, v, layout, causal, scale, sliding_window, dropout=dropout, softcap=softcap, s_aux=s_aux
    )
    return out[None], None


def _refuse_unknown(module: torch.nn.Module, keywords: dict[str, Any]) -> None:
    unknown = sorted(k for k, v in keywords.items() if v is not None and k not in HARMLESS)
    if unknown:
        raise ModelError(
            f"the attention of {type(module).__name__} was given keywords it does not know: {', '.join(unknown)}",
            "only keywords whose meaning is known",
            "set model.path=padded",
        )


def register() -> None:
    """Make the name known to transformers: the attention function, and stock SDPA's masks for it."""
    AttentionInterface.register(NAME, layout_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
