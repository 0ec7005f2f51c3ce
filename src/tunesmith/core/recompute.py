"""Activation checkpointing (arXiv:1604.06174): a layer keeps its input alone, and runs again on the way back.

What the layers keep for the backward pass falls from every product's input to one state a token and layer, and what one
layer keeps while its turn lasts. Each layer's forward pass is computed twice: about a third more work in a step. The
gradient is the same to the bit: the second pass draws the same dropout. A layer that neither is trained nor passes
gradient on runs once, as do all outside of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from tunesmith.core.layout import Layout


def recompute(module: nn.Module) -> int:
    """Have the layers of a transformers model (or of what is around one) run again on the way back; returns how many
    there are."""
    layers = [m for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = partial(_through, layer, layer.forward)
    return len(layers)


def _through(layer: nn.Module, forward: Callable[..., Any], *args: Any, **more: Any) -> Any:
    given = [x for x in (*args, *more.values()) if isinstance(x, Tensor)]
    passes_gradient = any(x.requires_grad for x in (*given, *layer.parameters()))
    if not (torch.is_grad_enabled() and passes_gradient):
        return forward(*args, **more)
    contexts = partial(_contexts, more.get("layout"))
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **more)


def _contexts(layout: Layout | None) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first pass, and around the second."""
    return nullcontext(), nullcontext() if layout is None else _uncounted(layout)


@contextmanager
def _uncounted(layout: Layout) -> Iterator[None]:
    """Attention calls inside are none of a forward pass."""
    calls = layout.calls
    try:
        yield
    finally:
        layout.calls = calls
