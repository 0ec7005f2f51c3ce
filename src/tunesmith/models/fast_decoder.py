"""Layers of Llama's kind (arXiv:2302.13971) by our own kernels.

x += attention(norm(x)); x += down(silu(gate(h)) * up(h)) with h = norm(x).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tunesmith.core.layout import Layout
from tunesmith.core.native.attend import Shape, attend
from tunesmith.core.native.cache import Decode, Prefill, Slots
from tunesmith.core.native.call import now, ours
from tunesmith.core.native.ops import rms_norm
from tunesmith.core.native.sums import together
from tunesmith.core.native.tape import as_one
from tunesmith.models import fast_pass
from tunesmith.models.fast_linear import linears
from tunesmith.models.fast_source import Gated, Normed, Source

ATTENTIONS = frozenset(("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention"))
"""Whose forward is the one written here; checked all the same."""
NORMS = frozenset(("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"))
GATED = Gated()
PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


def is_layer(module: Any) -> bool:
    if {name for name, _ in module.named_children()} != PARTS:
        return False
    mlp = module.mlp
    return (
        type(module.self_attn).__name__ in ATTENTIONS
        and {type(n).__name__ for n in (module.input_layernorm, module.post_attention_layernorm)} <= NORMS
        and all(hasattr(mlp, part) for part in ("gate_proj", "up_proj", "down_proj"))
        and type(mlp.act_fn).__name__ in ("SiLU", "SiLUActivation")
    )


def forward(
    layer: Any,
    hidden_states: Tensor,
    *args: Any,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    layout: Layout | Prefill | Decode | None = None,
    **rest: Any,
) -> Any:
    """(1, T, H) -> (1, T, H)."""
    if (
        layout is None
        or position_embeddings is None
        or rest.get("past_key_values") is not None
        or not ours(hidden_states, layer.input_layernorm.weight)
    ):
        now()
        return type(layer).forward(
            layer, hidden_states, *args, position_embeddings=position_embeddings, layout=layout, **rest
        )
    if isinstance(layout, Layout):
        layout.calls += 1
    slots = None if isinstance(layout, Layout) else layout.slots
    x = hidden_states.squeeze(0)  # of an index, the gradient would be a copy among zeros
    if parts := fast_pass.parts_of(layer, x, slots):
        query, key, value = fast_pass.before_attention(parts, x)
        attended = _attention(layer.self_attn, query, key, value, position_embeddings, layout)
        made = fast_pass.after_attention(parts, attended, x)
        now()  # without gradient nothing stays, and what follows finds its room in the caches
        return made[None]
    if slots is not None:  # which keep what kernels make by PyTorch's operators
        return _through(layer, x, position_embeddings, layout, slots)[None]
    with together(x):
        made = as_one(layer, x, lambda: _through(layer, x, position_embeddings, layout, slots))[None]
    made.of_layout = True  # type: ignore[attr-defined]  # the norm after the last layer is given no layout
    return made


def _through(
    layer: Any,
    x: Tensor,
    rotary: tuple[Tensor, Tensor],
    layout: Layout | Prefill | Decode,
    slots: Slots | None,
) -> Tensor:
    """(T, H) -> (T, H)."""
    own, mlp = layer.self_attn, layer.mlp
    reads = [own.q_proj, own.k_proj, own.v_proj]
    query, key, value, x = linears(_normed(layer.input_layernorm, x), reads, slots)
    attended = _attention(own, query, key, value, rotary, layout)
    (x,) = linears(attended, [own.o_proj], slots, past=x)
    gate_, up, x = linears(_normed(layer.post_attention_layernorm, x), [mlp.gate_proj, mlp.up_proj], slots)
    (x,) = linears(Source(GATED, (gate_, up)), [mlp.down_proj], slots, past=x)
    return x


def is_last_norm(name: str, module: nn.Module) -> bool:
    return type(module).__name__ in NORMS and name.split(".")[-1] == "norm"


def norm(module: Any, hidden_states: Tensor) -> Any:
    """(1, T, H) -> (1, T, H), of what a layer has made for a layout."""
    if not (hasattr(hidden_states, "of_layout") and ours(hidden_states, module.weight)):
        now()
        return type(module).forward(module, hidden_states)
    return rms_norm(hidden_states.squeeze(0), module.weight, module.variance_epsilon)[0][None]


def _normed(module: Any, x: Tensor) -> Source:
    return Source(Normed(module.variance_epsilon), (x, module.weight))


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rotary: tuple[Tensor, Tensor],
    layout: Layout | Prefill | Decode,
) -> Tensor:
    """(T, heads * dim)."""
    dim = module.head_dim
    if hasattr(module, "q_norm"):
        query, key = (
            rms_norm(each.view(-1, dim), part.weight, part.variance_epsilon)[0].view(each.shape)
            for each, part in ((query, module.q_norm), (key, module.k_norm))
        )
    shape = shape_of(module, query, key)
    turned = (rotary[0][0], rotary[1][0])
    if isinstance(layout, Layout):
        return attend(query, key, value, layout, shape, turned)
    return layout.attend(module.layer_idx, query, key, value, shape, turned)


def shape_of(module: Any, query: Tensor, key: Tensor) -> Shape:
    window = getattr(module, "sliding_window", getattr(module.config, "sliding_window", None))
    dropout = module.attention_dropout if module.training else 0.0
    dim = module.head_dim
    return Shape(query.shape[1] // dim, key.shape[1] // dim, dim, module.scaling, True, window or 0, dropout)
