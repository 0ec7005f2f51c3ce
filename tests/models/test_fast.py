"""Layers by our own kernels equal the stock ones: loss and every gradient, full and with adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import nn
from transformers import MistralConfig, Qwen2Config

from tests import fakes
from tests.core.native.formulas import waiting_and_not
from tunesmith.config.methods import SftConfig
from tunesmith.core import native
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.models import fast, fast_decoder
from tunesmith.models.fast import quicken
from tunesmith.models.fast_source import Gated
from tunesmith.objectives.sft import Sft

pytestmark = pytest.mark.skipif(native.library() is None, reason=native.why_not())

KINDS: dict[str, Callable[[], Any] | None] = {
    "full": None,
    "lora": lambda: peft.LoraConfig(r=4, lora_alpha=12, target_modules="all-linear"),
    "patterns": lambda: peft.LoraConfig(
        r=4, target_modules="all-linear", rank_pattern={"q_proj": 2, "up_proj": 3}
    ),
    "some": lambda: peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]),
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True, target_modules="all-linear"),
    "head beside": lambda: peft.LoraConfig(r=4, target_modules="all-linear", modules_to_save=["lm_head"]),
    "ia3": lambda: peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
}
BASE = dict(
    vocab_size=fakes.VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, pad_token_id=0,
)  # fmt: skip
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: fakes.config("llama"),
    "llama with biases": lambda: fakes.config("llama", attention_bias=True, mlp_bias=True),
    "llama untied": lambda: fakes.config("llama", tie_word_embeddings=False),
    "qwen3": lambda: fakes.config("qwen3"),
    "mistral": lambda: MistralConfig(**BASE, sliding_window=6),
    "qwen2": lambda: Qwen2Config(**BASE, use_sliding_window=True, max_window_layers=1, sliding_window=6),
}


def made(config: Any, kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """A module that wears the adapter, both with weights that are not at their first values."""
    torch.manual_seed(0)
    fakes.attention.register()
    module = fakes.AutoModelForCausalLM.from_config(config, attn_implementation=fakes.attention.NAME)
    fakes.randomise(module)
    adapter = KINDS[kind]
    if adapter is not None:
        module = peft.get_peft_model(module, adapter())
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return module.to(dtype)


def loss_and_gradients(model: Model, smoothing: float = 0.0) -> tuple[float, dict[str, torch.Tensor]]:
    batch = Batch.from_rows(fakes.rows(6, begin=5))
    assert max(batch.layout.parents) >= 0, "rows that share their beginning"
    out = Sft(SftConfig(label_smoothing=smoothing)).loss(model, batch)
    out.terms["sft"].backward()
    found = {n: p.grad.to_dense() for n, p in model.module.named_parameters() if p.grad is not None}
    return out.terms["sft"].item(), found


def compare(config: Any, kind: str, smoothing: float = 0.0) -> str:
    ours = Model(made(config, kind), "layout", 2)
    said = quicken(ours, config)
    stock = made(config, kind)
    stock.set_attn_implementation("sdpa")
    loss, gradients = loss_and_gradients(ours, smoothing)
    wanted, reference = loss_and_gradients(Model(stock, "padded", 2), smoothing)
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert gradients.keys() == reference.keys()
    for name, gradient in gradients.items():
        gap = (gradient - reference[name]).abs().max() / reference[name].abs().max().clamp_min(1e-6)
        assert gap < 2e-5, f"{name}: {gap:.1e}"
    return said


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_loss_and_gradients_equal_padded_stock_layers(family: str, kind: str) -> None:
    assert "by our own kernels (2 of" in compare(CONFIGS[family](), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter(kind: str) -> None:
    config = fakes.config("llama", tie_word_embeddings=False)
    assert "by our own kernels" in compare(config, kind, smoothing=0.1)


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "gpt2"])
def test_other_families_keep_their_layers(family: str) -> None:
    config = fakes.config(family)
    model = Model(fakes.module(family, dtype=torch.float32), "layout", 2)
    assert quicken(model, config) == ""
    assert not model.fast_head


def test_a_layer_that_is_not_equal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = fakes.config("llama")
    monkeypatch.setattr(fast, "_checked", {})
    monkeypatch.setattr(Gated, "made", lambda self, gate, up: (nn.functional.gelu(gate) * up, [gate, up]))
    model = Model(made(config, "full"), "layout", 2)
    assert "they differ from the stock ones by" in quicken(model, config)
    assert not model.fast_head
    assert all("forward" not in vars(m) for m in model.module.modules())


def test_without_the_library_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_load", lambda: (None, "no C++ compiler"))
    config = fakes.config("llama")
    model = Model(made(config, "full"), "layout", 2)
    assert quicken(model, config) == "plain PyTorch layers: no C++ compiler"
    loss_and_gradients(model)


def test_doubles_and_generation_go_the_stock_way() -> None:
    config = fakes.config("llama")
    model = Model(made(config, "full", torch.float64), "layout", 2)
    quicken(model, config)
    loss, _ = loss_and_gradients(model)
    stock, _ = loss_and_gradients(Model(made(config, "full", torch.float64), "layout", 2))
    assert loss == stock
    single = Model(made(config, "full"), "layout", 2)
    ids = torch.tensor([[5, 9, 17]])
    before = single.module.generate(ids, max_new_tokens=8, do_sample=False)
    quicken(single, config)
    assert torch.equal(single.module.generate(ids, max_new_tokens=8, do_sample=False), before)


def test_dropout_of_attention_follows_the_seed_and_stops_outside_training() -> None:
    config = fakes.config("llama", attention_dropout=0.5)
    model = Model(made(config, "full"), "layout", 2)
    quicken(model, config)
    model.module.train()
    torch.manual_seed(1)
    first, _ = loss_and_gradients(model)
    torch.manual_seed(2)
    assert loss_and_gradients(model)[0] != first
    torch.manual_seed(1)
    assert loss_and_gradients(model)[0] == first
    model.module.eval()
    assert loss_and_gradients(model)[0] == loss_and_gradients(model)[0]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_layer_keeps_neither_its_norms_nor_its_gated_unit(kind: str) -> None:
    """Of each token and layer: x twice, the states of attention (query, key, value, what it read), gate and up."""
    config = fakes.config("llama", hidden_size=64, intermediate_size=96)
    model = Model(made(config, kind), "layout", 2)
    quicken(model, config)
    batch = Batch.from_rows(fakes.rows(6, begin=5))
    kept: dict[int, int] = {}
    weights = {p.data_ptr() for p in model.module.parameters()}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if len(x) >= batch.layout.num_tokens and x.dim() == 2 and x.data_ptr() not in weights:
            kept[x.data_ptr()] = x.shape[1]
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model._flat(model.module if kind == "full" else model.module.get_base_model(), batch)
    heads = config.num_key_value_heads * model.module.config.head_dim
    widest = 2 * (4 * config.hidden_size + 2 * heads + 2 * config.intermediate_size)
    low = 4 * (3 + 1 + 2 + 1) if kind == "lora" else 0
    assert sum(kept.values()) <= widest + 2 * low + 2 * config.hidden_size


def test_dropout_of_an_adapter_goes_pefts_way() -> None:
    config = fakes.config("llama")
    torch.manual_seed(0)
    adapter = peft.LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", init_lora_weights=False)
    model = Model(peft.get_peft_model(made(config, "full"), adapter), "layout", 2)
    quicken(model, config)
    model.module.train()
    torch.manual_seed(1)
    first, _ = loss_and_gradients(model)
    torch.manual_seed(2)
    assert loss_and_gradients(model)[0] != first


def test_bfloat16_is_as_near_to_float32_as_the_stock_layers_are() -> None:
    config = fakes.config("llama", hidden_size=64, intermediate_size=96)
    _, exact = loss_and_gradients(Model(made(config, "lora"), "layout", 2))
    ours = Model(made(config, "lora", torch.bfloat16), "layout", 2)
    quicken(ours, config)
    _, fast_ones = loss_and_gradients(ours)
    _, stock = loss_and_gradients(Model(made(config, "lora", torch.bfloat16), "layout", 2))

    def cosine(found: dict[str, torch.Tensor]) -> float:
        a, b = (torch.cat([g[n].float().flatten() for n in exact]) for g in (found, exact))
        return nn.functional.cosine_similarity(a, b, dim=0).item()

    assert cosine(fast_ones) > 0.999
    assert 1 - cosine(fast_ones) < 1.5 * (1 - cosine(stock))


@pytest.mark.parametrize(
    ("family", "kind"),
    [(f, k) for f in CONFIGS for k in KINDS if f == "llama untied" or k not in ("head beside", "ia3")],
)
def test_kernels_that_wait_for_each_other_make_the_same(
    family: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that PyTorch computes stand between them where an adapter is not plain LoRA."""

    def made_of() -> tuple[float, dict[str, torch.Tensor]]:
        config = CONFIGS[family]()
        model = Model(made(config, kind, torch.bfloat16), "layout", 2)
        quicken(model, config)
        return loss_and_gradients(model)

    (loss, grads), (wanted, of_wanted) = waiting_and_not(made_of, fast_decoder, monkeypatch)
    assert loss == wanted
    assert all(torch.equal(grad, of_wanted[name]) for name, grad in grads.items())


def test_the_last_norm_is_ours_for_what_our_layers_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(made(CONFIGS["llama"](), "lora"), "layout", 2)
    quicken(model, model.module.config)
    seen = []
    real = fast_decoder.rms_norm
    monkeypatch.setattr(fast_decoder, "rms_norm", lambda *of: seen.append(of[0].shape) or real(*of))
    loss_and_gradients(model)
    assert len(seen) == 1
    model.module(input_ids=torch.arange(5)[None], attention_mask=torch.ones(1, 5))
    assert len(seen) == 1
