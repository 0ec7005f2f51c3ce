"""Gradual unfreezing: the top group first, one more every so many epochs, and nothing of a frozen one moves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AlbertConfig, AlbertForMaskedLM, BertConfig, BertForSequenceClassification

from tests import fakes
from tunesmith.config.methods import SftConfig
from tunesmith.config.run import TrainConfig
from tunesmith.config.tuning import FreezeConfig
from tunesmith.core.batch import Batch
from tunesmith.core.heads import Head
from tunesmith.core.model import Model
from tunesmith.errors import ConfigError
from tunesmith.models.tune import _full, lr_factors
from tunesmith.objectives.sft import Sft
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.engine import Engine
from tunesmith.train.optim import Optimizer
from tunesmith.train.source import StaticSource
from tunesmith.train.state import Progress, TrainState
from tunesmith.train.unfreeze import describe, group_at, groups

RATE, ROWS, BATCH = 1e-2, 8, 4  # two steps an epoch
TINY = {
    "vocab_size": fakes.VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


def engine(tmp_path, *, every=1.0, freeze=None, decay=1.0, dtype=torch.float32, epochs=4, **more):
    config = TrainConfig(
        learning_rate=RATE,
        warmup_fraction=0.0,
        schedule="constant",
        weight_decay=0.1,
        max_grad_norm=None,
        unfreeze_every=every,
        layer_lr_decay=decay,
        eval_every=100,
        save_every=100,
    )
    model = fakes.model("llama", dtype=dtype, **more)
    _full(model.module, freeze or FreezeConfig())
    optimizer = Optimizer(model.module, config, lr_factors(model, decay, 1.0), groups(model))
    return Engine(
        model=model,
        objective=Sft(SftConfig()),
        source=StaticSource(fakes.rows(ROWS), BATCH, epochs * ROWS, seed=3, padded=False),
        state=TrainState(Progress(micro_batch_tokens=10_000, threads=1), optimizer, "h"),
        config=config,
        seed=3,
        checkpoints=Checkpoints(tmp_path, keep=2),
        sink=lambda kind, **fields: None,
        watch=None,
        stop=lambda: "",
    )


def group_of(name):
    """Of the two-layer llama, by hand."""
    if "embed_tokens" in name:
        return 2
    return 1 if "layers.0." in name else 0


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("decay", [1.0, 0.5], ids=["one rate", "layer_lr_decay"])
def test_the_steps_are_those_of_an_adamw_for_each_group_that_trains(tmp_path, tied, decay):
    """The reference: one AdamW a group, made when the group begins to train, on the mean loss of the step's rows."""
    loop = engine(tmp_path, decay=decay, dtype=torch.float64, tie_word_embeddings=tied)
    other = fakes.model("llama", dtype=torch.float64, tie_word_embeddings=tied)
    named = dict(other.module.named_parameters())
    optimizers: dict[int, torch.optim.AdamW] = {}
    for step in range(8):
        reached = step // 2
        for group in range(min(reached, 2) + 1):
            members = {n: p for n, p in named.items() if group_of(n) == group}
            if group not in optimizers:
                optimizers[group] = torch.optim.AdamW(
                    [
                        {
                            "params": [p for p in members.values() if (p.ndim >= 2) == matrix],
                            "weight_decay": wd,
                        }
                        for matrix, wd in ((True, 0.1), (False, 0.0))
                    ],
                    lr=RATE * decay**group,
                    betas=(0.9, 0.99),
                )
        rows = [loop.source.rows[i] for i in loop.source.indices(step)]
        batch = Batch.from_rows(rows)
        logps = other.logits(batch).log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
        other.module.zero_grad()
        (-(logps * batch.weights).sum() / batch.weights.sum()).backward()
        for optimizer in optimizers.values():
            optimizer.step()
        loop.train_step(RATE)
        for name, weight in loop.state.optimizer.weights().items():
            assert torch.allclose(weight, named[name], atol=1e-9), (step, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_frozen_keeps_its_bits_and_has_no_moments(tmp_path, dtype):
    loop = engine(tmp_path, dtype=dtype)
    optimizer = loop.state.optimizer
    start = {name: weight.clone() for name, weight in optimizer.weights().items()}
    for step in range(6):
        loop.train_step(RATE)
        moments, now = optimizer.moments(), optimizer.weights()
        for name, weight in now.items():
            trained = step - 2 * group_of(name) + 1
            assert torch.equal(weight, start[name]) == (trained <= 0), (step, name)
            assert (f"step.{name}" in moments) == (trained > 0)
            if trained > 0:
                assert moments[f"step.{name}"] == trained
    assert all(p.requires_grad for p in optimizer.parameters.values())


def test_no_gradient_is_computed_below_the_lowest_layer_that_trains(tmp_path):
    loop = engine(tmp_path)
    seen: list[tuple[bool, bool]] = []
    layers = loop.model.module.model.layers
    layers[1].register_forward_hook(
        lambda module, args, output: seen.append((args[0].requires_grad, output.requires_grad))
    )
    for _ in range(3):
        loop.train_step(RATE)
    assert seen == [(False, True), (False, True), (True, True)]


def test_it_never_unfreezes_what_method_freeze_froze(tmp_path):
    loop = engine(tmp_path, freeze=FreezeConfig(layers=1, patterns=["layers.1.mlp"]))
    start = {n: p.detach().clone() for n, p in loop.model.module.named_parameters()}
    for _ in range(8):
        loop.train_step(RATE)
    for name, parameter in loop.model.module.named_parameters():
        frozen = "layers.0." in name or "layers.1.mlp" in name
        assert parameter.requires_grad != frozen
        assert torch.equal(parameter, start[name]) == frozen


def test_a_group_of_which_nothing_trains_does_not_count():
    model = fakes.model("llama")
    _full(model.module, FreezeConfig(patterns=[r"layers\.1\.", "model.norm"]))
    found = groups(model)
    assert {n: g for n, g in found.items() if "layers" not in n} == {"model.embed_tokens.weight": 1}
    assert set(found.values()) == {0, 1}


def test_a_head_is_a_group_of_its_own_with_the_pooler_it_reads_through():
    module = BertForSequenceClassification(BertConfig(**TINY))
    model = Model(module, "padded", 2, Head("sequence", "cls", module, module.bert, causal=False))
    found = groups(model)
    by_group = [{n for n, g in found.items() if g == group} for group in range(4)]
    assert by_group[0] == {
        f"{p}.{k}" for p in ("classifier", "bert.pooler.dense") for k in ("weight", "bias")
    }
    assert all("layer.1." in n for n in by_group[1])
    assert all("layer.0." in n for n in by_group[2])
    assert all(n.startswith("bert.embeddings.") for n in by_group[3])  # its LayerNorm too
    assert found.keys() == dict(module.named_parameters()).keys()


def test_adapters_encoder_decoders_and_layers_without_weights_of_their_own_are_refused():
    from peft import LoraConfig, get_peft_model

    adapted = fakes.model(
        module_=get_peft_model(fakes.module(), LoraConfig(r=2, target_modules="all-linear"))
    )
    with pytest.raises(ConfigError, match="tuning: full"):
        groups(adapted)
    with pytest.raises(ConfigError, match="two tops"):
        groups(replace(fakes.model(), start_id=0))
    shared = AlbertForMaskedLM(AlbertConfig(**TINY, embedding_size=16))
    with pytest.raises(ConfigError, match="0 of the model's 2 layers"):
        groups(Model(shared, "padded", 2))


def test_the_group_is_a_function_of_the_passes_over_the_data():
    source = StaticSource(fakes.rows(10), 4, 40, seed=0, padded=False)
    assert [group_at(source.epoch(step), 1.0) for step in range(6)] == [0, 0, 0, 1, 1, 2]
    assert [group_at(n / 10, 0.1) for n in range(50)] == list(range(50))
    assert "all of them do by the last step" in describe([0, 1, 2], 2.5, 1.0)
    assert "only 2 of them do by the last step" in describe([0, 1, 2], 1.9, 1.0)
