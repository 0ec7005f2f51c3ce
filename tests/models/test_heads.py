"""Rows 9, 19 and 20 for models with heads, before they are saved: what is trained, which state is read, which head goes
on, what is refused, and the rates that they learn at.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from tests import fakes
from tests.models import folders
from tests.models.heads import CLASSIFY, MADE, MEAN, TAG, Case, asked, weights_of, write
from tunesmith.config.methods import SftConfig
from tunesmith.config.run import ModelConfig
from tunesmith.core.heads import PooledHead
from tunesmith.errors import ConfigError, ModelError
from tunesmith.models.heads import HeadSpec
from tunesmith.models.load import load_model
from tunesmith.models.save import save_model
from tunesmith.models.tune import lr_factors, prepare
from tunesmith.workflow.export import export

# -- before training ---------------------------------------------------------------------------------------

FRESH = [
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "modernbert",
    "llama",
    "gpt2",
    "bert-tag",
    "bert-mean",
    "llama-mean",
]


def body(loaded):
    """Weights of the backbone, and of it alone."""
    return {n: p.detach().clone() for n, p in loaded.model.head.backbone.named_parameters()}


@pytest.mark.parametrize("name", FRESH)
def test_row_9_lora_starts_at_the_base_and_then_moves_alone_with_the_head(tmp_path, name):
    case = MADE[name]
    base = write(case, tmp_path / "base")
    plain = folders.head_outputs(folders.open_head(base, case.spec))
    loaded = folders.open_head(base, case.spec, "lora")
    assert torch.equal(folders.head_outputs(loaded), plain)
    module = loaded.model.module.train()
    before = weights_of(loaded)
    folders.head_step(loaded)
    folders.head_step(loaded)
    moved = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    asked_to = {n for n, p in module.named_parameters() if p.requires_grad}
    assert moved == asked_to
    of_head = {n for n in moved if "lora_" not in n}
    assert of_head
    assert all("modules_to_save" in n or n.startswith("classifier.") for n in of_head)
    assert {n for n in before if "lora_" in n} == moved - of_head
    linear = {n.split(".lora_")[0].rsplit(".", 1)[-1] for n in moved if "lora_" in n}
    assert not linear & {"classifier", "score", "pooler", "out_proj", "pre_classifier"}


@pytest.mark.parametrize("name", FRESH)
def test_full_tuning_moves_every_weight_that_the_head_reads_through(tmp_path, name):
    case = MADE[name]
    loaded = folders.open_head(write(case, tmp_path / "base"), case.spec)
    module, before = loaded.model.module, weights_of(loaded)
    folders.head_step(loaded)
    still = {n for n, p in module.named_parameters() if torch.equal(p, before[n])}
    unread = {n for n in before if name == "bert-mean" and ".pooler." in n}
    assert still == unread
    assert {n for n, p in module.named_parameters() if not p.requires_grad} == unread


@pytest.mark.parametrize("name", FRESH)
def test_the_base_s_weights_are_all_used_and_a_new_head_depends_on_the_seed_alone(tmp_path, name):
    case = MADE[name]
    base = write(case, tmp_path / "base")
    first, second, other = (folders.open_head(base, case.spec, seed=seed) for seed in (1, 1, 2))
    stored = load_file(base / "model.safetensors")
    for parameter, weight in body(first).items():
        match = [w for n, w in stored.items() if n == parameter or n.endswith(f".{parameter}")]
        assert len(match) == 1, parameter
        assert torch.equal(match[0], weight)
    assert torch.equal(folders.head_outputs(first), folders.head_outputs(second))
    assert not torch.equal(folders.head_outputs(first), folders.head_outputs(other))
    assert any(note.startswith(("new:", "a new linear layer")) for note in first.notes)


def test_positions_of_families_that_count_from_their_padding_reach_the_model(tmp_path):
    base = folders.write_encoder(tmp_path / "base", "roberta")
    assert folders.open_head(base, CLASSIFY).model.head.offset == 2
    assert folders.open_head(base, CLASSIFY, path="padded").model.path == "padded"
    assert folders.open_head(folders.write_encoder(tmp_path / "bert"), CLASSIFY).model.head.offset == 0


# -- which pooling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "pooling"), [("", "cls"), ("old", "mean"), ("new", "mean")])
def test_an_encoder_that_was_trained_with_a_mean_is_pooled_with_it(tmp_path, said, pooling):
    base = folders.write_encoder(tmp_path / "base", mean=said)
    loaded = folders.open_head(base, CLASSIFY)
    assert loaded.head.pooling == loaded.model.head.pooling == pooling
    assert isinstance(loaded.model.module, PooledHead) == (pooling == "mean")
    asked_for = folders.open_head(base, replace(CLASSIFY, pooling="cls"))
    assert asked_for.head.pooling == "cls"


def test_a_folder_that_sentence_transformers_saved_is_read(tmp_path):
    """Written by the library itself, whatever its files look like today; its own linear layer is not a head."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    base = folders.write_encoder(tmp_path / "base")
    parts = [Transformer(str(base)), Pooling(32, "mean"), Dense(32, len(fakes.LABELS))]
    SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "sentences"))
    assert (tmp_path / "sentences" / "2_Dense" / "model.safetensors").exists()
    loaded = folders.open_head(tmp_path / "sentences", CLASSIFY)
    assert loaded.head.pooling == "mean"
    assert any("new linear layer on the mean" in note for note in loaded.notes)
    assert not torch.equal(loaded.model.module.classifier.weight, parts[2].linear.weight)
    expected = folders.open_head(base, MEAN)
    assert torch.equal(folders.head_outputs(loaded), folders.head_outputs(expected))


def test_the_first_token_of_a_causal_model_is_refused(tmp_path):
    base = folders.write_base(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"(?s)cls, but llama is a causal model.*method\.pooling=last"):
        folders.open_head(base, replace(CLASSIFY, pooling="cls"))
    assert folders.open_head(base, CLASSIFY).head.pooling == "last"


# -- another head, and what is refused ---------------------------------------------------------------------

RUNS = ("bert-full", "distilbert-full", "modernbert-full", "llama-full", "bert-mean-full")
ADAPTERS = ("bert-lora", "llama-lora", "bert-mean-lora")


@dataclass
class Saved:
    folder: Path
    case: Case
    said: torch.Tensor


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Saved]:
    home = tmp_path_factory.mktemp("heads")
    made = {}
    for name in (*RUNS, *ADAPTERS):
        stem, _, tuning = name.rpartition("-")
        case = MADE[stem]
        loaded = folders.open_head(write(case, home / name / "base"), case.spec, tuning)
        folders.head_step(loaded)
        said = folders.head_outputs(loaded, asked(case.spec))
        folder = folders.save_head(loaded, home / name / "model", "adapter" if tuning == "lora" else "full")
        made[name] = Saved(folder, case, said)
    for name in ADAPTERS:
        merged = name.replace("lora", "merged")
        export(made[name].folder, home / merged, merged=True)
        made[merged] = replace(made[name], folder=home / merged)
    return made


OTHERS = {
    "other labels": HeadSpec("classify", ("yes", "no", "?")),
    "more labels": HeadSpec("classify", ("a", "b", "c", "d", "e")),
    "another method": HeadSpec("tag", fakes.LABELS),
}


@pytest.mark.parametrize(
    "name", ["bert-full", "bert-merged", "distilbert-full", "modernbert-full", "llama-full"]
)
@pytest.mark.parametrize("other", OTHERS)
def test_a_run_with_other_outputs_gets_a_new_head_on_the_old_body(saved, name, other):
    spec = OTHERS[other]
    again, renewed = folders.reopen(saved[name].folder), folders.open_head(saved[name].folder, spec)
    old, new = body(again), body(renewed)
    shared = {n for n in old if "pooler" not in n}
    assert all(torch.equal(new[n], old[n]) for n in shared)
    outputs = folders.head_outputs(renewed)
    assert outputs.shape[-1] == len(spec.labels)
    last = {"llama": "score"}.get(saved[name].case.family, "classifier")
    own, fresh = (m.model.head.carrier.get_submodule(last).weight for m in (again, renewed))
    assert own.shape != fresh.shape or not torch.equal(own, fresh)
    assert any("other outputs" in note for note in renewed.notes)
    assert renewed.model.module.config.id2label == dict(enumerate(spec.labels))


@pytest.mark.parametrize(
    ("names", "kept", "words"),
    [
        (fakes.LABELS, True, ""),
        (("LABEL_0", "LABEL_1", "LABEL_2"), True, "no names for its outputs"),
        (("cat", "dog", "cow"), False, "other outputs"),
        (("a", "b"), False, "new: classifier"),
    ],
)
def test_the_head_of_a_classifier_from_elsewhere_is_kept_where_it_may_say_the_same(
    tmp_path, names, kept, words
):
    config = fakes.encoder_config("bert", vocab_size=folders.VOCAB, num_labels=len(names))
    config.id2label = dict(enumerate(names))
    torch.manual_seed(1)
    theirs = fakes.randomise(AutoModelForSequenceClassification.from_config(config))
    theirs.save_pretrained(tmp_path / "theirs")
    folders.tokenizer().save_pretrained(tmp_path / "theirs")
    ours = folders.open_head(tmp_path / "theirs", CLASSIFY)
    weight = ours.model.module.classifier.weight
    assert (
        weight.shape == theirs.classifier.weight.shape and torch.equal(weight, theirs.classifier.weight)
    ) == kept
    assert words in " ".join(ours.notes)
    assert ours.model.module.config.id2label == dict(enumerate(CLASSIFY.labels))


@pytest.mark.parametrize("name", ["bert-mean-full", "bert-mean-merged"])
def test_a_pooled_head_for_other_labels_is_new_and_for_the_same_is_kept(saved, name):
    folder = saved[name].folder
    own = folders.reopen(folder).model.module.classifier.weight
    kept = folders.open_head(folder, MEAN)
    assert torch.equal(kept.model.module.classifier.weight, own)
    for labels in (("yes", "no", "?"), ("a", "b")):
        renewed = folders.open_head(folder, replace(MEAN, labels=labels)).model.module.classifier.weight
        assert len(renewed) == len(labels)
        assert renewed.shape != own.shape or not torch.equal(renewed, own)


@pytest.mark.parametrize("name", ["bert-lora", "bert-mean-lora", "llama-lora"])
def test_training_goes_on_with_an_adapter_and_its_head(saved, name):
    spec = saved[name].case.spec
    loaded = folders.open_head(saved[name].folder, spec, "lora")
    assert torch.equal(folders.head_outputs(loaded, asked(spec)), saved[name].said)
    before = weights_of(loaded)
    folders.head_step(loaded)
    moved = {n for n, p in loaded.model.module.named_parameters() if not torch.equal(p, before[n])}
    assert any("lora_A" in n for n in moved)
    assert any("lora_" not in n for n in moved)
    merged = folders.open_head(saved[name].folder, spec, "full")
    assert (folders.head_outputs(merged, asked(spec)) - saved[name].said).abs().max() <= 1e-4
    assert not any("lora_" in n for n, _ in merged.model.module.named_parameters())


@pytest.mark.parametrize("name", ["bert-lora", "bert-mean-lora", "llama-lora"])
@pytest.mark.parametrize("other", OTHERS)
def test_an_adapter_s_head_is_not_changed_for_another(saved, name, other):
    with pytest.raises(ModelError, match=r"(?s)the adapter .* has a head for .*merged"):
        folders.open_head(saved[name].folder, OTHERS[other], "lora")


def test_an_adapter_of_a_language_model_gets_no_head(tmp_path):
    base = folders.write_base(tmp_path / "base")
    loaded = folders.open_for(base, "lora")
    folders.one_step(loaded)
    folder = tmp_path / "adapter"
    save_model(loaded.model.module, loaded.tokenizer, folders.manifest(loaded, "adapter"), folder)
    for tuning in ("lora", "full"):
        with pytest.raises(ModelError, match=r"(?s)the adapter .* has no head.*merged"):
            folders.open_head(folder, CLASSIFY, tuning)


def test_an_encoder_does_not_write_text(tmp_path):
    base = folders.write_encoder(tmp_path / "base")
    with pytest.raises(ModelError, match=r"(?s)\(bert\) is an encoder: it does not write text.*classify"):
        load_model(ModelConfig(base=str(base), dtype="float32"), train=True)


@pytest.mark.parametrize("name", ["bert-full", "llama-full", "llama-lora"])
def test_a_model_with_a_head_is_not_trained_to_write_text(saved, name):
    loaded = folders.reopen(saved[name].folder)
    with pytest.raises(ConfigError, match=r"(?s)method\.type=sft.*a head.*language model"):
        prepare(loaded, SftConfig(tuning="full"), [])


@pytest.mark.parametrize("spec", [CLASSIFY, MEAN, TAG], ids=["classify", "mean", "tag"])
@pytest.mark.parametrize("lost", ["encoder.layer.1.output.dense.weight", "embeddings.word_embeddings.weight"])
def test_a_missing_tensor_of_the_body_is_an_error(tmp_path, spec, lost):
    base = folders.write_encoder(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    del tensors[lost]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"lack 1 of the model's tensors, such as (bert\.)?{lost}"):
        folders.open_head(base, spec)


@pytest.mark.parametrize("spec", [CLASSIFY, MEAN], ids=["classify", "mean"])
def test_a_tensor_of_another_shape_is_no_tensor_of_the_body(tmp_path, spec):
    base = folders.write_encoder(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "vocab_size": folders.VOCAB + 7}))
    with pytest.raises(ModelError, match=r"lack 1 of the model's tensors, such as .*word_embeddings"):
        folders.open_head(base, spec)


def test_a_saved_head_without_its_linear_layer_is_an_error(saved, tmp_path):
    folder = shutil.copytree(saved["bert-mean-full"].folder, tmp_path / "copy")
    shutil.rmtree(folder / "2_Dense")
    with pytest.raises(ModelError, match="2_Dense"):
        folders.reopen(folder)


def test_dropout_is_set_in_every_part_of_an_encoder(tmp_path):
    for family in fakes.ENCODERS:
        base = folders.write_encoder(tmp_path / family, family)
        config = ModelConfig(base=str(base), dtype="float32", dropout=0.3)
        module = load_model(config, head=CLASSIFY, train=True).model.module
        assert {m.p for m in module.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}, family


# -- learning rates ----------------------------------------------------------------------------------------


def factors(tmp_path, name, tuning="full"):
    case = MADE[name]
    loaded = folders.open_head(write(case, tmp_path / "base"), case.spec, tuning)
    found = lr_factors(loaded.model, 0.5, 3.0)
    assert found.keys() == dict(loaded.model.module.named_parameters()).keys()
    return loaded, found


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("bert", "classifier."),
        ("roberta", "classifier."),
        ("distilbert", ("classifier.", "pre_classifier.")),
        ("electra", "classifier."),
        ("modernbert", ("classifier.", "head.")),
        ("bert-mean", "classifier."),
        ("llama", "score."),
        ("gpt2", "score."),
        ("llama-mean", "classifier."),
    ],
)
def test_rates_fall_from_the_top_layer_to_the_embeddings_and_the_head_has_its_own(tmp_path, name, head):
    _, found = factors(tmp_path, name)
    assert {n for n, f in found.items() if f == 3.0} == {n for n in found if n.startswith(head)}
    for name_, factor in found.items():
        if name_.startswith(head):
            continue
        if ".0." in name_:
            assert factor == 0.5, name_
        elif ".1." in name_:
            assert factor == 1.0, name_
        elif "embed" in name_ or ".wte" in name_ or ".wpe" in name_:
            assert factor == 0.25, name_
        else:  # the norm above the layers, and a pooler
            assert factor == 1.0, name_
            assert "norm" in name_ or "ln_f" in name_ or "pooler" in name_


@pytest.mark.parametrize("name", ["bert", "bert-mean", "llama", "bert-tag"])
def test_rates_of_adapters_are_those_of_their_layers(tmp_path, name):
    loaded, found = factors(tmp_path, name, "lora")
    trained = {n for n, p in loaded.model.module.named_parameters() if p.requires_grad}
    for parameter in trained:
        if "lora_" in parameter:
            assert found[parameter] == (0.5 if ".0." in parameter.split("lora_")[0] else 1.0)
        else:
            assert found[parameter] == (1.0 if "pooler" in parameter else 3.0)
    assert any(found[n] == 3.0 for n in trained)


def test_rates_of_a_language_model(tmp_path):
    loaded = folders.open_for(folders.write_base(tmp_path / "base", tied=False), "full")
    found = lr_factors(loaded.model, 0.5, 3.0)
    assert found["lm_head.weight"] == found["model.norm.weight"] == 1.0
    assert found["model.layers.0.mlp.up_proj.weight"] == 0.5
    assert found["model.embed_tokens.weight"] == 0.25
