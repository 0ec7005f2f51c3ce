"""Rows 10, 19, 20: what is saved gives the same logits in a fresh process with stock transformers and PEFT.

All models are trained and saved first, then one process opens them all: importing the libraries is what takes time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import fakes, fresh
from tests.models import folders, fresh_process
from tunesmith.config.tuning import FreezeConfig
from tunesmith.models.save import save_model
from tunesmith.workflow.export import export


@dataclass(frozen=True)
class Case:
    """One saved model. grown: its tokenizer lacks an end token, so that one is added and its row trained."""

    tuning: str
    family: str = "llama"
    tied: bool = True
    embeddings_frozen: bool = False
    grown: bool = False
    spare: int = 0
    dtype: str = "float32"
    merged: bool = False


CASES = {
    **{f"full-{family}": Case("full", family) for family in fakes.FAMILIES},
    **{f"adapter-{family}": Case("lora", family) for family in fakes.FAMILIES},
    **{f"merged-{family}": Case("lora", family, merged=True) for family in fakes.FAMILIES},
    "full-untied": Case("full", tied=False),
    "full-tied-frozen": Case("full", embeddings_frozen=True),
    "full-untied-frozen": Case("full", tied=False, embeddings_frozen=True),
    "full-gpt2-untied": Case("full", "gpt2", tied=False),
    "full-bfloat16": Case("full", dtype="bfloat16"),
    "full-grown": Case("full", grown=True),
    "full-grown-untied": Case("full", grown=True, tied=False),
    "full-grown-spare": Case("full", grown=True, spare=5),
    "adapter-untied": Case("lora", tied=False),
    "adapter-grown": Case("lora", grown=True),
    "adapter-grown-untied": Case("lora", grown=True, tied=False),
    "adapter-grown-gpt2": Case("lora", "gpt2", grown=True),
    "merged-grown": Case("lora", grown=True, merged=True),
    "merged-grown-untied": Case("lora", grown=True, tied=False, merged=True),
}


def save(case: Case, folder: Path) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """Train one step and save; (the folder, input ids, the logits in this process)."""
    base = folders.write_base(
        folder / "base",
        case.family,
        tied=case.tied,
        spare=case.spare,
        eos=not case.grown,
        dtype=getattr(torch, case.dtype),
    )
    freeze = FreezeConfig(embeddings=True) if case.embeddings_frozen else None
    loaded = folders.open_for(base, case.tuning, freeze=freeze, dtype=case.dtype)
    folders.one_step(loaded)
    ids = folders.IDS.clone()
    ids[:, -2] = len(loaded.tokenizer) - 1  # the newest token is read, and what follows it predicted
    kind = "adapter" if case.tuning == "lora" else "full"
    saved = folder / "saved"
    save_model(loaded.model.module, loaded.tokenizer, folders.manifest(loaded, kind), saved)
    expected = folders.logits(folders.stock(loaded.model.module), ids)
    if case.merged:
        export(saved, folder / "merged", merged=True)
        saved = folder / "merged"
    return saved, ids, expected


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """name -> (folder, logits here, logits in a fresh process)"""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("saved")
    here = {name: save(case, home / name) for name, case in CASES.items()}
    asked = {
        name: {
            "folder": str(folder),
            "adapter": folder.name == "saved" and "adapter" in name,
            "ids": i.tolist(),
        }
        for name, (folder, i, _) in here.items()
    }
    found = fresh.ask(fresh_process, asked, home, "logits.safetensors")
    return {name: (folder, expected, found[name]) for name, (folder, _, expected) in here.items()}


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.tuning == "full"])
def test_row_19_a_full_model_has_bit_equal_logits_in_a_fresh_process(saved, name):
    _, here, there = saved[name]
    assert torch.equal(there, here)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.tuning == "lora" and not c.merged])
def test_row_20_an_adapter_has_the_same_logits_in_a_fresh_process(saved, name):
    _, here, there = saved[name]
    assert there.shape == here.shape
    assert (there - here).abs().max() <= 1e-5


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.merged])
def test_row_10_a_merged_model_has_the_logits_of_its_adapter(saved, name):
    _, here, there = saved[name]
    assert there.shape == here.shape
    assert (there - here).abs().max() <= 1e-4


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.tuning == "full"])
def test_row_19_tied_in_the_configuration_is_tied_in_the_file(saved, name):
    folder, _, _ = saved[name]
    config = json.loads((folder / "config.json").read_text())
    heads = [key for key in load_file(folder / "model.safetensors") if key.startswith("lm_head")]
    assert config["tie_word_embeddings"] == CASES[name].tied
    assert bool(heads) == (not CASES[name].tied)


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("adapter")])
def test_row_25_an_adapter_holds_no_base_weights(saved, name):
    folder, _, _ = saved[name]
    tensors = load_file(folder / "adapter_model.safetensors")
    assert all("lora_" in key or "trainable_tokens_delta" in key for key in tensors)
    assert sum(t.numel() for t in tensors.values()) < 10_000


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 3])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_row_20_a_new_end_token_leaves_the_logits_of_old_tokens(tmp_path, tuning, tied, spare):
    base = folders.write_base(tmp_path / "base", tied=tied, spare=spare, eos=False)
    before = folders.logits(folders.load_plain(base))
    loaded = folders.open_for(base, tuning)
    after = folders.logits(folders.stock(loaded.model.module))
    assert loaded.tokenizer.eos_token == "<|end|>"
    assert loaded.model.module.get_input_embeddings().weight.shape[0] >= len(loaded.tokenizer)
    assert torch.equal(after[..., : folders.VOCAB], before[..., : folders.VOCAB])
    new = loaded.tokenizer.eos_token_id
    for layer in (loaded.model.module.get_input_embeddings(), loaded.model.module.get_output_embeddings()):
        row, old = layer.weight[new].detach(), layer.weight[:new].detach()
        assert torch.allclose(row, old.mean(0), atol=1e-6)  # not zeros, not a draw


def test_row_10_a_bfloat16_merge_is_summed_in_float32_and_rounded_once(tmp_path):
    base = folders.write_base(tmp_path / "base", dtype=torch.bfloat16)
    loaded = folders.open_for(base, "lora", dtype="bfloat16")
    folders.one_step(loaded, rate=0.1)  # an update as large as the weights, whose own rounding shows
    save_model(
        loaded.model.module, loaded.tokenizer, folders.manifest(loaded, "adapter"), tmp_path / "adapter"
    )
    export(tmp_path / "adapter", tmp_path / "merged", merged=True)
    old = load_file(base / "model.safetensors")
    new = load_file(tmp_path / "merged" / "model.safetensors")
    lora = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    changed = twice = 0
    for key, weight in new.items():
        assert weight.dtype == torch.bfloat16
        stem = "base_model.model." + key.removesuffix(".weight")
        if f"{stem}.lora_A.weight" not in lora:
            assert torch.equal(weight, old[key])
            continue
        a, b = (lora[f"{stem}.lora_{x}.weight"].float() for x in "AB")
        once = (old[key].float() + 2.0 * b @ a).bfloat16()
        assert (weight == once).float().mean() >= 0.999  # float32 sums in another order may tip a tie
        changed += int((weight != old[key]).sum())
        twice += int((weight != old[key] + (2.0 * b @ a).bfloat16()).sum())
    assert twice > changed / 50  # summing in bfloat16 would have given other weights
