"""What layers compute without gradient by chains is what they compute with one, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import fakes
from tests.core.native.formulas import waiting_and_not
from tests.core.native.test_sums import needs_tiles
from tests.models.test_fast import CONFIGS, made
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.models import fast_decoder, fast_pass
from tunesmith.models.fast import quicken

pytestmark = needs_tiles


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each layer's call, whether it went by chains; however few the rows."""
    seen: list[bool] = []
    real = fast_pass.parts_of

    def parts_of(*of: Any) -> Any:
        found = real(*of)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(fast_pass, "LEAST", 1)
    monkeypatch.setattr(fast_decoder.fast_pass, "parts_of", parts_of)
    return seen


def logits(model: Model) -> torch.Tensor:
    return model.logits(Batch.from_rows(fakes.rows(6, begin=5)))


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("kind", ["full", "lora", "some", "patterns", "dora"])
def test_logits_without_gradient_are_those_with_one(passes: list[bool], family: str, kind: str) -> None:
    model = Model(made(CONFIGS[family](), kind, torch.bfloat16), "layout", 2)
    quicken(model, model.module.config)
    model.module.eval()
    passes.clear()
    wanted = logits(model).detach()
    assert passes == [False, False]
    passes.clear()
    with torch.no_grad():
        found = logits(model)
    # A bias after attention or the gated unit, and layers that are not plain LoRA, go another way.
    assert passes == [family != "llama with biases" and kind in ("full", "lora", "patterns")] * 2
    assert torch.equal(found, wanted)


def test_adapters_in_float32_are_read_as_their_rounded_copies_are(passes: list[bool]) -> None:
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(0)
        model = Model(made(CONFIGS["llama"](), "lora", torch.bfloat16), "layout", 2)
        adapters = {n: p for n, p in model.module.named_parameters() if "lora_" in n}
        for parameter in adapters.values():
            parameter.data = parameter.data.to(dtype)
        quicken(model, model.module.config)
        model.module.eval()
        said = logits(model)
        (said * torch.linspace(-1, 1, said.shape[-1])).sum().backward()
        with torch.no_grad():
            found.append((said.detach(), logits(model), adapters))
    (copied, without, theirs), (said, also_without, ours) = found
    assert passes[-2:] == [True, True]
    assert torch.equal(said, copied)
    assert torch.equal(also_without, without)
    for name, parameter in ours.items():
        assert parameter.grad is not None
        wanted = theirs[name].grad
        assert wanted is not None
        assert parameter.grad.dtype == torch.float32
        assert (parameter.grad - wanted).abs().max() <= 2e-2 * wanted.abs().max(), name


def test_few_rows_go_another_way() -> None:
    model = Model(made(fakes.config("llama"), "full", torch.bfloat16), "layout", 2)
    layer = model.module.model.layers[0]
    with torch.no_grad():
        for rows in (fast_pass.LEAST - 1, fast_pass.LEAST):
            x = torch.zeros(rows, 32, dtype=torch.bfloat16)
            assert (fast_pass.parts_of(layer, x, None) is not None) == (rows >= fast_pass.LEAST)


def test_chains_wait_for_attention_and_for_each_other(
    passes: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads of 32, which tiles attend to."""
    config = fakes.config(
        "llama", hidden_size=64, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=3
    )

    def said() -> torch.Tensor:
        model = Model(made(config, "lora", torch.bfloat16), "layout", 3)
        quicken(model, config)
        with torch.no_grad():
            return logits(model)

    found, wanted = waiting_and_not(said, fast_decoder, monkeypatch)
    assert passes[-3:] == [True] * 3
    assert torch.equal(found, wanted)
