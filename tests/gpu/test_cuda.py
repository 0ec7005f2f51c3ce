"""What `tests.elsewhere` cannot show: CUDA's own kernels. Skipped where there is no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests import fakes
from tests.core.test_device import learned, near
from tests.generate.test_batched import EOS, PAD, prompts
from tests.models import test_fast
from tests.workflow.conftest import label_rows, settings, tiny_base, write_jsonl
from tunesmith.config.methods import SftConfig
from tunesmith.config.run import Run
from tunesmith.core import liger
from tunesmith.core.device import CPU
from tunesmith.core.layout import Layout
from tunesmith.core.model import Model
from tunesmith.core.plain import attend_tree
from tunesmith.core.varlen import attend_spans, flashes
from tunesmith.generate.batched import generate
from tunesmith.models.fast import quicken
from tunesmith.objectives.sft import Sft
from tunesmith.train.folder import RunFolder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
GPU = torch.device("cuda:0")
FOREST = Layout.of([60, 50, 70, 3, 90, 1, 4], [-1, 0, 0, 1, -1, 4, 4])


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("forest", [FOREST, Layout.of([60, 1, 90], [-1, -1, -1])], ids=["trees", "roots"])
def test_flash_attention_says_what_groups_say(window: int | None, causal: bool, forest: Layout) -> None:
    torch.manual_seed(0)
    shapes = [(forest.num_tokens, heads, 64) for heads in (4, 2, 2)]
    low = [torch.randn(s, device=GPU, dtype=torch.bfloat16, requires_grad=True) for s in shapes]
    high = [x.detach().float().requires_grad_() for x in low]
    assert flashes(low[0], 0.0)
    layout = forest.to(GPU)
    ours = attend_spans(*low, layout, causal, window, 0.125)  # type: ignore[arg-type]
    wanted = attend_tree(*high, layout, causal, 0.125, window)  # type: ignore[arg-type]
    weights = torch.randn_like(wanted)
    (ours.float() * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert torch.allclose(ours.float(), wanted, atol=2e-2)
    for one, other in zip(low, high, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert (one.grad.float() - other.grad).abs().max() < 3e-2 * other.grad.abs().max()


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("family", ["llama with biases", "qwen3", "mistral"])
def test_layers_learn_what_stock_layers_learn_here(family: str, kind: str) -> None:
    config, rows, sft = test_fast.CONFIGS[family](), fakes.rows(6, begin=5), Sft(SftConfig())
    stock = test_fast.made(config, kind)
    stock.set_attn_implementation("sdpa")
    wanted = learned(Model(stock, "padded", 2), sft, rows)
    model = Model(test_fast.made(config, kind), "layout", 2)
    assert "of our own on cuda:0" in quicken(model, config, GPU)
    model.to(GPU)
    near(learned(model, sft, rows), wanted)


def test_greedy_answers_are_those_of_stock_transformers_in_float32() -> None:
    def written(device: torch.device) -> Any:
        config = test_fast.CONFIGS["llama"]()
        model = Model(test_fast.made(config, "full"), "layout", 2)
        if device != CPU:
            quicken(model, config, device)
        model.to(device)
        how: Any = {"max_new_tokens": 12, "end_ids": [EOS], "pad_id": PAD, "batch_size": 3}
        return sorted((i, g.ids) for i, g in generate(model, prompts(), **how))

    assert written(GPU) == written(CPU)


@pytest.mark.skipif(not liger.installed(), reason="no Liger kernels here")
def test_ligers_kernels_are_pytorchs_operators() -> None:
    torch.manual_seed(0)
    x, up = (torch.randn(37, 64, device=GPU, requires_grad=True) for _ in range(2))
    weight = torch.randn(64, device=GPU, requires_grad=True)
    for ours, wanted in (
        (liger.rms_norm(x, weight, 1e-5), torch.nn.functional.rms_norm(x, (64,), weight, 1e-5)),
        (liger.swiglu(x * 1, up * 1), torch.nn.functional.silu(x) * up),
    ):
        assert torch.allclose(ours, wanted, atol=1e-5)
        found, right = (
            torch.autograd.grad(y.sin().sum(), (x, up, weight), allow_unused=True) for y in (ours, wanted)
        )
        for one, other in zip(found, right, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_run_on_the_gpu_learns_as_one_on_the_cpu(tuning: str, tmp_path: Path) -> None:
    """The whole job, probe included; twice on the GPU bit for bit."""
    base = tiny_base(tmp_path / "base")
    data = {"train": str(write_jsonl(tmp_path / "rows.jsonl", label_rows(64)))}
    losses = {}
    for name, device in (("cpu", "cpu"), ("gpu", "cuda"), ("again", "cuda")):
        more: dict[str, Any] = {"model": {"device": device}, "method": {"tuning": tuning}}
        tree = settings(base, tmp_path / name, data, **more)
        result: Any = tunesmith.train(Run.model_validate(tree))
        losses[name] = [step["loss"] for step in RunFolder(result.folder).curve("step")]
        assert len(losses[name]) == 8
    assert losses["gpu"] == losses["again"]
    assert losses["gpu"] == pytest.approx(losses["cpu"], rel=1e-3)
