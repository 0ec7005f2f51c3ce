"""Rows 1, 6, 15 and 21 for models with heads: what a head says of a row depends on that row alone, however it reaches
the model, and every split of a step gives the same gradient.

The reference is stock transformers (and PEFT), one row a call; pooled heads are written out.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AlbertConfig, GraniteConfig, LongformerConfig

from tests import fakes
from tunesmith.config.methods import ClassifyConfig, RegressConfig, TagConfig
from tunesmith.core import plain
from tunesmith.core.batch import Batch
from tunesmith.core.gate import shrink
from tunesmith.core.heads import PooledHead, targets
from tunesmith.models.heads import HeadSpec, build, head_modules
from tunesmith.objectives.classify import Classify
from tunesmith.objectives.regress import Regress
from tunesmith.objectives.tag import Tag

DECODERS = ("llama", "gpt2")
FAMILIES = (*fakes.ENCODERS, *DECODERS)
CLASSIFY = HeadSpec("classify", fakes.LABELS)
TAG = HeadSpec("tag", fakes.LABELS)
# What each family's own classification head reads, and what a linear layer of ours reads beside it.
STOCK = {
    **dict.fromkeys(fakes.ENCODERS, "cls"),
    **dict.fromkeys(DECODERS, "last"),
    "modernbert-mean": "mean",
}
POOLINGS = {
    **dict.fromkeys(fakes.ENCODERS, ("cls", "mean", "last")),
    **dict.fromkeys(DECODERS, ("mean", "last")),
}
HEADS = [
    *((family, replace(CLASSIFY, pooling=pooling)) for family in FAMILIES for pooling in POOLINGS[family]),
    ("modernbert-mean", CLASSIFY),
    *((family, TAG) for family in FAMILIES),
]
NAMES = [f"{family}-{spec.method}-{spec.pooling}" for family, spec in HEADS]
TOLERANCE = 1e-5


def kind_of(spec):
    return "tag" if spec.method == "tag" else "classify"


def num_said(spec, rows):
    """Outputs of each row."""
    return [int((row.target != -100).sum()) if spec.method == "tag" else 1 for row in rows]


def outputs(model, rows):
    with torch.no_grad():
        return model.outputs(Batch.from_rows(rows))


def said_alone(model, row, module=None):
    """(1, C), or (M, C) for the tokens with a tag: one stock call on the row."""
    head = model.head
    ids = torch.from_numpy(row.segments[0].ids)[None]
    types = {}
    if row.second is not None:
        types["token_type_ids"] = (torch.arange(ids.shape[1]) >= row.second).long()[None]
    if isinstance(head.carrier, PooledHead):
        states = head.backbone(input_ids=ids, **types).last_hidden_state[0]
        pooled = {"cls": states[0], "mean": states.sum(0) / len(states), "last": states[-1]}[head.pooling]
        layer = head.carrier.classifier
        return functional.linear(pooled, layer.weight, layer.bias)[None]
    logits = (module or head.carrier)(input_ids=ids, **types).logits
    return logits[0, torch.from_numpy(row.target) != -100] if head.kind == "token" else logits


def reference(model, rows):
    """Every row alone, under stock attention, in which the model is left."""
    model.head.backbone.set_attn_implementation("sdpa")
    with torch.no_grad():
        return torch.cat([said_alone(model, row) for row in rows])


@pytest.mark.parametrize(("family", "spec"), HEADS, ids=NAMES)
def test_both_paths_say_what_stock_transformers_says_of_each_row_alone(family, spec):
    """Some rows are longer than ModernBERT's window, and all of the second kind begin alike."""
    for rows in (fakes.text_rows(9, kind_of(spec)), fakes.text_rows(6, kind_of(spec), begin=7)):
        model = fakes.headed(family, spec)
        layout = outputs(model, rows)
        padded = outputs(fakes.headed(family, spec, path="padded"), rows)
        expected = reference(model, rows)
        assert expected.std() > 0.05
        assert layout.shape == expected.shape
        assert (layout - expected).abs().max() <= TOLERANCE
        assert (padded - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("family", STOCK)
def test_the_family_s_own_head_reads_what_it_always_reads_and_ours_the_rest(family):
    for pooling in POOLINGS.get(family, ("cls", "mean")):
        made = fakes.headed(family, replace(CLASSIFY, pooling=pooling)).head
        assert isinstance(made.carrier, PooledHead) == (pooling != STOCK[family])
        assert made.pooling == pooling
    assert fakes.headed(family).head.pooling == STOCK[family]


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (AlbertConfig(embedding_size=24), "cls"),  # its pooler is a bare linear layer, activated elsewhere
        (LongformerConfig(attention_window=[4, 4]), "cls"),  # its head gives the first token global attention
        (GraniteConfig(), "last"),  # has no classification head
    ],
    ids=["ALBERT", "Longformer", "Granite"],
)
def test_a_head_that_reads_more_than_one_state_is_not_taken_apart(config, pooling):
    """Ours is put in its place."""

    def load(kind):
        return kind.from_config(shrink(config)), set()

    torch.manual_seed(0)
    module, head, notes = build(Path("nowhere"), shrink(config), CLASSIFY, load, None, renew=False)
    assert isinstance(module, PooledHead)
    assert head.pooling == pooling
    assert notes == [f"a new linear layer on the {pooling} of the states: 3 outputs"]


@pytest.mark.parametrize("path", ["layout", "padded"])
@pytest.mark.parametrize("family", DECODERS)
def test_a_reward_is_what_stock_transformers_says_of_prompt_and_completion_alone(family, path):
    rows = fakes.judged_rows(5)
    model = fakes.headed(family, HeadSpec("reward", ("reward",)), path=path)
    said = outputs(model, rows)
    model.head.backbone.set_attn_implementation("sdpa")
    paths = [[*row.segments[0].ids, *leaf.ids] for row in rows for leaf in row.segments[1:]]
    with torch.no_grad():
        alone = torch.cat([model.head.carrier(input_ids=torch.tensor([ids])).logits for ids in paths])
    assert alone.std() > 0.05
    assert said.shape == alone.shape
    assert (said - alone).abs().max() <= TOLERANCE


def test_rows_longer_than_the_written_out_attention_are_right_too():
    lengths = (plain.SHORT + 30, 3, plain.SHORT + 9, 40)
    rng = np.random.default_rng(0)
    rows = [fakes.text_row(rng.integers(3, fakes.VOCAB, n)) for n in lengths]
    for family in ("bert", "roberta", "modernbert", "llama"):
        more = {"max_position_embeddings": 256} if family == "llama" else {}
        model = fakes.headed(family, **more)
        said = outputs(model, rows)
        assert (said - reference(model, rows)).abs().max() <= TOLERANCE


@pytest.mark.parametrize("path", ["layout", "padded"])
@pytest.mark.parametrize(("family", "spec"), HEADS, ids=NAMES)
def test_row_15_what_a_head_says_does_not_depend_on_batch_mates_or_padding(family, spec, path):
    model = fakes.headed(family, spec, path=path)
    row, *others = fakes.text_rows(7, kind_of(spec), seed=3, low=4)
    long = [fakes.text_rows(1, kind_of(spec), low=90, high=91)[0]]  # the row lies in much padding
    alone = outputs(model, [row])
    for mates in (others, long, others[:1]):
        assert torch.allclose(outputs(model, [row, *mates])[: len(alone)], alone, rtol=0, atol=TOLERANCE)
        assert torch.allclose(outputs(model, [*mates, row])[-len(alone) :], alone, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("path", ["layout", "padded"])
@pytest.mark.parametrize("family", DECODERS)
def test_row_15_a_last_token_that_is_also_the_padding_is_read(family, path):
    """Stock heads look for the last token that is not padding; where padding is the end token they miss it."""
    model = fakes.headed(family, path=path)
    model.head.carrier.config.pad_token_id = model.head.carrier.config.eos_token_id
    rows = [fakes.text_row([5, 9, 2, 7, 2]), fakes.text_row([8, 2]), fakes.text_row([5, 9, 2, 7])]
    said = outputs(model, rows)
    model.head.carrier.set_attn_implementation("sdpa")
    with torch.no_grad():
        for row, logits in zip(rows, said, strict=True):
            states = model.head.backbone(torch.from_numpy(row.segments[0].ids)[None]).last_hidden_state
            assert (model.head.carrier.score(states[0, -1]) - logits).abs().max() <= TOLERANCE
    assert (said[0] - said[2]).abs().max() > 0.05


@pytest.mark.parametrize(("family", "spec"), HEADS, ids=NAMES)
def test_row_6_changing_one_row_leaves_the_others_bit_equal(family, spec):
    model = fakes.headed(family, spec)
    rows = fakes.text_rows(6, kind_of(spec), low=4)
    before = outputs(model, rows)
    ids = (rows[2].segments[0].ids + 1) % 90 + 3
    after = outputs(model, [*rows[:2], fakes.text_row(ids, rows[2].target), *rows[3:]])
    changed = torch.tensor([i == 2 for i, n in enumerate(num_said(spec, rows)) for _ in range(n)])
    assert torch.equal(after[~changed], before[~changed])
    assert (after[changed] - before[changed]).abs().max() > 1e-3


@pytest.mark.parametrize("path", ["layout", "padded"])
@pytest.mark.parametrize("spec", [CLASSIFY, replace(CLASSIFY, pooling="mean")], ids=["cls", "mean"])
@pytest.mark.parametrize("family", ["bert", "electra"])
def test_the_second_text_of_a_pair_has_its_own_token_type(family, spec, path):
    model = fakes.headed(family, spec, path=path)
    pair = fakes.text_row([5, 6, 7, 8, 9, 10], second=4)
    rows = [fakes.text_row([11, 12, 13]), pair, fakes.text_row([5, 6, 7], second=1)]
    said = outputs(model, rows)
    assert (said - reference(model, rows)).abs().max() <= TOLERANCE
    untold = outputs(fakes.headed(family, spec, path=path), [replace(row, second=None) for row in rows])
    assert (untold - said)[0].abs().max() <= TOLERANCE
    assert (untold - said)[1:].abs().amax(-1).min() > 1e-2


@pytest.mark.parametrize(("family", "spec"), HEADS, ids=NAMES)
def test_features_are_the_states_that_the_head_reads(family, spec):
    model = fakes.headed(family, spec)
    rows = fakes.text_rows(5, kind_of(spec))
    batch = Batch.from_rows(rows)
    with torch.no_grad():
        features = model.features(batch)
        model.head.backbone.set_attn_implementation("sdpa")
        for row, part in zip(rows, features.split(num_said(spec, rows)), strict=True):
            states = model.head.backbone(torch.from_numpy(row.segments[0].ids)[None]).last_hidden_state[0]
            read = states[torch.from_numpy(row.target) != -100] if spec.method == "tag" else states
            if spec.method != "tag":
                pooled = {"cls": read[:1], "mean": read.mean(0, keepdim=True), "last": read[-1:]}
                read = pooled[model.head.pooling]
            assert torch.allclose(part, read, atol=TOLERANCE)


def test_targets_are_classes_tags_shares_or_numbers():
    def found(*rows):
        return targets(Batch.from_rows(rows))

    assert found(fakes.text_row([5, 6], [2]), fakes.text_row([7], [0])).tolist() == [2, 0]
    tags = [fakes.text_row([5], [1]), fakes.text_row([6, 7, 8], [-100, 2, 0]), fakes.text_row([9], [-100])]
    assert found(*tags).tolist() == [1, 2, 0]
    shares = found(fakes.text_row([5], [1.0, 0.0, 1.0]), fakes.text_row([6], [0.0, 0.0, 0.0]))
    assert shares.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert found(fakes.text_row([5], [0.5])).tolist() == [[0.5]]


# -- gradients ---------------------------------------------------------------------------------------------

SPLITS = ([8], [4, 4], [1] * 8, [3, 3, 2])
WEIGHTS = {"bad": 3.0, "so-so": 0.25}


def objective_of(task):
    if task == "classify":
        return Classify(ClassifyConfig(labels=list(fakes.LABELS), class_weights=WEIGHTS)), "classify"
    if task == "tag":
        return Tag(TagConfig()), "tag"
    return Regress(RegressConfig()), "regress"


def loss_alone(task, row, said):
    """(the row's loss, what its weight is in the mean), by the formula."""
    if task == "regress":
        return ((said[0] - torch.from_numpy(row.target)) ** 2).sum(), 3.0
    wanted = [int(t) for t in row.target if t != -100]
    weights = torch.tensor([WEIGHTS.get(fakes.LABELS[t], 1.0) if task == "classify" else 1.0 for t in wanted])
    logps = said.log_softmax(-1)
    return sum(-w * logps[i, t] for i, (w, t) in enumerate(zip(weights, wanted, strict=True))), weights.sum()


def trainable(model, tuning):
    """The model, and what stock PEFT would call (the model itself in full tuning)."""
    if tuning == "full":
        return model.module
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    pooled = isinstance(model.module, PooledHead)
    inner = model.module.backbone if pooled else model.module
    aim = r".*(query|value|q_lin|v_lin|Wqkv|Wo|q_proj|v_proj|c_attn|c_proj)"
    config = PeftLora(
        r=4,
        target_modules=aim,
        modules_to_save=None if pooled else head_modules(model.head),
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in inner.modules()),
    )
    torch.manual_seed(1)
    worn = get_peft_model(inner, config).to(torch.float64)
    for name, parameter in worn.named_parameters():
        if "lora_" in name:  # a zero B hides what reaches A
            torch.nn.init.normal_(parameter, std=0.1)
    if pooled:
        model.module.backbone = worn
    else:
        model.module = worn
    return model.module


def gradient(module):
    return {
        n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())
    }


GRADIENTS = [
    *((family, "classify", "auto") for family in FAMILIES),
    *((family, "tag", "auto") for family in FAMILIES),
    *((family, "regress", "mean") for family in ("bert", "modernbert", "llama")),
]


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize(("family", "task", "pooling"), GRADIENTS)
def test_row_1_every_split_and_both_paths_have_the_gradient_of_the_formula(family, task, pooling, tuning):
    spec = HeadSpec(task, fakes.LABELS, pooling=pooling)
    rows = fakes.text_rows(8, task, low=4, high=14)
    objective, term = objective_of(task)
    model = fakes.headed(family, spec, dtype=torch.float64)
    module = trainable(model, tuning)
    pooled = isinstance(module, PooledHead)
    inner = module.backbone if pooled else module
    inner.set_attn_implementation("sdpa")
    parts = [loss_alone(task, row, said_alone(model, row, None if pooled else module)) for row in rows]
    expected_loss = sum(p for p, _ in parts) / sum(w for _, w in parts)
    expected_loss.backward()
    expected = gradient(module)
    if tuning == "lora":
        assert expected
        assert all(
            "lora_" in name or "modules_to_save" in name or name.startswith("classifier") for name in expected
        )
        assert pooled or any("modules_to_save" in name for name in expected)
    for path in ("layout", "padded"):
        inner.set_attn_implementation("tunesmith" if path == "layout" else "sdpa")
        model.path = path
        for split in SPLITS:
            module.zero_grad()
            starts = np.cumsum([0, *split])
            batches = [Batch.from_rows(rows[a:b]) for a, b in pairwise(starts)]
            total = sum(objective.weights(b)[term] for b in batches)
            loss = 0.0
            for batch in batches:
                part = objective.loss(model, batch).terms[term] / total
                part.backward()
                loss += part.item()
            assert loss == pytest.approx(expected_loss.item(), rel=1e-5)
            got = gradient(module)
            assert got.keys() == expected.keys()
            for name, value in expected.items():
                assert (got[name] - value).norm() <= 1e-5 * value.norm() + 1e-12, name
