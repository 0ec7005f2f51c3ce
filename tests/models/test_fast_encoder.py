"""Encoders' layers by our own kernels equal the padded stock ones: states and every gradient."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AlbertConfig

from tests import fakes
from tests.core.native.formulas import waiting_and_not
from tunesmith.core import native
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.models import fast, fast_encoder
from tunesmith.models.fast import quicken

pytestmark = pytest.mark.skipif(native.library() is None, reason=native.why_not())
FAMILIES = ("bert", "roberta", "electra", "distilbert")
LORA = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear"}


def made(family: str, path: Any = "layout", lora: bool = False, **more: Any) -> Model:
    model = fakes.headed(family, path=path, **more)
    if lora:
        torch.manual_seed(1)
        peft.inject_adapter_in_model(peft.LoraConfig(**LORA, init_lora_weights=False), model.head.backbone)  # type: ignore[union-attr]
    return model


def states_and_gradients(model: Model) -> dict[str, Tensor]:
    states = model.states(Batch.from_rows(fakes.text_rows(6)))
    model.module.zero_grad()
    (states * torch.linspace(-1, 1, states.shape[1])).sum().backward()
    found = {n: p.grad.to_dense().clone() for n, p in model.module.named_parameters() if p.grad is not None}
    return {"states": states.detach(), **found}


def equal(ours: dict[str, Tensor], stock: dict[str, Tensor]) -> None:
    assert ours.keys() == stock.keys()
    least = 1e-2 * torch.stack([x.abs().max() for x in stock.values()]).max()  # key biases: rounding alone
    for name, found in ours.items():
        gap = (found - stock[name]).abs().max() / stock[name].abs().max().clamp_min(least)
        assert gap < 2e-5, f"{name}: {gap:.1e}"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [False, True])
def test_states_and_gradients_equal_padded_stock_layers(family: str, lora: bool) -> None:
    model = made(family, lora=lora)
    assert "by our own kernels (2 of" in quicken(model, model.module.config)
    assert not model.fast_head
    equal(states_and_gradients(model), states_and_gradients(made(family, "padded", lora=lora)))


@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
def test_other_activations(activation: str) -> None:
    model = made("bert", hidden_act=activation)
    assert "by our own kernels" in quicken(model, model.module.config)
    equal(states_and_gradients(model), states_and_gradients(made("bert", "padded", hidden_act=activation)))


def test_a_layer_that_is_not_equal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "_checked", {})
    monkeypatch.setattr(fast_encoder, "add_norm", lambda x, past, norm, p: norm(past - x))
    model = made("bert")
    assert "they differ from the stock ones by" in quicken(model, model.module.config)
    assert all("forward" not in vars(m) for m in model.module.modules())


def test_other_families_keep_their_layers() -> None:
    model = made("modernbert")
    assert quicken(model, model.module.config) == ""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "embedding_size": 24}
    albert = fakes.AutoModelForCausalLM.from_config(fakes.config("gpt2"))
    assert quicken(Model(albert, "layout", 2), AlbertConfig(**sizes)) == ""


def test_doubles_go_the_stock_way() -> None:
    model, stock = made("bert", dtype=torch.float64), made("bert", dtype=torch.float64)
    quicken(model, model.module.config)
    ours, wanted = states_and_gradients(model), states_and_gradients(stock)
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_follows_the_seed_and_stops_outside_training(family: str) -> None:
    names = ("dropout", "attention_dropout") if family == "distilbert" else (
        "hidden_dropout_prob", "attention_probs_dropout_prob"
    )  # fmt: skip
    for name in names:
        model = made(family, **{name: 0.3})
        assert "by our own kernels" in quicken(model, model.module.config)
        plain = states_and_gradients(model)
        model.module.train()
        found = []
        for seed in (1, 2, 1):
            torch.manual_seed(seed)
            found.append(states_and_gradients(model))
        assert all(torch.equal(found[0][n], found[2][n]) for n in plain)
        assert not torch.equal(found[0]["states"], found[1]["states"])
        model.module.eval()
        assert all(torch.equal(plain[n], found) for n, found in states_and_gradients(model).items())


def test_dropout_keeps_what_a_state_is_on_average() -> None:
    """With dropout the mean over many passes is near that of the stock layers, which draw other masks."""
    means = []
    for kernels in (False, True):
        model = made("bert", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
        if kernels:
            quicken(model, model.module.config)
        model.module.train()
        batch = Batch.from_rows(fakes.text_rows(6))
        torch.manual_seed(3)
        with torch.no_grad():
            passes = torch.stack([model.states(batch) for _ in range(400)])
        means.append((passes.mean(0), passes.std(0)))
    error = (means[0][1] ** 2 + means[1][1] ** 2).sqrt() / 400**0.5
    gap = (means[0][0] - means[1][0]) / error
    assert gap.square().mean() < 1.3  # 1 where both have the same mean
    assert (means[1][1] / means[0][1]).mean() == pytest.approx(1, abs=0.02)


def test_bfloat16_is_as_near_to_float32_as_the_stock_layers_are() -> None:
    exact = states_and_gradients(made("bert", hidden_size=64))

    def far(kernels: bool) -> float:
        model = made("bert", hidden_size=64, dtype=torch.bfloat16)
        if kernels:
            quicken(model, model.module.config)
        found = states_and_gradients(model)
        a, b = (torch.cat([x[n].float().flatten() for n in exact]) for x in (found, exact))
        return 1 - nn.functional.cosine_similarity(a, b, dim=0).item()

    assert far(True) < max(1e-3, 1.5 * far(False))


@pytest.mark.parametrize(("family", "activation"), [("bert", "gelu"), ("bert", "relu"), ("electra", "gelu")])
def test_kernels_that_wait_for_each_other_make_the_same(
    family: str, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_of() -> dict[str, Tensor]:
        model = made(family, hidden_act=activation, hidden_dropout_prob=0.1)
        model.module.to(torch.bfloat16).train()
        quicken(model, model.module.config)
        torch.manual_seed(3)
        return states_and_gradients(model)

    found, wanted = waiting_and_not(made_of, fast_encoder, monkeypatch)
    assert all(torch.equal(each, wanted[name]) for name, each in found.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_is_one_function_of_autograd(family: str) -> None:
    model = made(family)
    quicken(model, model.module.config)
    states = model.states(Batch.from_rows(fakes.text_rows(6)))
    names, todo = [], [states.grad_fn]
    while todo and (node := todo.pop()) is not None:
        names.append(type(node).__name__)
        todo += [before for before, _ in node.next_functions]
    assert names.count("_AsOneBackward") == 2
    assert not {"_LinearsBackward", "_AddNormBackward", "_GeluBackward"} & set(names)


def test_the_dropout_of_embeddings_is_by_our_kernel_and_its_gradient_has_the_same_mask() -> None:
    model = made("bert", hidden_dropout_prob=0.5)
    quicken(model, model.module.config)
    part = model.head.backbone.embeddings.dropout  # type: ignore[union-attr]
    x = torch.ones(60, 40, requires_grad=True)
    torch.manual_seed(5)
    part.train()
    out = part(x)
    assert type(out.grad_fn).__name__ == "_DropoutBackward"
    out.sum().backward()
    assert torch.equal(out, x.grad)
    assert out.mean().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(part.eval()(x), x)
