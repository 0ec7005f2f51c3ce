"""Decoder layers by our own kernels, where a family's layer is the one written here and a check finds it equal.

The layer is that of Llama (arXiv:2302.13971) and its kin: x += attention(norm(x)); x += down(silu(gate(h)) * up(h))
with h = norm(x). The module stays what it was, with its weights under their names; only `forward` is replaced, and only
for calls with a layout. What the kernels do not take (another type, another device, dropout) goes the stock way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from tunesmith.core import attention, gate, native
from tunesmith.core.layout import Layout
from tunesmith.core.model import Model
from tunesmith.core.native.attend import Shape, attend
from tunesmith.core.native.cache import Decode, Prefill
from tunesmith.core.native.call import takes
from tunesmith.core.native.ops import rms_norm, swiglu
from tunesmith.models.fast_linear import linears

ATTENTIONS = frozenset(("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention"))
"""Whose forward is the one written here; checked all the same."""
NORMS = frozenset(("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"))
PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
TOLERANCE = 1e-4
_checked: dict[str, str] = {}


def quicken(model: Model, config: PretrainedConfig) -> str:
    """Give the model's layers the fast forward where it holds; returns what was done, in words, or nothing."""
    layers = [m for m in model.module.modules() if _is_layer(m)]
    if model.path != "layout" or not layers:
        return ""
    if native.library() is None:
        return f"plain PyTorch layers: {native.why_not()}"
    problem = check(config)
    if problem:
        return f"plain PyTorch layers: {problem}"
    for layer in layers:
        layer.forward = partial(_forward, layer)
    model.fast_head = model.head is None
    return f"layers by our own kernels ({len(layers)} of {type(layers[0]).__name__})"


def check(config: PretrainedConfig) -> str:
    """What is wrong with the fast layers of a tiny clone, logits and gradients; empty where they equal the stock
    ones."""
    key = gate.fingerprint(config)
    if key not in _checked:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _checked[key] = _compare(config)
    return _checked[key]


def _compare(config: PretrainedConfig) -> str:
    tiny = AutoModelForCausalLM.from_config(
        gate.shrink(config), attn_implementation=attention.NAME, dtype=torch.float32
    ).eval()
    layout = Layout.of([6, 5, 7, 9, 3], [-1, 0, 0, -1, -1])
    ids = torch.randint(10, 60, (layout.num_tokens,))
    found = []
    for fast in (False, True):
        for layer in (m for m in tiny.modules() if fast and _is_layer(m)):
            layer.forward = partial(_forward, layer)
        tiny.zero_grad()
        inputs = {
            "input_ids": ids[None],
            "position_ids": layout.positions[None],
            "attention_mask": torch.empty(1, 1, 0, 0),
            "layout": layout,
            "use_cache": False,
        }
        logits = tiny.lm_head(tiny.model(**inputs).last_hidden_state) if fast else tiny(**inputs).logits
        (logits * torch.linspace(-1, 1, logits.shape[-1])).sum().backward()
        found.append([logits.detach(), *(p.grad.clone() for p in tiny.parameters() if p.grad is not None)])
    for stock, ours in zip(*found, strict=True):
        gap = (stock - ours).abs().max().item() / max(stock.abs().max().item(), 1e-12)
        if not gap <= TOLERANCE:
            return f"they differ from the stock ones by {gap:.1e} (relative)"
    return ""


def _is_layer(module: Any) -> bool:
    if {name for name, _ in module.named_children()} != PARTS:
        return False
    mlp = module.mlp
    return (
        type(module.self_attn).__name__ in ATTENTIONS
        and {type(n).__name__ for n in (module.input_layernorm, module.post_attention_layernorm)} <= NORMS
        and all(hasattr(mlp, part) for part in ("gate_proj", "up_proj", "down_proj"))
        and type(mlp.act_fn).__name__ in ("SiLU", "SiLUActivation")
    )


def _forward(
    layer: Any,
    hidden_states: Tensor,
    *args: Any,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    layout: Layout | Prefill | Decode | None = None,
    **rest: Any,
) -> Any:
    """(1, T, H) -> (1, T, H)."""
    attention_module = layer.self_attn
    if (
        layout is None
        or position_embeddings is None
        or rest.get("past_key_values") is not None
        or (layer.training and attention_module.attention_dropout)
        or not takes(hidden_states, layer.input_layernorm.weight)
    ):
        return type(layer).forward(
            layer, hidden_states, *args, position_embeddings=position_embeddings, layout=layout, **rest
        )
    if isinstance(layout, Layout):
        layout.calls += 1
    normed, x = _norm(layer.input_layernorm, hidden_states[0])
    x = x + _attention(attention_module, normed, position_embeddings, layout)
    normed, x = _norm(layer.post_attention_layernorm, x)
    mlp = layer.mlp
    gate_, up = linears(normed, [mlp.gate_proj, mlp.up_proj])
    (out,) = linears(swiglu(gate_, up), [mlp.down_proj])
    return (x + out)[None]


def _norm(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    return rms_norm(x, module.weight, module.variance_epsilon)  # type: ignore[arg-type]


def _attention(
    module: Any, x: Tensor, rotary: tuple[Tensor, Tensor], layout: Layout | Prefill | Decode
) -> Tensor:
    query, key, value = linears(x, [module.q_proj, module.k_proj, module.v_proj])
    dim = module.head_dim
    if hasattr(module, "q_norm"):
        query = _norm(module.q_norm, query.view(-1, dim))[0].view(query.shape)
        key = _norm(module.k_norm, key.view(-1, dim))[0].view(key.shape)
    window = getattr(module, "sliding_window", getattr(module.config, "sliding_window", None))
    shape = Shape(query.shape[1] // dim, key.shape[1] // dim, dim, module.scaling, True, window or 0)
    turned = (rotary[0][0], rotary[1][0])
    if isinstance(layout, Layout):
        out = attend(query, key, value, layout, shape, turned)
    else:
        out = layout.attend(module.layer_idx, query, key, value, shape, turned)
    return linears(out, [module.o_proj])[0]
