"""Layers that run again on the way back: the same gradients to the bit, in less memory, and no layer without need."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import peft
import pytest
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, T5Config
from transformers.modeling_layers import GradientCheckpointingLayer

from tests import fakes
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.core.recompute import recompute
from tunesmith.models.fast import quicken

LAYERS = 3


def batch_for(model: Model) -> Batch:
    if model.start_id is not None or model.path == "padded":
        return Batch.from_rows(fakes.rows(6), share=False)
    return Batch.from_rows(fakes.rows(6, begin=4) if model.head is None else fakes.text_rows(6))


def gradients(model: Model) -> dict[str, torch.Tensor]:
    model.module.train()
    model.module.zero_grad()
    torch.manual_seed(3)
    batch = batch_for(model)
    (model.nll(batch)[0] if model.head is None else model.outputs(batch).square().sum()).backward()
    found = {n: p.grad.clone() for n, p in model.module.named_parameters() if p.grad is not None}
    found["the generator afterwards"] = torch.rand(3)
    return found


def llama(dtype: torch.dtype, path: Any = "layout", fast: bool = False, dropout: float = 0.0) -> Model:
    model = fakes.model("llama", path, dtype=dtype, num_hidden_layers=LAYERS, attention_dropout=dropout)
    if fast:
        assert quicken(model, model.module.config)
    return model


def with_lora(model: Model, **settings: Any) -> Model:
    torch.manual_seed(1)
    wanted = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **settings)
    model.module = peft.get_peft_model(model.module, wanted)
    for name, parameter in model.module.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


def encoder(family: str, fast: bool) -> Model:
    model = fakes.headed(family, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    if fast:
        assert quicken(model, model.head.backbone.config)  # type: ignore[union-attr]
    return model


CASES = {
    "layout, float64": lambda: llama(torch.float64),
    "padded, float64": lambda: llama(torch.float64, "padded"),
    "layout, dropout": lambda: llama(torch.float32, dropout=0.3),
    "padded, dropout": lambda: llama(torch.float32, "padded", dropout=0.3),
    "our kernels": lambda: llama(torch.float32, fast=True),
    "our kernels, dropout": lambda: llama(torch.float32, fast=True, dropout=0.3),
    "lora": lambda: with_lora(llama(torch.float32, fast=True)),
    "lora, dropout": lambda: with_lora(llama(torch.float32, fast=True), lora_dropout=0.3),
    "an encoder": lambda: encoder("bert", False),
    "an encoder by our kernels": lambda: encoder("bert", True),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_the_same_to_the_bit(case: str) -> None:
    wanted = gradients(CASES[case]())
    model = CASES[case]()
    assert recompute(model.module) == model.num_layers
    found = gradients(model)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert torch.equal(found[name].to_dense(), wanted[name].to_dense()), name  # embeddings' are sparse


def runs(model: Model) -> Counter[int]:
    """How often each layer runs, from the lowest, once this is asked."""
    count: Counter[int] = Counter()

    def counted(number: int, forward: Any, *args: Any, **more: Any) -> Any:
        count[number] += 1
        return forward(*args, **more)

    layers = [m for m in model.module.modules() if isinstance(m, GradientCheckpointingLayer)]
    for number, layer in enumerate(layers):
        layer.forward = partial(counted, number, layer.forward)
    return count


@pytest.mark.parametrize("fast", [False, True], ids=["stock", "our kernels"])
def test_only_what_passes_gradient_on_runs_twice_and_calls_count_once(fast: bool) -> None:
    model = llama(torch.float32, fast=fast)
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_("layers.2." in name or name == "model.norm.weight")
    count = runs(model)
    recompute(model.module)
    batch = batch_for(model)
    model.nll(batch)[0].backward()
    assert count == {0: 1, 1: 1, 2: 2}
    assert batch.layout.calls == LAYERS
    with torch.no_grad():
        model.nll(batch)
    assert count == {0: 2, 1: 2, 2: 3}


def test_less_is_kept_for_the_way_back() -> None:
    def kept(model: Model) -> int:
        total = 0

        def pack(x: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += x.numel() * x.element_size()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model.nll(batch_for(model))
        return total

    plain, saving = llama(torch.float32), llama(torch.float32)
    recompute(saving.module)
    assert kept(saving) < kept(plain) / 3


def test_an_encoder_decoder_model_too() -> None:
    config = T5Config(
        vocab_size=40,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        dropout_rate=0.2,
    )
    found = []
    for saving in (False, True):
        torch.manual_seed(0)
        module = AutoModelForSeq2SeqLM.from_config(config).train()
        if saving:
            assert recompute(module) == 4
        ids = torch.arange(1, 21).view(2, 10)
        torch.manual_seed(1)
        module(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        found.append({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        assert torch.equal(found[0][name], found[1][name]), name
