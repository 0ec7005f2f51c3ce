"""From a name to a model: what is refused and why, dropout, and the way rows reach the model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, ByT5Tokenizer, MambaConfig, T5Config, ViTConfig

from tests.models import folders
from tunesmith.config.methods import SftConfig
from tunesmith.config.run import ModelConfig
from tunesmith.errors import ModelError
from tunesmith.models.load import load_model
from tunesmith.models.tune import prepare


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return folders.write_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def copy(base, tmp_path):
    return shutil.copytree(base, tmp_path / "copy")


def load(folder, **settings):
    return load_model(ModelConfig(base=str(folder), **{"dtype": "float32", **settings}))


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}}, "needs its own Python code"),
        (T5Config(d_model=16, num_layers=1).to_dict(), r"\(t5\) is an encoder-decoder model"),
        ({"model_type": "no-such-architecture"}, "architecture"),
        ({**ViTConfig().to_dict(), "architectures": ["ViTModel"]}, "(?s)Unrecognized.*of this kind"),
        ({"num_hidden_layers": 3}, r"lack 9 of the model's tensors, such as model\.layers\.2\."),
        ({"vocab_size": 400}, "cannot be loaded"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_the_reason(copy, changes, message):
    edit(copy, **changes)
    with pytest.raises(ModelError, match=message):
        load(copy)


def test_code_beside_the_weights_is_never_run(copy, tmp_path):
    (copy / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    edit(copy, auto_map={"AutoConfig": "modeling.Evil", "AutoModelForCausalLM": "modeling.Evil"})
    with pytest.raises(ModelError, match="auto_map"):
        load(copy)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_not_read(copy, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (copy / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"(?s)cannot be loaded.*convert other formats"):
        load(copy)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: b"hello", lambda data: b""])
def test_a_damaged_weight_file_is_named(copy, damage):
    file = copy / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=r"the weights in .*copy cannot be loaded"):
        load(copy)


def test_a_slow_tokenizer_is_refused(copy):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    ByT5Tokenizer().save_pretrained(copy)
    with pytest.raises(ModelError, match="no fast version"):
        load(copy)


def test_a_folder_without_a_tokenizer_is_refused(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer that loads"):
        load(copy)


def test_a_folder_without_a_model_and_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "mistral").mkdir()
    with pytest.raises(ModelError, match="holds no model"):
        load(tmp_path / "mistral")
    with pytest.raises(ModelError, match="did you mean 'mistral'"):
        load(tmp_path / "mistrall")


def test_dropout_is_set_where_there_is_one(tmp_path):
    loaded = load(folders.write_base(tmp_path / "gpt2", "gpt2"), dropout=0.3)
    config = loaded.model.module.config
    assert (config.attn_pdrop, config.resid_pdrop, config.embd_pdrop) == (0.3, 0.3, 0.3)
    layers = [m for m in loaded.model.module.modules() if isinstance(m, torch.nn.Dropout)]
    assert layers
    assert all(m.p == 0.3 for m in layers)
    assert "dropout 0.3 on attn_pdrop, resid_pdrop, embd_pdrop" in loaded.notes


def test_dropout_is_refused_where_there_is_none(copy):
    MambaConfig(hidden_size=32, num_hidden_layers=1).save_pretrained(copy)
    with pytest.raises(ModelError, match=r"(?s)model\.dropout=0\.1, but mamba has no dropout.*leave model"):
        load(copy, dropout=0.1)


def test_dtype_auto_is_the_files_own(tmp_path):
    base = folders.write_base(tmp_path / "base", dtype=torch.bfloat16)
    assert load(base, dtype="auto").model.module.dtype == torch.bfloat16
    assert load(base, dtype="float32").model.module.dtype == torch.float32


def test_the_layout_is_chosen_where_the_gate_accepts_it(base):
    loaded = load(base)
    assert loaded.model.path == "layout"
    assert loaded.model.module.config._attn_implementation == "tunesmith"
    assert any(note.startswith("flat layout: llama") for note in loaded.notes)
    asked = load(base, path="padded")
    assert asked.model.path == "padded"
    assert asked.model.module.config._attn_implementation == "sdpa"
    assert "padded rows: set by you" in asked.notes


@pytest.fixture(scope="module")
def bloom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "bloom"
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=folders.VOCAB, hidden_size=32, n_layer=2, n_head=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    folders.tokenizer().save_pretrained(folder)
    return folder


def test_a_refused_family_cannot_be_forced_into_the_layout(bloom):
    with pytest.raises(
        ModelError, match=r"(?s)the layout does not hold for bloom.*model\.path=auto or padded"
    ):
        load(bloom, path="layout")


def test_a_refused_family_falls_back_to_padded_rows_says_so_and_trains(bloom):
    loaded = load(bloom)
    assert loaded.model.path == "padded"
    assert any("padded rows, which cost their padding: the gate refused bloom" in n for n in loaded.notes)
    prepare(loaded, SftConfig(tuning="full"), [])
    before = loaded.model.module.transformer.h[0].mlp.dense_h_to_4h.weight.detach().clone()
    folders.one_step(loaded)
    assert not torch.equal(loaded.model.module.transformer.h[0].mlp.dense_h_to_4h.weight, before)
