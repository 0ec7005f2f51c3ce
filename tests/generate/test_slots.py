"""Answers by slots equal those of stock transformers, token for token, whatever the number of slots."""

from __future__ import annotations

from typing import Any

import numpy as np
import peft
import pytest
import torch

from tests import fakes
from tests.generate.test_batched import EOS, answers, stock_answers
from tests.models.test_fast import CONFIGS, made
from tunesmith.core import native, packed
from tunesmith.core.model import Model
from tunesmith.generate import slots
from tunesmith.generate.batched import generate
from tunesmith.models import fast_linear
from tunesmith.models.fast import quicken

pytestmark = pytest.mark.skipif(native.library() is None, reason=native.why_not())


def prompts(count: int = 11, begin: tuple[int, ...] = ()) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [[*begin, *rng.integers(3, fakes.VOCAB, int(rng.integers(1, 20))).tolist()] for _ in range(count)]


def quick(family: str, kind: str = "full") -> Model:
    config = CONFIGS[family]()
    model = Model(made(config, kind), "layout", 2)
    quicken(model, config)
    assert model.writes_by_slots
    return model


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("steps", [True, False])
def test_answers_are_those_of_stock_transformers(family: str, kind: str, steps: bool) -> None:
    """Tokens by steps that are made ready once, and by the layers' own forward."""
    model, given = quick(family, kind), prompts(5)
    assert model.step is not None
    model.step = model.step if steps else None
    stock = Model(made(CONFIGS[family](), kind), "padded", 2)
    if kind == "lora":
        stock.module = stock.module.merge_and_unload()
    assert answers(model, given, 5, longest=20) == stock_answers(stock, given, longest=20)


@pytest.mark.parametrize("most", [1, 25, 60])
def test_prompts_are_taken_in_by_passes(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    model, given = quick("llama"), prompts()
    wanted = stock_answers(Model(made(CONFIGS["llama"](), "full"), "padded", 2), given, longest=6)
    monkeypatch.setattr(slots, "pass_tokens", lambda device: most)
    passes: list[int] = []
    real = Model._by_layers

    def counted(self: Model, backbone: Any, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        passes.append(len(ids))
        return real(self, backbone, ids, *rest)

    monkeypatch.setattr(Model, "_by_layers", counted)
    assert answers(model, given, len(given), longest=6) == wanted
    assert sum(passes) == sum(map(len, given))
    assert all(tokens <= most or tokens in map(len, given) for tokens in passes)


def test_adapters_are_made_ready_once_for_what_is_written_and_anew_after_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, stock, given = (
        quick("llama", "lora"),
        Model(made(CONFIGS["llama"](), "lora"), "padded", 2),
        prompts(5),
    )
    ready: list[int] = []
    real = fast_linear._adapters

    def counted(downs: Any, *given: Any) -> Any:
        ready.append(len(downs))
        return real(downs, *given)

    monkeypatch.setattr(fast_linear, "_adapters", counted)
    before = answers(model, given, 5, longest=20)
    assert ready == [3, 1, 2, 1] * 2  # of each layer: q, k, v; o; gate, up; down
    for module in (model.module, stock.module):
        with torch.no_grad():
            for name, weight in module.named_parameters():
                if "lora_B" in name:
                    weight.mul_(-2)
    stock.module = stock.module.merge_and_unload()
    after = answers(model, given, 5, longest=20)
    assert after == stock_answers(stock, given, longest=20)
    assert after != before


@pytest.mark.parametrize("roomy", [True, False])
def test_weights_are_laid_out_where_the_machine_has_room(
    monkeypatch: pytest.MonkeyPatch, roomy: bool
) -> None:
    """Of two layers seven weights each, and the head's; the answers are the same."""
    model, given = quick("llama"), prompts(5)
    wanted = stock_answers(Model(made(CONFIGS["llama"](), "full"), "padded", 2), given, longest=20)
    laid_out: list[tuple[int, ...]] = []
    real = packed.product
    monkeypatch.setattr(packed, "product", lambda w, b: laid_out.append(w.shape) or real(w, b))
    monkeypatch.setattr(packed, "affordable", lambda module: roomy)
    assert answers(model, given, 5, longest=20) == wanted
    assert len(laid_out) == (15 if roomy else 0)


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("begin", [(), (7, 8, 9, 10, 11, 12, 13, 14)])
def test_slots_are_used_again_and_beginnings_shared(size: int, begin: tuple[int, ...]) -> None:
    model, given = quick("llama"), prompts(begin=begin)
    ends = (EOS, *range(40, 60))  # so that answers are of all lengths
    wanted = stock_answers(Model(made(CONFIGS["llama"](), "full"), "padded", 2), given, ends)
    assert len({len(a.ids) for a in wanted}) > 3
    assert answers(model, given, size, ends=ends) == wanted


def test_prompts_come_in_while_others_are_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """With four slots and eleven prompts no step but the last ones leaves slots idle for long."""
    model, given = quick("llama"), prompts()
    busy = []
    real = slots.Decode
    monkeypatch.setattr(
        slots, "Decode", lambda s, rows, places: busy.append(len(rows)) or real(s, rows, places)
    )
    found = answers(model, given, 4, ends=(EOS, *range(40, 60)))
    tokens = sum(len(a.ids) + a.ended for a in found)
    assert tokens - len(given) == sum(busy)  # each token once: the first of an answer comes from its prompt
    early = busy[: len(busy) // 2]
    assert sum(early) >= 2.5 * len(early)


def test_the_mode_comes_back_and_no_gradient_is_kept() -> None:
    model = quick("llama")
    model.module.train()
    running = generate(model, prompts(), max_new_tokens=4, end_ids=[EOS], pad_id=0, batch_size=3)
    next(running)
    assert torch.is_grad_enabled()  # between two answers the caller's own work goes on
    running.close()
    assert model.module.training


def test_a_head_that_is_more_than_a_product_writes_the_stock_way() -> None:
    config = CONFIGS["llama untied"]()
    module = made(config, "full")
    adapter = peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    torch.manual_seed(3)
    model = Model(peft.get_peft_model(module, adapter), "layout", 2)
    quicken(model, config)
    assert not model.writes_by_slots
    given = prompts(4)
    assert answers(model, given, 4) == answers(model, given, 1)


def test_bfloat16_writes_too() -> None:
    model = quick("llama")
    model.module.bfloat16()
    assert model.writes_by_slots
    assert len(answers(model, prompts(), 4)) == 11


def test_no_prompts_are_no_answers() -> None:
    assert answers(quick("llama"), [], 4) == []
