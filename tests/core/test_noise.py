"""NEFTune: each row's token embeddings get alpha / sqrt(L d) * uniform(-1, 1), by whichever path they come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from tests import fakes
from tunesmith.core import attention
from tunesmith.core.batch import Batch
from tunesmith.core.heads import Head, PooledHead
from tunesmith.core.model import Model
from tunesmith.core.noise import EmbeddingNoise
from tunesmith.errors import ModelError
from tunesmith.types import RowRef, Segment, TokenRow

NOISE = EmbeddingNoise(alpha=5.0, seed=7)
SUPERVISED, BARE = np.float32(1), np.float32(0)


def tree() -> TokenRow:
    """A prompt of 5 tokens, completions of 3 and 6."""
    lengths, weights = (5, 3, 6), (BARE, SUPERVISED, SUPERVISED)
    segments = tuple(
        Segment(np.arange(n) + 10 * n, np.full(n, w), -1 if i == 0 else 0)
        for i, (n, w) in enumerate(zip(lengths, weights, strict=True))
    )
    return TokenRow(RowRef("tree.jsonl", 1), segments)


def paths(row: TokenRow):
    """Root-to-leaf rows, written out: ids, weights, and the noise of each token."""
    noise = NOISE.of(row, 32)
    if len(row.segments) == 1:
        return [(row.segments[0].ids, row.segments[0].weights, noise)]
    prompt, *answers = row.segments
    start, out = len(prompt.ids), []
    for answer in answers:
        ids = np.concatenate([prompt.ids, answer.ids])
        weights = np.concatenate([prompt.weights, answer.weights])
        out.append(
            (ids, weights, torch.cat([noise[: len(prompt.ids)], noise[start : start + len(answer.ids)]]))
        )
        start += len(answer.ids)
    return out


def reference(module, rows):
    """(M, V): each path alone, its noise added to its embeddings by hand."""
    found = []
    for row in rows:
        for ids, weights, noise in paths(row):
            embedded = module.get_input_embeddings()(torch.from_numpy(ids))[None]
            logits = module(inputs_embeds=embedded + noise.to(embedded.dtype)).logits[0]
            found.append(logits[np.flatnonzero(weights) - 1])
    return torch.cat(found)


def worn(module):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=2,
        target_modules="all-linear",
        init_lora_weights=False,
        trainable_token_indices={"wte" if hasattr(module, "transformer") else "embed_tokens": [3]},
        fan_in_fan_out=hasattr(module, "transformer"),  # GPT-2's Conv1D
    )
    return get_peft_model(module, config)


@pytest.mark.parametrize("path", ["layout", "padded"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_noise_is_added_to_the_embeddings_of_each_row(family, path, lora):
    model = fakes.model(family, path, worn(fakes.module(family)) if lora else None)
    rows = [*fakes.rows(4), tree()]
    batch = Batch.from_rows(rows, share=False)
    with torch.no_grad(), model.noisy(NOISE):
        noised = model.logits(batch)
    with torch.no_grad():
        expected, quiet = reference(model.module, rows), model.logits(batch)
    assert torch.allclose(noised, expected, atol=1e-9)
    assert (noised - quiet).abs().max() > 0.01


@pytest.mark.parametrize("path", ["layout", "padded"])
@pytest.mark.parametrize("carrier", ["stock", "pooled"])
def test_a_model_with_a_head_gets_it_too(path, carrier):
    attention.register()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=fakes.VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    stock = BertForSequenceClassification._from_config(
        config, attn_implementation=attention.NAME if path == "layout" else "sdpa"
    ).double()
    if carrier == "stock":
        model = Model(stock, path, 2, Head("sequence", "cls", stock, stock.bert, causal=False))
    else:
        pooled = PooledHead(stock.bert, 2, 0.0)
        model = Model(pooled, path, 2, Head("sequence", "mean", pooled, stock.bert, causal=False))
    rows = [replace(r, target=np.array([i % 2])) for i, r in enumerate(fakes.rows(4))]
    with torch.no_grad(), model.noisy(NOISE):
        states = model.states(Batch.from_rows(rows, share=False))
        outputs = model.outputs(Batch.from_rows(rows, share=False))
    with torch.no_grad():
        alone = []
        for row in rows:
            embedded = stock.get_input_embeddings()(torch.from_numpy(row.segments[0].ids))[None]
            alone.append(stock.bert(inputs_embeds=embedded + NOISE.of(row, 32).double())[0][0])
        assert torch.allclose(states, torch.cat(alone), atol=1e-9)
        assert not torch.allclose(outputs, model.outputs(Batch.from_rows(rows, share=False)), atol=1e-3)


def test_learned_tokens_before_a_row_get_none():
    from peft import PromptTuningConfig, get_peft_model

    prompted = get_peft_model(fakes.module(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    model = fakes.model(path="padded", module_=prompted.double())
    model.virtual_tokens = model.virtual_columns = 3
    row = fakes.row(range(3, 12), 4)
    with torch.no_grad(), model.noisy(NOISE):
        noised = model.logits(Batch.from_rows([row]))
    with torch.no_grad():
        learned = prompted.prompt_encoder["default"].embedding.weight
        embedded = prompted.get_input_embeddings()(torch.from_numpy(row.segments[0].ids)) + NOISE.of(row, 32)
        whole = torch.cat([learned, embedded])[None]
        expected = prompted.base_model(inputs_embeds=whole).logits[0, 3:][3:8]
    assert torch.allclose(noised, expected, atol=1e-9)


def test_an_encoder_decoder_model_is_refused():
    model = replace(fakes.model(), start_id=0)
    with pytest.raises(ModelError, match="neftune_alpha with an encoder-decoder"), model.noisy(NOISE):
        pass
    with model.noisy(None):
        pass


def test_its_size_is_alpha_over_the_root_of_the_rows_tokens_and_the_width():
    row = fakes.row(range(3, 90), 1)
    noise = NOISE.of(row, 4000)
    most = 5.0 / (87 * 4000) ** 0.5
    assert noise.abs().max().item() == pytest.approx(most, rel=1e-3)
    assert noise.abs().max() <= most
    assert noise.mean().item() == pytest.approx(0, abs=most / 100)
    assert noise.var().item() == pytest.approx(most**2 / 3, rel=1e-2)  # a uniform's


def test_a_tokens_length_is_that_of_the_longest_path_through_it():
    noise = NOISE.of(tree(), 4000)
    sizes = [part.abs().max().item() for part in noise.split([5, 3, 6])]
    assert sizes == pytest.approx([5.0 / (n * 4000) ** 0.5 for n in (11, 8, 11)], rel=1e-2)


def test_it_is_a_function_of_the_step_the_line_and_the_tokens_but_not_of_the_files_name():
    row = fakes.row([5, 6, 7], 1)
    noise = NOISE.of(row, 8)
    assert torch.equal(noise, NOISE.of(replace(row, ref=RowRef("moved.jsonl", 1)), 8))
    others = [
        replace(NOISE, seed=8).of(row, 8),
        NOISE.of(replace(row, ref=RowRef("fake.jsonl", 2)), 8),
        NOISE.of(fakes.row([5, 6, 8], 1), 8),
    ]
    assert not any(torch.equal(noise, other) for other in others)


def test_outside_a_training_pass_there_is_none():
    model = fakes.model()
    batch = Batch.from_rows(fakes.rows(3))
    before = model.logits(batch)
    with model.noisy(NOISE):
        model.logits(batch)
    assert torch.equal(before, model.logits(batch))
    assert not model.module.get_input_embeddings()._forward_hooks


def test_embeddings_that_do_not_run_are_an_error():
    model = fakes.model()
    module = model.module
    module.get_input_embeddings = lambda: torch.nn.Embedding(3, 4)
    with pytest.raises(ModelError, match="ran 0 times"), model.noisy(NOISE):
        model.logits(Batch.from_rows(fakes.rows(2)))
