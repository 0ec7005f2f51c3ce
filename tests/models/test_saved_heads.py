"""Rows 10, 16, 20 and 25 for models with heads: what is saved says the same when it is loaded again, here and in a
fresh process with stock transformers, PEFT and sentence-transformers.

All models are trained and saved first, then one process opens them all: importing the libraries is what takes time.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import fresh
from tests.models import folders, fresh_heads
from tests.models.heads import MADE, asked, weights_of, write
from tunesmith.errors import ModelError
from tunesmith.workflow.export import export

TUNED = {
    **{
        f"{name}-{tuning}": replace(case, tuning=tuning)
        for name, case in MADE.items()
        for tuning in ("full", "lora")
    },
    **{
        f"{name}-merged": replace(MADE[name], tuning="lora", merged=True)
        for name in ("bert", "roberta", "modernbert", "llama", "gpt2-tag", "bert-mean", "llama-mean")
    },
}
FULL = [name for name, case in TUNED.items() if case.tuning == "full"]
ADAPTERS = [name for name, case in TUNED.items() if case.tuning == "lora" and not case.merged]
MERGED = [name for name, case in TUNED.items() if case.merged]
POOLED = [name for name, case in TUNED.items() if case.kind == "pooled"]
STOCK = [name for name, case in TUNED.items() if case.kind != "pooled"]


@dataclass
class Saved:
    folder: Path
    base: Path
    said: torch.Tensor
    weights: dict[str, torch.Tensor]
    there: torch.Tensor
    by_sentence_transformers: torch.Tensor | None
    labels: dict[str, str] | None


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Saved]:
    """name -> the folder, what the model said before it was saved, and what it says in a fresh process."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("heads")
    here: dict[str, tuple[Path, Path, torch.Tensor, dict[str, torch.Tensor]]] = {}
    bases = {name: write(case, home / "bases" / name) for name, case in MADE.items()}
    for name, case in TUNED.items():
        stem, _, _ = name.rpartition("-")
        if case.merged:
            folder, _, said, weights = here[f"{stem}-lora"]
            export(folder, home / name, merged=True)
        else:
            loaded = folders.open_head(bases[stem], case.spec, case.tuning)
            folders.head_step(loaded)
            said, weights = folders.head_outputs(loaded, asked(case.spec)), weights_of(loaded)
            folders.save_head(loaded, home / name, "adapter" if case.tuning == "lora" else "full")
        here[name] = (home / name, bases[stem], said, weights)
    cases = {
        name: {
            "folder": str(folder),
            "base": str(base),
            "kind": TUNED[name].kind,
            "adapter": name in ADAPTERS,
            "labels": len(TUNED[name].spec.labels),
        }
        for name, (folder, base, *_) in here.items()
    }
    found = fresh.ask(fresh_heads, {"cases": cases, "texts": folders.TEXTS}, home, "outputs.safetensors")
    labels = json.loads((home / "labels.json").read_text())
    return {
        name: Saved(*parts, found[name], found.get(f"{name}/sentence_transformers"), labels.get(name))
        for name, parts in here.items()
    }


@pytest.mark.parametrize("name", TUNED)
def test_row_20_stock_software_says_the_same_in_a_fresh_process(saved, name):
    case = saved[name]
    assert case.there.shape == case.said.shape
    assert case.said.std() > 1e-3
    assert (case.there - case.said).abs().max() <= (1e-4 if TUNED[name].merged else 1e-5)


@pytest.mark.parametrize("name", POOLED)
def test_sentence_transformers_reads_a_pooled_head_as_the_embedding_of_a_text(saved, name):
    case = saved[name]
    assert (case.by_sentence_transformers - case.said).abs().max() <= (1e-4 if TUNED[name].merged else 1e-5)


@pytest.mark.parametrize("name", [n for n in STOCK if n not in ADAPTERS])
def test_stock_transformers_knows_what_the_outputs_are_called(saved, name):
    spec = TUNED[name].spec
    assert saved[name].labels == {str(i): label for i, label in enumerate(spec.labels)}
    config = json.loads((saved[name].folder / "config.json").read_text())
    kinds = {"regress": "regression", "tag": None, "classify": "single_label_classification"}
    expected = "multi_label_classification" if spec.multi_label else kinds[spec.method]
    assert config.get("problem_type") == expected
    if TUNED[name].family.startswith("modernbert"):
        assert config["classifier_pooling"] == ("mean" if TUNED[name].family == "modernbert-mean" else "cls")


@pytest.mark.parametrize("name", TUNED)
def test_row_16_what_is_loaded_again_has_every_bit_and_says_the_same(saved, name):
    again = folders.reopen(saved[name].folder)
    said = folders.head_outputs(again, asked(TUNED[name].spec))
    if TUNED[name].merged:
        assert (said - saved[name].said).abs().max() <= 1e-4
    else:
        weights = weights_of(again)
        assert weights.keys() == saved[name].weights.keys()
        used = {
            n for n in weights if "original_module" not in n
        }  # which PEFT's copy of a head takes the place of
        assert all(torch.equal(saved[name].weights[n], weights[n]) for n in used)
        # The product with one row of weights rounds by where they lie in memory.
        exact = len(TUNED[name].spec.labels) > 1
        assert (said - saved[name].said).abs().max() <= (0.0 if exact else 1e-6)
    assert again.head == replace(TUNED[name].spec, pooling=again.model.head.pooling)
    assert not any(note.startswith("new") for note in again.notes)


@pytest.mark.parametrize("name", ADAPTERS)
def test_row_25_an_adapter_holds_its_head_and_no_other_weight_of_the_base(saved, name):
    tensors = load_file(saved[name].folder / "adapter_model.safetensors")
    beside = {n.rsplit(".", 1)[0].rsplit(".", 1)[-1] for n in tensors if "lora_" not in n}
    heads = {
        "bert": {"classifier", "dense"},  # of the pooler
        "roberta": {"dense", "out_proj"},
        "distilbert": {"pre_classifier", "classifier"},
        "electra": {"dense", "out_proj"},
        "modernbert": {"dense", "norm", "classifier"},
        "modernbert-mean": {"dense", "norm", "classifier"},
        "llama": {"score"},
        "gpt2": {"score"},
    }[TUNED[name].family]
    if TUNED[name].kind == "token":
        heads = {"modernbert": heads, "llama": {"score"}}.get(TUNED[name].family, {"classifier"})
    assert beside == (set() if TUNED[name].kind == "pooled" else heads)
    assert any("lora_" in n for n in tensors)
    manifest = json.loads((saved[name].folder / "tunesmith.json").read_text())
    assert manifest["kind"] == "adapter"
    assert manifest["base_hash"] == folders.reopen(saved[name].folder).base_hash


@pytest.mark.parametrize("name", POOLED)
def test_row_25_the_manifest_covers_the_weights_of_a_pooled_head(saved, tmp_path, name):
    folder = shutil.copytree(saved[name].folder, tmp_path / "copy")
    path = folder / "2_Dense" / "model.safetensors"
    save_file({n: w + 1 for n, w in load_file(path).items()}, path)
    with pytest.raises(ModelError, match="differs from its manifest"):
        folders.reopen(folder)


@pytest.mark.parametrize("name", ["bert-mean-full", "roberta-mean-lora", "llama-mean-full"])
def test_sentence_transformers_is_told_of_as_many_tokens_as_the_model_has_positions(saved, name):
    """RoBERTa's first two are never used."""
    said = json.loads((saved[name].folder / "sentence_bert_config.json").read_text())
    assert said["max_seq_length"] == (128 if name.startswith("llama") else 256)


@pytest.mark.parametrize("name", ["bert", "bert-mean"])
def test_an_adapter_on_a_model_of_the_hub_is_saved_without_asking_there(tmp_path, name):
    """PEFT would look there for the base's vocabulary, and warn where it cannot."""
    loaded = folders.open_head(write(MADE[name], tmp_path / "base"), MADE[name].spec, "lora")
    module = loaded.model.module
    worn = module.backbone if name == "bert-mean" else module
    worn.peft_config["default"].base_model_name_or_path = "somebody/not-on-this-machine"
    folders.save_head(loaded, tmp_path / "adapter", "adapter")
    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == "somebody/not-on-this-machine"
