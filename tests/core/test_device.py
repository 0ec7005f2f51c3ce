"""Where a model computes: what may be asked for, and all that must move for a model elsewhere to say the same.

There is no GPU here: `tests.elsewhere` stands for one. Runs of its own kernels are in tests/gpu.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import fakes
from tests.elsewhere import elsewhere
from tests.generate.test_batched import EOS, PAD, prompts
from tests.models import test_fast
from tests.objectives.test_embed import MEAN, groups
from tests.train.test_engine import engine
from tests.workflow.conftest import tiny_base
from tunesmith.config.methods import EmbedConfig, SftConfig
from tunesmith.config.run import ModelConfig
from tunesmith.core import native
from tunesmith.core.batch import Batch
from tunesmith.core.device import CPU, choose, seed_each
from tunesmith.core.model import Model
from tunesmith.errors import ConfigError
from tunesmith.generate.batched import generate
from tunesmith.generate.sample import Sampling, sample
from tunesmith.models.fast import quicken
from tunesmith.models.load import load_model
from tunesmith.models.tune import prepare
from tunesmith.objectives.embed import Embed
from tunesmith.objectives.sft import Sft
from tunesmith.train.checkpoint import Checkpoints

needs_kernels = pytest.mark.skipif(native.library() is None, reason=native.why_not())


def home(x: Tensor) -> Tensor:
    return x.detach().cpu().clone()


def near(ours: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert ours.keys() == wanted.keys()
    least = 1e-3 * torch.stack([x.abs().max() for x in wanted.values()]).max()
    for name, found in ours.items():
        gap = (found - wanted[name]).abs().max() / wanted[name].abs().max().clamp_min(least)
        assert gap < 5e-5, f"{name}: {gap:.1e}"


def learned(model: Model, objective: Any, rows: list[Any]) -> dict[str, Tensor]:
    """The gradient of a step of two micro-batches."""
    batches = [Batch.from_rows(rows[:3]), Batch.from_rows(rows[3:])]
    if hasattr(objective, "begin_step"):
        objective.begin_step(model, batches)
    for batch in batches:
        out = objective.loss(model, batch)
        assert all(x.device == CPU for x in (*out.terms.values(), *out.metrics.values()))
        torch.stack(list(out.terms.values())).sum().backward()
    return {n: home(p.grad) for n, p in model.module.named_parameters() if p.grad is not None}


def test_the_setting_says_what_is_here() -> None:
    assert choose("auto") == choose("cpu") == CPU
    with pytest.raises(ConfigError, match="PyTorch sees 0 CUDA GPUs here"):
        choose("cuda")
    with pytest.raises(ConfigError, match="'gpu' as a device"):
        choose("gpu")
    with elsewhere() as device:
        assert choose("auto") == choose("cuda") == device
        with pytest.raises(ConfigError, match=r"model\.device=cuda:1, but PyTorch sees 1 CUDA GPUs"):
            choose("cuda:1")


@needs_kernels
@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("family", ["llama with biases", "qwen3", "mistral"])
def test_a_decoders_layers_and_head_elsewhere_learn_what_stock_layers_learn(family: str, kind: str) -> None:
    config = test_fast.CONFIGS[family]()
    rows, sft = fakes.rows(6, begin=5), Sft(SftConfig(label_smoothing=0.1))
    stock = test_fast.made(config, kind)
    stock.set_attn_implementation("sdpa")
    wanted = learned(Model(stock, "padded", 2), sft, rows)
    with elsewhere() as device:
        model = Model(test_fast.made(config, kind), "layout", 2)
        assert "of our own on cuda:0 (2 of" in quicken(model, config, device)
        model.to(device)
        near(learned(model, sft, rows), wanted)


@needs_kernels
@pytest.mark.parametrize("path", ["layout", "padded"])
def test_an_encoder_elsewhere_learns_embeddings_as_here(path: Any) -> None:
    rows, embed = groups(6), Embed(EmbedConfig())
    wanted = learned(fakes.headed("bert", MEAN, path="padded"), embed, rows)
    with elsewhere() as device:
        model = fakes.headed("bert", MEAN, path=path)
        quicken(model, model.module.config, device)
        model.to(device)
        near(learned(model, embed, rows), wanted)


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
@pytest.mark.parametrize("path", ["layout", "padded"])
def test_stock_layers_elsewhere(family: str, path: Any) -> None:
    rows, sft = fakes.rows(6), Sft(SftConfig())
    wanted = learned(fakes.model(family, path, dtype=torch.float32), sft, rows)
    with elsewhere() as device:
        model = fakes.model(family, path, dtype=torch.float32)
        model.to(device)
        near(learned(model, sft, rows), wanted)


@needs_kernels
@pytest.mark.parametrize("way", ["slots", "cache"])
def test_answers_elsewhere_are_those_here(way: str) -> None:
    def written(device: torch.device) -> Any:
        config = test_fast.CONFIGS["mistral"]()
        model = Model(test_fast.made(config, "full"), "layout", 2)
        if way == "slots":
            quicken(model, config, device)
        model.to(device)
        assert model.writes_by_slots == (way == "slots")
        how: Any = {"max_new_tokens": 6, "end_ids": [EOS], "pad_id": PAD}
        greedy = sorted((i, g.ids) for i, g in generate(model, prompts(), batch_size=3, **how))
        sampling = Sampling(0.8, top_p=0.9, top_k=40)
        drawn = sample(model, prompts(), count=2, sampling=sampling, seed=1, num_slots=5, **how)
        return greedy, sorted((i, s, one.ids) for i, s, one in drawn)

    here = written(CPU)
    with elsewhere() as device:
        assert written(device) == here


@pytest.mark.parametrize("text", ["", "a beginning"])
@pytest.mark.parametrize("tuning", ["prompt", "prefix"])
def test_learned_tokens_begin_elsewhere_as_the_tokens_that_they_are_made_of(
    tuning: str, text: str, tmp_path: Path
) -> None:
    base = str(tiny_base(tmp_path / "base"))
    method = SftConfig.model_validate({"tuning": tuning, tuning: {"tokens": 4, "text": text}})
    config = ModelConfig.model_validate({"base": base, "dtype": "float32"})

    def begun() -> list[Tensor]:
        loaded = load_model(config, train=True, prompted=True)
        torch.manual_seed(0)  # of it the tokens are drawn, where no text says them
        prepare(loaded, method, [])
        loaded.model.to(loaded.model.device)
        return [home(p) for p in loaded.model.module.parameters() if p.requires_grad]

    here = begun()
    assert here
    with elsewhere():
        for one, other in zip(begun(), here, strict=True):
            assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("state", ["float32", "bfloat16"])
def test_a_run_that_began_here_goes_on_elsewhere(state: str, tmp_path: Path) -> None:
    """Its checkpoint has no device; masters, moments and the lean state come with it."""

    def made(folder: Path) -> Any:
        settings: dict[str, Any] = {"optimizer_state": state, "save_every": 2}
        dtype = torch.bfloat16 if state == "bfloat16" else torch.float32
        return engine(folder, model=fakes.model("llama", dtype=dtype), **settings)

    whole = made(tmp_path / "whole")
    whole.run()
    first = made(tmp_path / "first")
    first.stop = lambda: "two steps" if first.state.progress.step == 2 else ""
    first.run()
    with elsewhere() as device:
        second = made(tmp_path / "first")
        second.model.to(device)
        latest = Checkpoints(tmp_path / "first" / "checkpoints", keep=2).load_latest()
        assert latest is not None
        second.state.restore(latest[1])
        second.run()
        assert second.state.progress.step == whole.state.progress.step > 2
        tolerance = 2e-2 if state == "bfloat16" else 1e-5
        for name, weight in second.state.optimizer.weights().items():
            wanted = whole.state.optimizer.weights()[name].float()
            assert torch.allclose(home(weight).float(), wanted, atol=tolerance, rtol=tolerance), name


def test_a_seed_is_pytorchs_and_leaves_no_note_for_gpus_that_nobody_uses() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    noted = len(torch.cuda._queued_calls)
    seed_each(7, CPU)
    assert torch.equal(torch.rand(3), wanted)
    assert len(torch.cuda._queued_calls) == noted
