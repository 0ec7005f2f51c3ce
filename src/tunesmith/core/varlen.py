"""Attention over the layout by FlashAttention (arXiv:2307.08691) for rows of any lengths, on a GPU.

Each segment's queries attend to its path from the root. Its last query sees the whole path, and each before it one key
less, which is what FlashAttention calls causal where there are more keys than queries. Roots read their own keys where
they lie; below them, the keys of each path are gathered one after another.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.core.layout import Layout

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before PyTorch 2.10
    KNOWN: frozenset[str] = frozenset()
else:
    KNOWN = frozenset(inspect.signature(varlen_attn).parameters)
"""The arguments that this PyTorch's function has: windows since 2.11, grouped heads since 2.12."""
LARGEST_HEAD = 256
AMPERE = (8, 0)
"""The first GPUs that FlashAttention runs on."""


def flashes(query: Tensor, dropout: float) -> bool:
    """Whether FlashAttention computes this: numbers of 16 bits on a GPU that it knows, without dropout."""
    return (
        "window_size" in KNOWN
        and query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] <= LARGEST_HEAD
        and not dropout
        and torch.cuda.get_device_capability(query.device) >= AMPERE
    )


def attend_spans(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, causal: bool, window: int | None, scale: float
) -> Tensor:
    """query (T, H, D), key and value (T, H_kv, D), T >= the layout's tokens -> (T, H, D), rows past them zero."""
    spans, count = layout.spans, layout.num_tokens
    if spans.keys is not None:
        key, value = key.index_select(0, spans.keys), value.index_select(0, spans.keys)
    else:
        key, value = key[:count], value[:count]
    shared = query.shape[1] // key.shape[1]
    if shared > 1 and "enable_gqa" not in KNOWN:
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    grouped: dict[str, Any] = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    side = -1 if window is None else window - 1  # without the query's own place
    out: Any = varlen_attn(
        query[:count],
        key,
        value,
        spans.query_starts,
        spans.key_starts,
        spans.most_queries,
        spans.most_keys,
        scale=scale,
        window_size=(side, 0 if causal else side),
        **grouped,
    )
    return functional.pad(out, (0, 0, 0, 0, 0, len(query) - count))
