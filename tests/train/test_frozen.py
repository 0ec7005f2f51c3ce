"""States above frozen layers that are kept: the same losses and gradients, and the layers below run once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests import fakes
from tunesmith.config.run import TrainConfig
from tunesmith.config.tuning import FreezeConfig
from tunesmith.core.batch import Batch
from tunesmith.errors import ConfigError
from tunesmith.generate.batched import nll
from tunesmith.models.fast import quicken
from tunesmith.models.heads import HeadSpec
from tunesmith.models.tune import _full
from tunesmith.train.frozen import frozen_layers, frozen_states

LAYERS = 4


def top_two(family="llama", **more):
    """A model of four layers of which the upper two are trained."""
    layers = {"gpt2": "n_layer", "distilbert": "n_layers"}.get(family, "num_hidden_layers")
    kinds = {"layer_types": ["sliding_attention", "full_attention"] * 2} if family in SLIDING else {}
    if family in fakes.FAMILIES:
        model = fakes.model(family, **{layers: LAYERS, **kinds, **more})
    else:
        model = fakes.headed(family, HeadSpec("classify", fakes.LABELS), **{layers: LAYERS, **kinds, **more})
    _full(model.module, FreezeConfig(layers=2, embeddings=True))
    return model


SLIDING = ("gemma3", "modernbert")


def rows_for(model, **more):
    return fakes.rows(8, **more) if model.head is None else fakes.text_rows(8)


def kept(model, rows, tmp_path, *, passes=2.0, notes=None, **settings):
    config = TrainConfig(micro_batch_tokens=40, **settings)

    def sink(kind, **fields):
        if notes is not None and kind == "note":
            notes.append(fields["text"])

    return frozen_states(model, config, rows, passes, tmp_path, sink)


def gradients(model, batch):
    model.module.train()
    model.module.zero_grad()
    if model.head is None:
        model.nll(batch)[0].backward()
    else:
        model.outputs(batch).square().sum().backward()
    return {n: p.grad.clone() for n, p in model.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("begin", [0, 12])
@pytest.mark.parametrize(
    "family", ["llama", "qwen3", "gemma2", "gemma3", "gpt2", "bert", "electra", "modernbert"]
)
def test_gradients_are_those_of_all_layers_in_any_batch(tmp_path, family, begin):
    """begin: tokens that all rows share, which stand once in a batch and with every row in the file."""
    model = top_two(family)
    rows = rows_for(model, begin=begin)
    batches = [Batch.from_rows([rows[i] for i in chosen]) for chosen in ([5, 0, 3], [7, 6, 1, 2])]
    assert model.head is not None or all((b.shared > 0) == (begin > 0) for b in batches)
    plain = [gradients(model, batch) for batch in batches]
    notes = []
    with kept(model, rows, tmp_path, notes=notes):
        assert model.frozen is not None, notes
        found = [gradients(model, batch) for batch in batches]
        assert model.frozen.reads == 3, "one to check, two batches"
    assert model.frozen is None
    for one, other in zip(plain, found, strict=True):
        assert one.keys() == other.keys()
        for name, gradient in one.items():
            assert torch.allclose(gradient, other[name], atol=1e-5), name


def test_the_frozen_layers_run_once_and_the_trained_ones_see_new_weights(tmp_path):
    model = top_two()
    quicken(model, model.module.config)
    rows = fakes.rows(8)
    batch = Batch.from_rows(rows)
    with kept(model, rows, tmp_path):
        before = model.nll(batch)[0].item()
        low = frozen_layers(model)[0]
        low.self_attn.q_proj.weight.data.zero_()  # what does not run cannot change anything
        assert model.nll(batch)[0].item() == before
        model.module.model.layers[3].mlp.down_proj.weight.data.zero_()
        assert model.nll(batch)[0].item() != before
    assert "forward" in low.__dict__, "the fast forward is back"


def test_rows_that_were_not_kept_run_through_all_layers(tmp_path):
    model = top_two()
    rows = fakes.rows(8)
    others = fakes.rows(4, seed=9)
    expected = nll(model, others, 100)[0]
    with kept(model, rows, tmp_path):
        reads = model.frozen.reads
        assert (nll(model, others, 100)[0] == expected).all()
        mixed = nll(model, [*others[:2], *rows[:2]], 1000)[0]
        assert mixed[:2] == pytest.approx(expected[:2], abs=1e-5)
        assert model.frozen.reads == reads
        nll(model, rows, 100)
        assert model.frozen.reads > reads


def test_what_is_kept_does_not_depend_on_the_steps(tmp_path):
    """A resumed run computes them again and must have the same bits."""
    states = []
    for _ in range(2):
        model = top_two()
        rows = fakes.rows(8)
        with kept(model, rows, tmp_path):
            if not states:
                model.nll(Batch.from_rows(rows[2:5]))
            states.append(model.frozen.of(Batch.from_rows(rows), 200))
    assert torch.equal(*states)


def test_an_adapter_on_the_upper_layers(tmp_path):
    model = fakes.model("llama", num_hidden_layers=LAYERS)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], layers_to_transform=[3])
    model.module = get_peft_model(model.module, config)
    assert len(frozen_layers(model)) == 3
    rows = fakes.rows(8)
    plain = gradients(model, Batch.from_rows(rows[:4]))
    with kept(model, rows, tmp_path):
        found = gradients(model, Batch.from_rows(rows[:4]))
    assert plain
    assert all(torch.allclose(plain[name], found[name], atol=1e-6) for name in plain)


@pytest.mark.parametrize(
    "change, settings, said",
    [
        ({}, {"neftune_alpha": 5.0}, "neftune_alpha"),
        ({}, {"unfreeze_every": 1.0}, "unfreeze_every"),
        ({"attention_dropout": 0.3}, {}, "dropout"),
        ({}, {"keep_frozen": False}, "keep_frozen=false"),
    ],
)
def test_where_it_does_not_hold_all_layers_run_and_a_note_says_why(tmp_path, change, settings, said):
    notes = []
    model = top_two(**change)
    with kept(model, fakes.rows(4), tmp_path, notes=notes, **settings):
        assert model.frozen is None
    assert len(notes) == 1
    assert said in notes[0]
    if settings.get("keep_frozen") is None:
        with (
            pytest.raises(ConfigError, match=said),
            kept(model, fakes.rows(4), tmp_path, **settings, keep_frozen=True),
        ):
            pass


def test_a_single_pass_keeps_nothing_unless_it_is_asked_to(tmp_path):
    model = top_two()
    with kept(model, fakes.rows(4), tmp_path, passes=1.0):
        assert model.frozen is None
    with kept(model, fakes.rows(4), tmp_path, passes=1.0, keep_frozen=True):
        assert model.frozen is not None


def test_padded_rows_and_unfrozen_models_run_as_ever(tmp_path):
    notes = []
    with kept(fakes.model("llama"), fakes.rows(4), tmp_path, notes=notes):
        pass
    assert notes == []
    model = top_two()
    model.path = "padded"
    with kept(model, fakes.rows(4), tmp_path, notes=notes):
        assert model.frozen is None
    assert "padded" in notes[0]


def test_without_room_on_the_disk_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("tunesmith.train.frozen.shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    notes = []
    with kept(top_two(), fakes.rows(4), tmp_path, notes=notes) as _:
        pass
    assert "the disk" in notes[0]
    assert list(tmp_path.iterdir()) == []
