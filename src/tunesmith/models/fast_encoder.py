"""Layers of BERT's kind (arXiv:1810.04805) by our own kernels, DistilBERT's among them.

x = norm(x + dropout(out(attention(x)))); x = norm(x + dropout(down(gelu(up(x))))).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import GELUActivation

from tunesmith.core.layout import Layout
from tunesmith.core.native.attend import Shape, attend
from tunesmith.core.native.call import now, ours
from tunesmith.core.native.ops import add_norm, gelu
from tunesmith.core.native.sums import together
from tunesmith.core.native.tape import as_one
from tunesmith.models.fast_linear import linears
from tunesmith.models.fast_source import Passed, Source

BERTS = frozenset(("BertLayer", "RobertaLayer", "XLMRobertaLayer", "CamembertLayer", "ElectraLayer"))
"""Whose forward is the one written here; checked all the same."""
DISTILBERT = "TransformerBlock"
PASSED = Passed()


class Parts(NamedTuple):
    """What a layer is made of; dropouts as probabilities."""

    attention: Any
    queries: list[nn.Module]
    """And keys and values."""
    heads: int
    out: nn.Module
    out_dropout: float
    out_norm: nn.LayerNorm
    up: nn.Module
    activation: nn.Module
    down: nn.Module
    down_dropout: float
    down_norm: nn.LayerNorm


def is_layer(module: Any) -> bool:
    kind = type(module)
    if not kind.__module__.startswith("transformers.models."):
        return False
    if kind.__name__ in BERTS:
        return not module.is_decoder
    return kind.__name__ == DISTILBERT and ".distilbert." in kind.__module__


def forward(
    layer: Any, hidden_states: Tensor, *args: Any, layout: Layout | None = None, **rest: Any
) -> Tensor:
    """(1, T, H) -> (1, T, H)."""
    parts = _distilbert(layer) if type(layer).__name__ == DISTILBERT else _bert(layer)
    if layout is None or not ours(hidden_states, parts.out_norm.weight):
        now()
        stock: Tensor = type(layer).forward(layer, hidden_states, *args, layout=layout, **rest)
        return stock
    layout.calls += 1
    x = hidden_states.squeeze(0)
    with together(x):
        return as_one(layer, x, lambda: _through(parts, x, layout, layer.training))[None]


def _through(parts: Parts, x: Tensor, layout: Layout, training: bool) -> Tensor:
    """(T, H) -> (T, H)."""
    own = parts.attention
    query, key, value, x = linears(Source(PASSED, (x,)), parts.queries)
    dropout = own.dropout.p if own.training else 0.0
    dim = query.shape[1] // parts.heads
    shape = Shape(parts.heads, parts.heads, dim, own.scaling, False, 0, dropout)
    (mixed,) = linears(attend(query, key, value, layout, shape), [parts.out])
    x = add_norm(mixed, x, parts.out_norm, parts.out_dropout if training else 0.0)
    inner, x = linears(Source(PASSED, (x,)), [parts.up])
    (out,) = linears(_activated(parts.activation, inner), [parts.down])
    return add_norm(out, x, parts.down_norm, parts.down_dropout if training else 0.0)


def _activated(activation: nn.Module, x: Tensor) -> Tensor:
    exact = type(activation) is GELUActivation and activation.act is functional.gelu
    exact = exact or (type(activation) is nn.GELU and activation.approximate == "none")
    if exact:
        return gelu(x)
    now()
    return activation(x)  # type: ignore[no-any-return]


def _bert(layer: Any) -> Parts:
    own, first, second = layer.attention.self, layer.attention.output, layer.output
    return Parts(
        attention=own,
        queries=[own.query, own.key, own.value],
        heads=own.num_attention_heads,
        out=first.dense,
        out_dropout=first.dropout.p,
        out_norm=first.LayerNorm,
        up=layer.intermediate.dense,
        activation=layer.intermediate.intermediate_act_fn,
        down=second.dense,
        down_dropout=second.dropout.p,
        down_norm=second.LayerNorm,
    )


def _distilbert(layer: Any) -> Parts:
    own, inner = layer.attention, layer.ffn
    return Parts(
        attention=own,
        queries=[own.q_lin, own.k_lin, own.v_lin],
        heads=own.n_heads,
        out=own.out_lin,
        out_dropout=0.0,
        out_norm=layer.sa_layer_norm,
        up=inner.lin1,
        activation=inner.activation,
        down=inner.lin2,
        down_dropout=inner.dropout.p,
        down_norm=layer.output_layer_norm,
    )
