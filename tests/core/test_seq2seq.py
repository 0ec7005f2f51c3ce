"""Encoder-decoder models: teacher forcing over trees of a source and its targets, and greedy answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, BartConfig, PretrainedConfig, T5Config

from tunesmith.core.batch import Batch
from tunesmith.core.model import Model, token_logps
from tunesmith.generate.batched import generate, label_logps, nll
from tunesmith.types import RowRef, Segment, TokenRow

VOCAB, START, END = 96, 0, 1
CONFIGS: dict[str, PretrainedConfig] = {
    "t5": T5Config(
        vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=START
    ),
    "bart": BartConfig(
        vocab_size=VOCAB,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=END,
        decoder_start_token_id=START,
        forced_eos_token_id=None,
    ),
}


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    module: Any = AutoModelForSeq2SeqLM.from_config(CONFIGS[request.param]).double().eval()
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return Model(module, "padded", 2, start_id=START)


def row(source: list[int], *targets: list[int], index: int = 0) -> TokenRow:
    root = Segment(np.array(source), np.zeros(len(source), np.float32))
    leaves = [Segment(np.array(t), np.ones(len(t), np.float32), 0) for t in targets]
    return TokenRow(RowRef("fake", index), (root, *leaves), alone=True)


ROWS = [
    row([5, 6, 7, 8, 1], [9, 10, 1], index=0),
    row([5, 6, 20, 1], [30, 31, 32, 33, 1], [40, 1], index=1),
    row([50, 1], [9, 1], index=2),
]


def alone(module: Any, source: list[int], target: list[int]) -> torch.Tensor:
    """(L, V): stock transformers on one row, without padding."""
    with torch.no_grad():
        out = module(
            input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[START, *target[:-1]]])
        )
    return out.logits[0]  # type: ignore[no-any-return]


def test_a_batch_of_trees_gives_what_stock_gives_for_each_pair(model: Model) -> None:
    batch = Batch.from_rows(ROWS)
    with torch.no_grad():
        logits = model.logits(batch)
    expected = [
        alone(model.module, r.segments[0].ids.tolist(), leaf.ids.tolist())
        for r in ROWS
        for leaf in r.segments[1:]
    ]
    assert torch.allclose(logits, torch.cat(expected), atol=1e-9)
    assert batch.targets.tolist() == [i for r in ROWS for leaf in r.segments[1:] for i in leaf.ids.tolist()]


def test_gradients_do_not_depend_on_the_company_of_a_row(model: Model) -> None:
    def gradients(batches: list[Batch]) -> list[torch.Tensor]:
        model.module.zero_grad()
        for batch in batches:
            (-token_logps(model.logits(batch), batch.targets)).sum().backward()
        return [p.grad.clone() for p in model.module.parameters() if p.grad is not None]

    together = gradients([Batch.from_rows(ROWS)])
    apart = gradients([Batch.from_rows([r]) for r in ROWS])
    for one, two in zip(together, apart, strict=True):
        assert torch.allclose(one, two, rtol=1e-6, atol=1e-8)


def test_losses_of_rows_are_those_of_stock(model: Model) -> None:
    totals, weights = nll(model, [ROWS[0], ROWS[2]], 1000)
    for total, r in zip(totals, (ROWS[0], ROWS[2]), strict=True):
        source, target = (s.ids.tolist() for s in r.segments)
        logp = alone(model.module, source, target).log_softmax(-1)
        assert total == pytest.approx(-sum(logp[i, t].item() for i, t in enumerate(target)), abs=1e-6)
    assert weights.tolist() == [3, 2]


def test_labels_are_scored_with_the_source_encoded_once(model: Model) -> None:
    prompts, labels = [[5, 6, 7, 1], [50, 1]], [[9, 1], [30, 31, 1]]
    scores = label_logps(model, prompts, labels, 1000)
    for i, prompt in enumerate(prompts):
        for j, label in enumerate(labels):
            logp = alone(model.module, prompt, label).log_softmax(-1)
            assert scores[i, j] == pytest.approx(
                sum(logp[k, t].item() for k, t in enumerate(label)), abs=1e-5
            )


def test_greedy_answers_are_those_of_stock_one_by_one(model: Model) -> None:
    prompts = [[5, 6, 7, 8, 1], [50, 1], [60, 61, 62, 63, 64, 65, 1]]
    found = dict(generate(model, prompts, max_new_tokens=6, end_ids=[END], pad_id=0, batch_size=3))
    for i, prompt in enumerate(prompts):
        ids: list[int] = []
        for _ in range(6):
            step = alone(model.module, prompt, [*ids, 0])[-1].argmax().item()
            if step == END:
                break
            ids.append(int(step))
        assert found[i].ids == ids
