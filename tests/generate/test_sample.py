"""Samples have the model's distribution, tell its log-probabilities, and depend on their keys alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import Tensor

from tests import fakes
from tests.generate.test_batched import EOS, PAD, prompts
from tests.models.test_fast import CONFIGS, made
from tunesmith.core import native
from tunesmith.core.model import Model
from tunesmith.core.native.cache import Prefill
from tunesmith.errors import ConfigError, ModelError, NonFiniteError
from tunesmith.generate.sample import Sample, Sampling, sample
from tunesmith.models.fast import quicken

ENDS = (EOS, *range(40, 60))  # so that samples are of all lengths


def quick(family: str = "llama", kind: str = "full") -> Model:
    config = CONFIGS[family]()
    model = Model(made(config, kind), "layout", 2)
    quicken(model, config)
    assert model.writes_by_slots
    return model


def plain(family: str = "llama", path: Any = "layout", **more: Any) -> Model:
    model = fakes.model(family, path, **({"dtype": torch.float32} | more))
    assert not model.writes_by_slots
    return model


WAYS = [
    pytest.param(
        quick, id="slots", marks=pytest.mark.skipif(native.library() is None, reason=native.why_not())
    ),
    pytest.param(plain, id="cache"),
]
FAMILIES = [
    *(pytest.param(lambda f=f: quick(f), id=f"slots {f}", marks=WAYS[0].marks) for f in CONFIGS),
    pytest.param(lambda: quick("llama", "lora"), id="slots lora", marks=WAYS[0].marks),
    *(
        pytest.param(lambda f=f, p=p: plain(f, p), id=f"cache {f} {p}")
        for f in fakes.FAMILIES
        for p in ("layout", "padded")
    ),
    pytest.param(lambda: plain("llama", dtype=torch.float64), id="cache doubles"),
]


def samples(
    model: Model,
    given: Sequence[Sequence[int]],
    count: int = 3,
    sampling: Sampling | None = None,
    **more: Any,
) -> list[list[Sample]]:
    """Of each prompt its samples."""
    options = {"seed": 5, "max_new_tokens": 12, "end_ids": ENDS, "pad_id": PAD, "num_slots": 64} | more
    found = {}
    for index, number, drawn in sample(model, given, count=count, sampling=sampling or Sampling(), **options):
        assert (index, number) not in found
        found[index, number] = drawn
    assert sorted(found) == [(i, s) for i in range(len(given)) for s in range(count)]
    return [[found[i, s] for s in range(count)] for i in range(len(given))]


def ids(found: list[list[Sample]]) -> list[list[list[int]]]:
    return [[s.ids for s in of_prompt] for of_prompt in found]


def next_logps(model: Model, row: Sequence[int]) -> Tensor:
    """(L, V) float64: of what follows each token, by the module's own forward pass over the row alone."""
    mode = model.module.training
    with torch.no_grad():
        logits = model.module.eval()(input_ids=torch.tensor([row])).logits[0]
    model.module.train(mode)
    return logits.double().log_softmax(-1)  # type: ignore[no-any-return]


def within_binomial_bounds(counts: np.ndarray, shares: np.ndarray) -> None:
    total = counts.sum()
    gap = np.abs(counts - total * shares)
    assert (gap <= 5 * np.sqrt(total * shares * (1 - shares)) + 2).all(), np.stack([counts, total * shares])


@pytest.mark.parametrize("way", WAYS)
def test_first_tokens_have_the_models_shares(way: Callable[..., Model]) -> None:
    model = way()
    model.module.resize_token_embeddings(8)
    (found,) = samples(model, [[3, 4, 5]], 20_000, max_new_tokens=1, end_ids=[], num_slots=500)
    counts = np.bincount([s.ids[0] for s in found], minlength=8)
    shares = next_logps(model, [3, 4, 5])[-1].exp().numpy()
    assert shares.max() < 0.9
    within_binomial_bounds(counts, shares)


@pytest.mark.parametrize("way", WAYS)
def test_second_tokens_have_the_shares_that_their_first_gives(way: Callable[..., Model]) -> None:
    model = way()
    model.module.resize_token_embeddings(8)
    (found,) = samples(model, [[3, 4, 5]], 20_000, max_new_tokens=2, end_ids=[], num_slots=2_000)
    counts = np.bincount([8 * s.ids[0] + s.ids[1] for s in found], minlength=64)
    first = next_logps(model, [3, 4, 5])[-1]
    joint = torch.stack([first[t] + next_logps(model, [3, 4, 5, t])[-1] for t in range(8)])
    within_binomial_bounds(counts, joint.exp().flatten().numpy())


@pytest.mark.parametrize("build", FAMILIES)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, top_p=0.8, top_k=30)])
def test_logps_and_entropies_are_those_of_the_finished_row(
    build: Callable[[], Model], sampling: Sampling
) -> None:
    """Cut or not, they are of the whole distribution at the temperature."""
    model, given = build(), prompts()
    for prompt, of_prompt in zip(given, samples(model, given, sampling=sampling, num_slots=5), strict=True):
        for drawn in of_prompt:
            logps = next_logps(model, [*prompt, *drawn.ids])[len(prompt) - 1 : -1]
            logps = (logps / sampling.temperature).log_softmax(-1)
            wanted = logps.gather(1, torch.tensor(drawn.ids)[:, None])[:, 0]
            assert drawn.logps.dtype == drawn.entropies.dtype == np.float32
            np.testing.assert_allclose(drawn.logps, wanted, atol=2e-5)
            np.testing.assert_allclose(drawn.entropies, -(logps.exp() * logps).sum(-1), atol=2e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sampling", [Sampling(top_k=3), Sampling(top_p=0.5), Sampling(1.5, 0.6, 7)])
def test_only_allowed_tokens_are_drawn(way: Callable[..., Model], sampling: Sampling) -> None:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    model = way()
    (found,) = samples(model, [[3, 4, 5]], 2_000, sampling, max_new_tokens=1, num_slots=500)
    scores = next_logps(model, [3, 4, 5])[-1:] / sampling.temperature
    if sampling.top_k is not None:
        scores = TopKLogitsWarper(sampling.top_k)(torch.empty(0), scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(torch.empty(0), scores)
    shares = scores[0].softmax(-1).numpy()
    counts = np.bincount([s.ids[0] for s in found], minlength=fakes.VOCAB)
    assert (counts[shares == 0] == 0).all()
    within_binomial_bounds(counts, shares)


@pytest.mark.parametrize("way", WAYS)
def test_a_sample_ends_at_its_first_end_token_or_its_limit(way: Callable[..., Model]) -> None:
    found = [s for of_prompt in samples(way(), prompts()) for s in of_prompt]
    for drawn in found:
        stops = [i for i, token in enumerate(drawn.ids) if token in ENDS]
        assert stops == ([len(drawn.ids) - 1] if drawn.ended else [])
        assert drawn.ended or len(drawn.ids) == 12
        assert len(drawn.ids) == len(drawn.logps) == len(drawn.entropies)
    assert {s.ended for s in found} == {True, False}
    assert len({len(s.ids) for s in found}) > 5


@pytest.mark.parametrize("build", FAMILIES)
def test_what_is_drawn_depends_neither_on_the_slots_nor_on_the_order(build: Callable[[], Model]) -> None:
    model, given = build(), prompts()
    wanted = samples(model, given)
    for slots in (1, 5):
        assert ids(samples(model, given, num_slots=slots)) == ids(wanted)
    order = np.random.default_rng(0).permutation(len(given)).tolist()
    shuffled = samples(model, [given[i] for i in order], num_slots=5, streams=order)
    assert ids(shuffled) == [ids(wanted)[i] for i in order]
    fewer = samples(model, given[:3], 2)
    assert ids(fewer) == [of_prompt[:2] for of_prompt in ids(wanted)[:3]]


@pytest.mark.skipif(native.library() is None, reason=native.why_not())
def test_slots_and_cache_draw_the_same() -> None:
    model = quick()
    wanted = ids(samples(model, prompts()))
    model.fast_head = False
    assert not model.writes_by_slots
    assert ids(samples(model, prompts())) == wanted


@pytest.mark.parametrize("way", WAYS)
def test_seeds_streams_and_samples_differ(way: Callable[..., Model]) -> None:
    model, given = way(), [[3, 4, 5], [3, 4, 5]]
    found = ids(samples(model, given, 4, end_ids=[]))
    assert len({tuple(s) for of_prompt in found for s in of_prompt}) == 8
    assert ids(samples(model, given, 4, end_ids=[])) == found
    assert ids(samples(model, given, 4, end_ids=[], streams=[0, 0])) == [found[0], found[0]]
    other = ids(samples(model, given, 4, end_ids=[], seed=6))
    assert not {tuple(s) for p in other for s in p} & {tuple(s) for p in found for s in p}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("slots", [1, 3, 64])
def test_each_prompt_is_computed_once(
    way: Callable[..., Model], slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = way(), prompts()
    computed = {True: 0, False: 0}  # tokens of prompts, tokens of answers
    real = Model.next_logits

    def next_logits(self: Model, ids: Tensor, positions: Tensor, state: Any, kept: Any) -> Tensor:
        computed[isinstance(state, Prefill)] += len(ids)
        return real(self, ids, positions, state, kept)

    def forward(module: Any, args: Any, kwargs: Any) -> None:
        if "past_key_values" in kwargs:  # the way of the cache
            width = kwargs["input_ids"].shape[1]
            computed[kwargs["past_key_values"] is None] += int(kwargs["attention_mask"][:, -width:].sum())

    monkeypatch.setattr(Model, "next_logits", next_logits)
    model.module.register_forward_pre_hook(forward, with_kwargs=True)
    found = samples(model, given, 5, num_slots=slots)
    drawn = [s for of_prompt in found for s in of_prompt]
    assert computed[True] == sum(map(len, given))
    assert computed[False] == sum(
        len(s.ids) - 1 for s in drawn
    )  # a sample's last token is followed by nothing


@pytest.mark.parametrize("way", WAYS)
def test_the_mode_comes_back_and_gradients_are_the_callers(way: Callable[..., Model]) -> None:
    model = way()
    model.module.train()
    running = sample(
        model,
        prompts(),
        count=2,
        sampling=Sampling(),
        seed=0,
        max_new_tokens=4,
        end_ids=[],
        pad_id=0,
        num_slots=3,
    )
    next(running)
    assert torch.is_grad_enabled()
    running.close()
    assert model.module.training


@pytest.mark.parametrize("way", WAYS)
def test_bfloat16_and_no_prompts(way: Callable[..., Model]) -> None:
    model = way()
    model.module.bfloat16()
    assert samples(model, []) == []
    assert len(samples(model, prompts())) == 7


@pytest.mark.parametrize("way", WAYS)
def test_logits_that_are_no_numbers_are_refused(way: Callable[..., Model]) -> None:
    model = way()
    model.module.model.norm.weight.data[3] = torch.nan
    with pytest.raises(NonFiniteError, match=r"at token 0 of sample 0 of prompt"):
        samples(model, prompts())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": 0.0}, "temperature 0.0\n  expected: a number above 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_p": 0.0}, "top_p 0.0"),
        ({"top_p": 1.1}, "top_p 1.1"),
        ({"top_k": 0}, "top_k 0"),
    ],
)
def test_settings_that_draw_nothing_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Sampling(**wrong)


def test_models_that_it_does_not_know_are_refused() -> None:
    model = plain()
    model.start_id = 0
    with pytest.raises(ModelError, match="sampling from an encoder-decoder model"):
        samples(model, prompts())
    tuned = plain()
    tuned.virtual_tokens = 4
    with pytest.raises(ModelError, match="4 learned tokens before each row"):
        samples(tuned, prompts())


def test_an_adapter_without_fast_layers_draws_as_its_merged_model() -> None:
    adapter = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, fan_in_fan_out=True)
    wrapped = peft.get_peft_model(made(fakes.config("gpt2"), "full"), adapter)
    wanted = ids(samples(Model(wrapped, "layout", 2), prompts()))
    assert ids(samples(Model(wrapped.merge_and_unload(), "layout", 2), prompts())) == wanted
