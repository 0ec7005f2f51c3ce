"""Rows 4 and 21: batches, padding and caches change no answer and no likelihood."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import fakes
from tunesmith.config.methods import SftConfig
from tunesmith.config.run import TrainConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import ROUND_TO, Model, token_logps
from tunesmith.generate.batched import Generated, completion_sums, generate, label_logps, nll
from tunesmith.objectives.sft import Sft
from tunesmith.train.optim import Optimizer

PATHS = ("layout", "padded")
EOS, PAD = 2, 0
MODELS = [(family, path) for family in fakes.FAMILIES for path in PATHS]


def prompts(count=7, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, fakes.VOCAB, int(rng.integers(1, 15))).tolist() for _ in range(count)]


def answers(model, given, batch_size, *, ends=(EOS,), pad=PAD, longest=12):
    found = dict(
        generate(model, given, max_new_tokens=longest, end_ids=ends, pad_id=pad, batch_size=batch_size)
    )
    assert sorted(found) == list(range(len(given)))
    return [found[i] for i in range(len(given))]


def stock_answers(model, given, ends=(EOS,), longest=12):
    """transformers' own generate under the family's stock attention, a prompt at a time, without padding."""
    module = model.module
    name = module.config._attn_implementation
    module.set_attn_implementation("eager" if module.config.model_type == "gemma2" else "sdpa")
    out = []
    for prompt in given:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            row = (
                module.eval()
                .generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=longest,
                    do_sample=False,
                    eos_token_id=list(ends),
                    pad_token_id=PAD,
                )[0, len(prompt) :]
                .tolist()
            )
        ended = row[-1] in ends
        out.append(Generated(row[:-1] if ended else row, ended))
    module.set_attn_implementation(name)
    return out


@pytest.mark.parametrize("family, path", MODELS)
def test_a_batch_answers_as_one_at_a_time_and_as_stock_transformers(family, path):
    model = fakes.model(family, path, dtype=torch.float32)
    given = prompts()
    alone = answers(model, given, 1)
    assert alone == stock_answers(model, given)
    assert answers(model, given, 3) == alone
    assert answers(model, given, 100) == alone
    assert len({tuple(a.ids) for a in alone}) > 1  # the answers do depend on the prompts


def test_a_prompt_beyond_the_sliding_window_is_answered_alike():
    model = fakes.model("gemma2", dtype=torch.float32)
    given = [list(range(3, 40)), [5, 6], list(range(40, 60))]
    assert answers(model, given, 3) == stock_answers(model, given)


@pytest.mark.parametrize("family", fakes.FAMILIES)
def test_the_padding_token_changes_no_answer(family):
    model = fakes.model(family, dtype=torch.float32)
    given = prompts()
    assert (
        answers(model, given, 7, pad=0)
        == answers(model, given, 7, pad=EOS)
        == answers(model, given, 7, pad=50)
    )


def test_generation_stops_at_any_end_and_leaves_it_out():
    model = fakes.model("llama", dtype=torch.float32)
    given = prompts()
    free = answers(model, given, 7, ends=(EOS,))
    long = [a.ids for a in free if len(a.ids) == 12]
    ends = (EOS, long[0][2], long[1][4])
    for got, whole in zip(answers(model, given, 7, ends=ends), free, strict=True):
        stops = [i for i, token in enumerate(whole.ids) if token in ends]
        assert got.ended == bool(stops or whole.ended)
        assert got.ids == (whole.ids[: stops[0]] if stops else whole.ids)
    assert len({len(a.ids) for a in answers(model, given, 7, ends=ends)}) > 1


def test_an_answer_that_is_cut_says_so():
    model = fakes.model("llama", dtype=torch.float32)
    (got,) = answers(model, [[5, 6, 7]], 1, longest=4)
    assert len(got.ids) == 4
    assert not got.ended


def test_the_models_own_generation_settings_do_not_bend_greedy_answers():
    """Many models on the hub come with a repetition penalty, which changes what is most likely."""
    model = fakes.model("llama", dtype=torch.float32)
    given = prompts()
    plain = answers(model, given, 3)
    own = model.module.generation_config
    own.repetition_penalty, own.min_new_tokens, own.do_sample, own.temperature = 5.0, 6, True, 0.5
    assert answers(model, given, 3) == plain
    assert model.module.generation_config is own  # and are kept, for whoever serves the model


def test_an_adapters_answers_are_those_of_its_update():
    from peft import LoraConfig, get_peft_model

    given = prompts()
    model = fakes.model("llama", dtype=torch.float32)
    base = answers(model, given, 3)
    module = get_peft_model(model.module, LoraConfig(r=4, target_modules="all-linear"))
    wrapped = Model(module, "layout", 2)
    module.generation_config.repetition_penalty = 3.0
    assert answers(wrapped, given, 3) == base
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    tuned = answers(wrapped, given, 3)
    assert tuned != base
    assert module.generation_config.repetition_penalty == 3.0
    assert answers(Model(module.merge_and_unload(), "layout", 2), given, 3) == tuned


def test_generation_leaves_the_mode_and_no_gradient():
    model = fakes.model("gpt2", dtype=torch.float32, resid_pdrop=0.5, embd_pdrop=0.5)
    model.module.train()
    given = prompts(3)
    assert answers(model, given, 3) == answers(model, given, 3)
    assert model.module.training
    assert all(p.grad is None for p in model.module.parameters())


@pytest.mark.parametrize("path", PATHS)
def test_row_4_a_model_that_has_seen_twenty_rows_stops_twenty_times(path):
    """The padding token is the end token, as in many models; the end is trained all the same."""
    model = fakes.model("llama", path, dtype=torch.float32)
    rng = np.random.default_rng(5)
    asked = [[3 + index, 40, 41] for index in range(20)]
    wanted = [rng.integers(45, fakes.VOCAB, int(rng.integers(1, 5))).tolist() for _ in range(20)]
    rows = [fakes.row([*a, *w, EOS], 3, i) for i, (a, w) in enumerate(zip(asked, wanted, strict=True))]
    objective, optimizer = Sft(SftConfig()), Optimizer(model.module, TrainConfig())
    batch = Batch.from_rows(rows)
    model.module.train()
    for _ in range(60):
        (objective.loss(model, batch).terms["sft"] / objective.weights(batch)["sft"]).backward()
        optimizer.step(1e-2, optimizer.grad_norm().item())
    got = answers(model, asked, 8, pad=EOS)
    assert sum(a.ended for a in got) == 20
    assert [a.ids for a in got] == wanted


@pytest.mark.parametrize("family, path", MODELS)
def test_row_21_likelihoods_while_generating_are_those_of_scoring(family, path):
    """Generation pads on the left and reads a cache; scoring pads on the right, or not at all."""
    model = fakes.model(family, path, dtype=torch.float32)
    given = prompts(5)
    width = max(len(p) for p in given)
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in given])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in given])
    with torch.no_grad():
        out = model.module.eval().generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=6,
            do_sample=False,
            min_new_tokens=6,
            pad_token_id=PAD,
            output_logits=True,
            return_dict_in_generate=True,
        )
        new = out.sequences[:, width:]
        generated = torch.log_softmax(torch.stack(out.logits, 1).float(), -1).gather(2, new[..., None])[
            ..., 0
        ]
        rows = [
            fakes.row([*p, *n], len(p), i) for i, (p, n) in enumerate(zip(given, new.tolist(), strict=True))
        ]
        batch = Batch.from_rows(rows)
        scored = token_logps(model.logits(batch), batch.targets).view(5, 6)
    assert torch.allclose(scored, generated, atol=1e-5)


def alone(model, ids, start):
    """Log-probability of ids[start:], by the stock model on one row."""
    name = model.module.config._attn_implementation
    model.module.set_attn_implementation("eager" if model.module.config.model_type == "gemma2" else "sdpa")
    with torch.no_grad():
        logits = model.module(input_ids=torch.tensor([ids])).logits[0]
    model.module.set_attn_implementation(name)
    logps = torch.log_softmax(logits.double(), -1)
    return np.array([logps[t - 1, ids[t]].item() for t in range(start, len(ids))])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("family", fakes.FAMILIES)
@pytest.mark.parametrize("budget", [1, 60, 10_000])
@pytest.mark.parametrize("begin", [[], [7, 8, 9, 7, 8, 9, 4]], ids=["unlike", "begin alike"])
def test_the_likelihood_of_each_label_is_that_of_its_own_row(family, path, budget, begin):
    model = fakes.model(family, path, dtype=torch.float32)
    model.module.train()
    given = [begin + prompt for prompt in prompts(4)]
    labels = [[5, EOS], [5, 6, 7, EOS], [90, EOS], [EOS]]
    got = label_logps(model, given, labels, budget)
    expected = [[alone(model, p + label, len(p)).sum() for label in labels] for p in given]
    assert got.shape == (4, 4)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert model.module.training


@pytest.mark.parametrize("path", PATHS)
def test_scoring_labels_keeps_the_budget_of_tokens(path):
    model = fakes.model("llama", path, dtype=torch.float32)
    sizes = []
    model.module.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    label_logps(model, prompts(20), [[5, EOS], [5, 6, 7, EOS], [90, EOS]], 100)
    assert len(sizes) > 1
    assert max(sizes) < 100 + (ROUND_TO if path == "layout" else 1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("budget", [1, 50, 10_000])
def test_nll_is_the_weighted_sum_of_each_row(path, budget):
    model = fakes.model("llama", path, dtype=torch.float32)
    rows = fakes.rows(7)
    totals, weights = nll(model, rows, budget)
    for row, total, weight in zip(rows, totals, weights, strict=True):
        ids, own = row.segments[0].ids.tolist(), row.segments[0].weights
        expected = -(alone(model, ids, 1) * own[1:]).sum()
        assert total == pytest.approx(expected, abs=1e-4)
        assert weight == pytest.approx(own.sum())


@pytest.mark.parametrize("path", PATHS)
def test_sums_of_completions_are_those_of_each_alone_in_the_order_of_the_rows(path):
    """Also while the model trains, under dropout."""
    rows = fakes.judged_rows(7)
    module = fakes.module("llama", dtype=torch.float32, attention_dropout=0.3)
    model = fakes.model("llama", path, module)
    module.train()
    found = completion_sums(model, rows, 60)
    assert module.training
    module.set_attn_implementation("sdpa")
    for row, sums in zip(rows, found, strict=True):
        root, *leaves = (segment.ids for segment in row.segments)
        for leaf, got in zip(leaves, sums, strict=True):
            ids = torch.tensor([*root, *leaf])
            with torch.no_grad():
                logps = module.eval()(input_ids=ids[None]).logits[0, :-1].double().log_softmax(-1)
            alone = logps.gather(1, ids[1:, None])[len(root) - 1 :].sum().item()
            assert got == pytest.approx(alone, abs=1e-4)
