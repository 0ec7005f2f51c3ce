"""Row 9 and freezing: what is trained moves, what is not keeps its bits."""

from __future__ import annotations

import re

import pytest
import torch

from tests import fakes
from tests.models import folders
from tunesmith.config.methods import SftConfig
from tunesmith.config.run import ModelConfig
from tunesmith.config.tuning import FreezeConfig, LoraConfig
from tunesmith.errors import ConfigError
from tunesmith.models.load import load_model
from tunesmith.models.save import save_model
from tunesmith.models.targets import beside, target_modules
from tunesmith.models.tune import prepare
from tunesmith.train.build import with_template


def weights(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def moved(before, module):
    after = dict(module.named_parameters())
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("family", fakes.FAMILIES)
def test_row_9_lora_starts_at_the_base_and_then_moves_alone(tmp_path, family):
    base = folders.write_base(tmp_path / "base", family)
    stock = folders.logits(folders.load_plain(base))
    loaded = folders.open_for(base, "lora")
    module = loaded.model.module
    before = weights(module)
    assert torch.equal(folders.logits(folders.stock(module)), stock)
    module.set_attn_implementation("tunesmith")
    folders.one_step(loaded)
    changed = moved(before, module)
    assert changed == {name for name in before if "lora_B" in name}  # A has no gradient while B is zero
    assert len(changed) == len([n for n in before if "lora_A" in n]) > 0
    folders.one_step(loaded)
    assert {name for name in moved(before, module) if "lora_" not in name} == set()
    assert {name for name in before if "lora_" in name} == moved(before, module)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_row_9_a_continued_adapter_starts_where_it_ended(tmp_path, family):
    base = folders.write_base(tmp_path / "base", family)
    first = folders.open_for(base, "lora")
    folders.one_step(first)
    save_model(first.model.module, first.tokenizer, folders.manifest(first, "adapter"), tmp_path / "adapter")
    ended = folders.logits(first.model.module)
    assert not torch.equal(ended, folders.logits(folders.open_for(base, "lora").model.module))

    second = folders.open_for(tmp_path / "adapter", "lora")
    assert torch.equal(folders.logits(second.model.module), ended)
    assert (second.base, second.base_hash) == (first.base, first.base_hash)
    before = weights(second.model.module)
    folders.one_step(second)
    assert moved(before, second.model.module) == {n for n in before if "lora_" in n}


def test_row_9_no_weight_is_left_on_the_meta_device_that_loading_starts_from(tmp_path):
    """A matrix left there, or filled with zeros from there, would never learn: A random, B zero, each of them."""
    module = folders.open_for(folders.write_base(tmp_path / "base", "llama"), "lora").model.module
    assert not any(p.is_meta for p in module.parameters())
    for name, parameter in module.named_parameters():
        if "lora_A" in name:
            assert parameter.std() > 0, name
        if "lora_B" in name:
            assert not parameter.any(), name


@pytest.mark.parametrize("keep", [False, True], ids=["dropped", "merged"])
def test_row_9_a_new_adapter_in_a_used_slot_starts_from_nothing(tmp_path, keep):
    loaded = folders.open_for(folders.write_base(tmp_path / "base", "llama"), "lora")
    untouched = folders.logits(loaded.model.module)
    folders.one_step(loaded)
    old = loaded.model.module
    assert not torch.equal(folders.logits(old), untouched)
    loaded.model.module = old.merge_and_unload() if keep else old.unload()
    start = folders.logits(loaded.model.module)
    assert torch.equal(start, untouched) != keep

    prepare(loaded, SftConfig(tuning="lora", lora=LoraConfig(rank=4)), [])
    assert list(loaded.model.module.peft_config) == ["default"]
    assert torch.equal(folders.logits(loaded.model.module), start)
    before = weights(loaded.model.module)
    folders.one_step(loaded)
    assert moved(before, loaded.model.module) == {name for name in before if "lora_B" in name}


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 8}, "rank is 4 there, 8 here"),
        ({"rank": 4, "alpha": 3}, "alpha is 8.0 there, 3.0 here"),
        ({"dropout": 0.5}, "dropout is 0.0 there, 0.5 here"),
        ({"modules": ["q_proj"]}, r"modules is \['k_proj', 'v_proj'\] there, \['q_proj'\] here"),
        ({"rank": 4, "alpha": 8, "modules": ["[kv]_proj"]}, None),  # its own
        ({}, None),
        ({"alpha": 32}, None),  # 2 x rank, as `config.defaults` fills in
    ],
)
def test_what_a_recipe_says_of_an_adapter_that_it_goes_on_with_must_be_so(tmp_path, lora, message):
    base = folders.write_base(tmp_path / "base")
    first = folders.open_for(base, "lora", lora=LoraConfig(rank=4, modules=["k_proj", "v_proj"]))
    save_model(first.model.module, first.tokenizer, folders.manifest(first, "adapter"), tmp_path / "adapter")
    loaded = load_model(ModelConfig(base=str(tmp_path / "adapter"), dtype="float32"), train=True)
    method = SftConfig(tuning="lora", lora=LoraConfig(**lora))
    if message is None:
        assert "goes on with the adapter" in prepare(loaded, method, [])[0]
    else:
        with pytest.raises(ConfigError, match=message):
            prepare(loaded, method, [])


def test_full_training_on_an_adapter_merges_it_first(tmp_path):
    base = folders.write_base(tmp_path / "base")
    first = folders.open_for(base, "lora")
    folders.one_step(first)
    save_model(first.model.module, first.tokenizer, folders.manifest(first, "adapter"), tmp_path / "adapter")
    second = folders.open_for(tmp_path / "adapter", "full")
    gap = (folders.logits(second.model.module) - folders.logits(first.model.module)).abs().max()
    assert gap <= 1e-4
    assert second.adapter is None
    before = weights(second.model.module)
    assert not any("lora" in name for name in before)
    folders.one_step(second)
    assert moved(before, second.model.module) == set(before)


def test_an_adapter_cannot_grow_a_token(tmp_path):
    """Its base has an end token that the new template does not use; an added row would be lost on saving."""
    base = folders.write_base(tmp_path / "base")
    first = folders.open_for(base, "lora")
    save_model(first.model.module, first.tokenizer, folders.manifest(first, "adapter"), tmp_path / "adapter")
    loaded = load_model(ModelConfig(base=str(tmp_path / "adapter"), dtype="float32"), train=True)
    with pytest.raises(ConfigError, match="cannot grow"):
        prepare(loaded, SftConfig(tuning="lora"), [folders.VOCAB])


@pytest.mark.parametrize("tied", [True, False])
def test_the_rows_of_new_tokens_are_trained_in_the_embeddings_and_in_an_untied_head(tmp_path, tied):
    base = folders.write_base(tmp_path / "base", tied=tied, eos=False)
    loaded = folders.open_for(base, "lora")
    before = weights(loaded.model.module)
    folders.one_step(loaded)
    rows = {n for n in moved(before, loaded.model.module) if "lora_" not in n}
    layers = {n.split(".token_adapter")[0].split(".")[-1] for n in rows}
    assert layers == ({"embed_tokens"} if tied else {"embed_tokens", "lm_head"})
    assert all(before[n].shape == (1, 32) for n in rows)


def test_a_head_with_a_bias_cannot_have_single_rows_trained(tmp_path):
    base = folders.write_base(tmp_path / "base", tied=False, eos=False)
    loaded = load_model(ModelConfig(base=str(base), dtype="float32"), train=True)
    new = with_template(loaded, "auto")
    loaded.model.module.get_output_embeddings().bias = torch.nn.Parameter(torch.zeros(folders.VOCAB + 1))
    with pytest.raises(ConfigError, match="head has a bias"):
        prepare(loaded, SftConfig(tuning="lora"), new)


FROZEN = {
    "first layer": (FreezeConfig(layers=1), r"(layers|h)\.0\."),
    "both layers": (FreezeConfig(layers=2), r"(layers|h)\.\d\."),
    "embeddings": (FreezeConfig(embeddings=True), r"embed_tokens|wte|wpe"),
    "a pattern": (FreezeConfig(patterns=[r"mlp"]), r"mlp"),
    "all three": (
        FreezeConfig(layers=1, embeddings=True, patterns=["norm", "ln_"]),
        r"(layers|h)\.0\.|embed_tokens|wte|wpe|norm|ln_",
    ),
}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", FROZEN)
def test_frozen_weights_keep_their_bits_and_all_others_move(tmp_path, family, name):
    freeze, expected = FROZEN[name]
    if name == "all three":
        freeze = freeze.model_copy(update={"patterns": ["norm"] if family == "llama" else ["ln_"]})
    loaded = folders.open_for(folders.write_base(tmp_path / "base", family), "full", freeze=freeze)
    before = weights(loaded.model.module)
    folders.one_step(loaded)
    changed = moved(before, loaded.model.module)
    assert set(before) - changed == {n for n in before if re.search(expected, n)}
    assert changed


def test_an_untied_head_moves_when_the_embeddings_are_frozen(tmp_path):
    base = folders.write_base(tmp_path / "base", tied=False)
    loaded = folders.open_for(base, "full", freeze=FreezeConfig(embeddings=True))
    before = weights(loaded.model.module)
    folders.one_step(loaded)
    changed = moved(before, loaded.model.module)
    assert "lm_head.weight" in changed
    assert "model.embed_tokens.weight" not in changed


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (FreezeConfig(patterns=["mlp", "no_such_part"]), r"no parameter matches \['no_such_part'\]"),
        (FreezeConfig(patterns=["("]), "not a regular expression"),
        (FreezeConfig(layers=3), "at most the model's 2 layers"),
        (FreezeConfig(patterns=["."]), "nothing is left to train"),
    ],
)
def test_a_freeze_that_cannot_be_carried_out_says_why(tmp_path, freeze, message):
    with pytest.raises(ConfigError, match=message):
        folders.open_for(folders.write_base(tmp_path / "base"), "full", freeze=freeze)


def _all_linear(module):
    return target_modules(module, ["all-linear"], beside(None, module))


@pytest.mark.parametrize("family", fakes.FAMILIES)
def test_all_linear_is_every_linear_layer_but_the_head(family):
    module = fakes.module(family)
    chosen = _all_linear(module)
    assert len(chosen) == 2 * (4 if family == "gpt2" else 7)
    assert not any("lm_head" in name for name in chosen)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["q_proj"], r"q_proj$"),
        (["q_proj", "v_proj"], r"[qv]_proj$"),
        ([r"layers\.1\..*mlp"], r"layers\.1\.mlp"),
        (["up_proj", "mlp"], r"mlp"),
    ],
)
def test_lora_goes_to_the_layers_that_a_pattern_names(tmp_path, patterns, expected):
    base = folders.write_base(tmp_path / "base")
    loaded = folders.open_for(base, "lora", lora=LoraConfig(rank=2, modules=patterns))
    chosen = {n.split(".lora_A")[0] for n, _ in loaded.model.module.named_parameters() if "lora_A" in n}
    linear = _all_linear(fakes.module("llama"))
    assert chosen == {"base_model.model." + n for n in linear if re.search(expected, n)}


def test_a_lora_pattern_without_a_match_lists_the_layers(tmp_path):
    base = folders.write_base(tmp_path / "base")
    with pytest.raises(ConfigError, match="matches 'query'") as caught:
        folders.open_for(base, "lora", lora=LoraConfig(modules=["q_proj", "query"]))
    assert "down_proj, gate_proj, k_proj" in str(caught.value)


@pytest.mark.parametrize(("alpha", "scale"), [(None, 2.0), (3.0, 0.75)])
def test_the_update_is_scaled_by_alpha_over_rank(tmp_path, alpha, scale):
    base = folders.write_base(tmp_path / "base")
    loaded = folders.open_for(base, "lora", lora=LoraConfig(rank=4, alpha=alpha, modules=["q_proj"]))
    (layer, _) = [m for m in loaded.model.module.modules() if hasattr(m, "lora_A")]
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(3, 32)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = x @ layer.base_layer.weight.T + scale * (x @ a.T @ b.T)
    assert torch.allclose(layer(x), expected, atol=1e-5)
