"""Rows 1, 6, 8, 12, 21 of the correctness list: one gradient, however the rows are laid out and split.

The reference is independent: each row alone through the stock model, loss written out as sums of log-softmax.
"""

from __future__ import annotations

import pytest
import torch

from tests import fakes
from tunesmith.config.methods import SftConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model, token_logps
from tunesmith.objectives.sft import Sft

# Llama's family computes its norms and rotations in float32 whatever the weights are; GPT-2 is exact.
EXACT = {"gpt2": 1e-10}
SPLITS = {"1x8": [8], "2x4": [4, 4], "4x2": [2, 2, 2, 2], "8x1": [1] * 8, "short last": [3, 3, 2]}


def tuned_module(family: str, tuning: str):
    dtype = torch.float32 if family == "gemma2" else torch.float64
    module = fakes.module(family, dtype=dtype)
    if tuning == "lora":
        from peft import LoraConfig as PeftLora
        from peft import get_peft_model

        module = get_peft_model(
            module,
            PeftLora(r=4, lora_alpha=8, target_modules="all-linear", fan_in_fan_out=family == "gpt2"),
        ).to(dtype)
        for name, parameter in module.named_parameters():
            if "lora_B" in name:  # a zero B hides what reaches A
                torch.nn.init.normal_(parameter, std=0.1)
    return module


def reference(module, rows):
    """Loss and gradient of sum(w * nll) / sum(w), row by row, without any of our code."""
    module.zero_grad()
    total = sum(float(s.weights.sum()) for r in rows for s in r.segments)
    loss = 0.0
    for row in rows:
        ids = torch.from_numpy(row.segments[0].ids)
        weights = torch.from_numpy(row.segments[0].weights)
        logits = module(input_ids=ids[None]).logits[0]
        logps = torch.log_softmax(logits[:-1].double(), -1).gather(1, ids[1:, None])[:, 0]
        part = -(logps * weights[1:]).sum() / total
        part.backward()
        loss += part.item()
    return loss, gradient(module)


def gradient(module):
    return torch.cat([p.grad.flatten().double() for p in module.parameters() if p.grad is not None])


def ours(model: Model, rows, split):
    objective = Sft(SftConfig())
    model.module.zero_grad()
    batches, start = [], 0
    for size in split:
        batches.append(Batch.from_rows(rows[start : start + size]))
        start += size
    total = sum(objective.weights(b)["sft"].item() for b in batches)
    loss = 0.0
    for batch in batches:
        part = objective.loss(model, batch).terms["sft"] / total
        part.backward()
        loss += part.item()
    return loss, gradient(model.module)


@pytest.mark.parametrize("rows", [fakes.rows(8), fakes.rows(8, begin=5)], ids=["unlike", "begin alike"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("path", ["layout", "padded"])
@pytest.mark.parametrize("family", fakes.FAMILIES)
def test_row_1_every_split_gives_the_gradient_of_one_batch(family, path, tuning, rows):
    module = tuned_module(family, tuning)
    stock = "eager" if family == "gemma2" else "sdpa"
    module.set_attn_implementation(stock)
    loss, expected = reference(module, rows)
    module.set_attn_implementation("tunesmith" if path == "layout" else stock)
    tolerance = EXACT.get(family, 1e-5)
    for split in SPLITS.values():
        got_loss, got = ours(Model(module, path, 2), rows, split)
        assert got_loss == pytest.approx(loss, rel=tolerance)
        assert (got - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("family", fakes.FAMILIES)
def test_row_6_changing_one_document_leaves_the_others_bit_equal(family):
    model = fakes.model(family, dtype=torch.float32)
    rows = fakes.rows(6)
    batch = Batch.from_rows(rows)
    before = model.logits(batch)
    changed = [fakes.row(((rows[0].segments[0].ids + 1) % 90 + 3).tolist(), 1), *rows[1:]]
    kept = batch.row_of > 0
    after_batch = Batch.from_rows(changed)
    after = model.logits(after_batch)
    assert torch.equal(after[after_batch.row_of > 0], before[kept])


@pytest.mark.parametrize("family", fakes.FAMILIES)
@pytest.mark.parametrize("path", ["layout", "padded"])
def test_rows_6_and_21_a_row_alone_equals_the_row_in_a_batch(family, path):
    model = fakes.model(family, path, dtype=torch.float32)
    rows = fakes.rows(6)
    together = Batch.from_rows(rows)
    logps = token_logps(model.logits(together), together.targets)
    for index, row in enumerate(rows):
        alone = Batch.from_rows([row])
        expected = token_logps(model.logits(alone), alone.targets)
        assert torch.allclose(logps[together.row_of == index], expected, atol=1e-5)


@pytest.mark.parametrize("family", fakes.FAMILIES)
def test_completions_that_share_a_prompt_equal_separate_rows(family):
    import numpy as np

    from tunesmith.types import RowRef, Segment, TokenRow

    rng = np.random.default_rng(1)
    prompt = rng.integers(3, 90, 9)
    answers = [rng.integers(3, 90, n) for n in (4, 11, 1)]
    ones = [np.ones(len(a), dtype=np.float32) for a in answers]
    root = Segment(prompt, np.zeros(9, dtype=np.float32))
    tree = TokenRow(RowRef("t", 1), (root, *(Segment(a, w, 0) for a, w in zip(answers, ones, strict=True))))
    separate = [fakes.row([*prompt, *a], len(prompt)) for a in answers]
    for path in ("layout", "padded"):
        model = fakes.model(family, path, dtype=torch.float32)
        shared = Batch.from_rows([tree])
        apart = Batch.from_rows(separate)
        assert torch.equal(shared.targets, apart.targets)
        got = token_logps(model.logits(shared), shared.targets)
        expected = token_logps(model.logits(apart), apart.targets)
        assert torch.allclose(got, expected, atol=1e-5)


def test_row_8_hand_computed_loss_of_two_rows_of_five_tokens():
    """A model whose logits are known: one-hot states, so that the loss is a sum of given numbers."""

    class Table(torch.nn.Module):
        """logits[t] = table[input_ids[t]]"""

        def __init__(self, table):
            super().__init__()
            self.table = table

        def forward(self, input_ids, logits_to_keep, layout=None, **_):
            if layout is not None:
                layout.calls += 1
            out = type("Out", (), {})()
            out.logits = self.table[input_ids][:, logits_to_keep]
            return out

    table = torch.log(
        torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25] * 4, [0.7, 0.1, 0.1, 0.1], [0.4, 0.4, 0.1, 0.1]])
    )
    rows = [fakes.row([0, 1, 2, 3, 0], 3), fakes.row([3, 3, 1, 0, 2], 2)]
    # row 1: p(3|2) p(0|3) = 0.1, 0.4; row 2: p(1|3) p(0|1) p(2|0) = 0.4, 0.25, 0.3
    expected = -torch.log(torch.tensor([0.1, 0.4, 0.4, 0.25, 0.3])).sum()
    for path in ("layout", "padded"):
        out = Sft(SftConfig()).loss(Model(Table(table), path, 1), Batch.from_rows(rows))
        assert out.terms["sft"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_row_8_a_perfect_oracle_has_no_loss():
    class Oracle(torch.nn.Module):
        """Knows that each token is the one before it plus one."""

        def forward(self, input_ids, logits_to_keep, layout, **_):
            layout.calls += 1
            out = type("Out", (), {})()
            out.logits = 100.0 * torch.nn.functional.one_hot(input_ids + 1, 64)[:, logits_to_keep].float()
            return out

    batch = Batch.from_rows([fakes.row(range(5, 15), 1), fakes.row(range(30, 37), 3)])
    out = Sft(SftConfig()).loss(Model(Oracle(), "layout", 1), batch)
    assert out.terms["sft"].item() < 1e-6
    assert out.metrics["token_accuracy"].item() == len(batch.targets)


def test_row_12_two_scoring_passes_are_bit_equal_and_the_mode_comes_back():
    from tunesmith.generate.batched import nll

    module = fakes.module("gpt2", dtype=torch.float32, resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3)
    model = Model(module.train(), "layout", 2)
    rows = fakes.rows(6)
    first, _ = nll(model, rows, 64)
    second, _ = nll(model, rows, 64)
    assert (first == second).all()
    assert module.training
    batch = Batch.from_rows(rows)
    objective = Sft(SftConfig())
    torch.manual_seed(0)
    one = objective.loss(model, batch).terms["sft"].item()
    torch.manual_seed(1)
    assert objective.loss(model, batch).terms["sft"].item() != one  # dropout is on while training


def test_label_smoothing_equals_the_formula():
    model = fakes.model("gpt2")
    batch = Batch.from_rows(fakes.rows(4))
    out = Sft(SftConfig(label_smoothing=0.1)).loss(model, batch).terms["sft"]
    logps = torch.log_softmax(model.logits(batch), -1)
    nll = -logps.gather(1, batch.targets[:, None])[:, 0]
    expected = (batch.weights * (0.9 * nll - 0.1 * logps.mean(-1))).sum()
    assert out.item() == pytest.approx(expected.item(), rel=1e-10)
