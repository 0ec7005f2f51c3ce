"""One token of each of some rows through all layers, made ready once for many tokens.

All that is computed has its place in memory, so a token costs the kernels' work and a list of calls. What is made of
weights is shared with the slots, which hold keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from tunesmith.core.native.cache import Decode
from tunesmith.core.native.call import ready
from tunesmith.models.fast_decoder import NORMS, shape_of
from tunesmith.models.fast_linear import made_ready

BACKBONES = frozenset(("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model"))
"""Whose forward is token embeddings, rotary positions, layers as in `fast_decoder`, and a norm."""


def is_backbone(module: Any) -> bool:
    return type(module).__name__ in BACKBONES and type(module.norm).__name__ in NORMS


class Step:
    """state: of any token of these rows; what it says of the tokens is copied before each."""

    def __init__(self, backbone: Any, state: Decode, count: int) -> None:
        """count: places of tokens, at least as many as rows."""
        weight = backbone.layers[0].input_layernorm.weight
        self.backbone, self.state = backbone, state
        self.x = weight.new_zeros(count, len(weight))
        dim = backbone.layers[0].self_attn.head_dim
        self.cos, self.sin = torch.zeros(count, dim), torch.zeros(count, dim)
        self.todo: list[Callable[[], None]] = []
        for layer in backbone.layers:
            self._attention(layer.self_attn, self._normed(layer.input_layernorm, self.x))
            self._mlp(layer.mlp, self._normed(layer.post_attention_layernorm, self.x))
        self.states = self._normed(backbone.norm, self.x)

    def __call__(self, ids: Tensor, state: Decode) -> Tensor:
        """ids (K,) -> (K, H), what the head reads; overwritten by the next call."""
        count = len(ids)
        self.state.rows.copy_(state.rows)
        self.state.places.copy_(state.places)
        self.x[:count] = self.backbone.embed_tokens(ids)
        cos, sin = self.backbone.rotary_emb(self.x[None, :count], state.places[None])
        self.cos[:count], self.sin[:count] = cos[0], sin[0]
        for do in self.todo:
            do()
        return self.states[:count]

    def _normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        sizes = (*x.shape, float(norm.variance_epsilon))  # type: ignore[arg-type]
        self.todo.append(ready("rms_norm", x.dtype, x, norm.weight, out, torch.empty(len(x)), *sizes))  # type: ignore[arg-type]
        return out

    def _through(self, x: Tensor, layers: list[Any]) -> list[Tensor]:
        bases = [la.get_base_layer() if isinstance(la, BaseTunerLayer) else la for la in layers]
        outs = [x.new_empty(len(x), base.out_features) for base in bases]
        self.todo.append(made_ready(layers, x.dtype, self.state.slots).into(x, outs))
        return outs

    def _added(self, x: Tensor, layer: nn.Module) -> None:
        """To the states that go past."""
        self.todo.append(made_ready([layer], x.dtype, self.state.slots).into(x, [self.x], self.x))

    def _attention(self, module: Any, x: Tensor) -> None:
        query, key, value = self._through(x, [module.q_proj, module.k_proj, module.v_proj])
        dim = module.head_dim
        if hasattr(module, "q_norm"):
            query = self._normed(module.q_norm, query.view(-1, dim)).view(query.shape)
            key = self._normed(module.k_norm, key.view(-1, dim)).view(key.shape)
        out, shape = torch.zeros_like(query), shape_of(module, query, key)
        rotary = (self.cos, self.sin)
        self.todo.append(self.state.attending(module.layer_idx, query, key, value, shape, rotary, out))
        self._added(out, module.o_proj)

    def _mlp(self, module: Any, x: Tensor) -> None:
        gate, up = self._through(x, [module.gate_proj, module.up_proj])
        out = torch.empty_like(gate)
        self.todo.append(ready("swiglu", gate.dtype, gate, up, out, gate.numel()))
        self._added(out, module.down_proj)


def step(backbone: Any, ids: Tensor, state: Decode, count: int) -> Tensor:
    """ids (K,) -> (K, H), what the head reads, until the next call. count: K rounded up: few shapes are to be seen."""
    last = state.slots.step
    if last is None or len(last.state.rows) != len(ids):
        own = Decode(state.slots, state.rows.clone(), state.places.clone())
        last = state.slots.step = Step(backbone, own, count)
    found: Tensor = last(ids, state)
    return found
