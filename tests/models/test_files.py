"""Row 25: the manifest lists what a model is, and loading refuses what does not fit it."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models import folders
from tunesmith.config.run import ModelConfig
from tunesmith.data.render import Renderer
from tunesmith.data.template import choose_template
from tunesmith.errors import ModelError, RunError
from tunesmith.models.files import MANIFEST, Manifest, locate, weights_hash
from tunesmith.models.load import find, load_model
from tunesmith.models.save import merge, save_model
from tunesmith.workflow import open as opening
from tunesmith.workflow.export import export


def save(folder, tuning):
    """folder/base and folder/model, trained one step from it."""
    base = folders.write_base(folder / "base")
    loaded = folders.open_for(base, tuning)
    folders.one_step(loaded)
    template_hash = Renderer(loaded.tokenizer, choose_template(folders.tokenizer())).template_hash
    kind = "adapter" if tuning == "lora" else "full"
    manifest = folders.manifest(loaded, kind, template_hash)
    save_model(loaded.model.module, loaded.tokenizer, manifest, folder / "model")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return {t: save(tmp_path_factory.mktemp(t), t) for t in ("lora", "full")}


@pytest.fixture(params=["lora", "full"])
def home(request, made, tmp_path):
    """A copy, on which the model's base is found again."""
    shutil.copytree(made[request.param], tmp_path / "home")
    _point_to(tmp_path / "home" / "model", tmp_path / "home" / "base")
    return tmp_path / "home"


@pytest.fixture
def adapter(made, tmp_path):
    shutil.copytree(made["lora"], tmp_path / "home")
    _point_to(tmp_path / "home" / "model", tmp_path / "home" / "base")
    return tmp_path / "home"


def _point_to(model, base):
    path = model / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "base": str(base)}))


def test_the_manifest_lists_kind_base_hash_dtype_and_every_weight_file(home):
    manifest = json.loads((home / "model" / MANIFEST).read_text())
    is_adapter = (home / "model" / "adapter_config.json").exists()
    weights = (home / "base" / "model.safetensors").read_bytes()
    expected = hashlib.sha256(hashlib.sha256(weights).hexdigest().encode()).hexdigest()
    assert manifest["kind"] == ("adapter" if is_adapter else "full")
    assert manifest["base_hash"] == expected
    assert manifest["dtype"] == "float32"
    assert manifest["files"] == {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (home / "model").glob("*.safetensors")
    }
    assert len(manifest["files"]) == 1


def test_what_was_saved_is_opened(home):
    opened = opening.load(home / "model", threads=1)
    assert list(opened.predict(["hello"], max_new_tokens=3))


def test_an_adapter_refuses_another_base(adapter):
    shutil.rmtree(adapter / "base")
    folders.write_base(adapter / "base", seed=1)
    with pytest.raises(ModelError, match=r"(?s)does not fit the weights in .*put the original"):
        find(str(adapter / "model"))


def test_an_adapter_refuses_its_base_with_one_number_changed(adapter):
    path = adapter / "base" / "model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] += 1e-3
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelError, match="does not fit the weights"):
        load_model(ModelConfig(base=str(adapter / "model")))


def test_a_changed_weight_file_is_refused(home):
    (file,) = (home / "model").glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match=rf"{file.name} differs from its manifest"):
        load_model(ModelConfig(base=str(home / "model")))
    file.unlink()
    with pytest.raises(ModelError, match=rf"{file.name} differs from its manifest"):
        find(str(home / "model"))


def test_a_changed_template_is_refused(home):
    (home / "model" / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message['content'] }}</s>{% endfor %}"
    )
    with pytest.raises(ModelError, match="is not the one it was trained with"):
        opening.load(home / "model", threads=1)


@pytest.mark.parametrize("text", ["{", '{"kind": "full"}', "[]", '{"kind": "full", "more": 1}'])
def test_a_damaged_manifest_is_named(home, text):
    (home / "model" / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match=r"tunesmith\.json cannot be read"):
        find(str(home / "model"))


def test_a_model_of_other_software_has_no_manifest(home):
    assert Manifest.read(home / "base") is None
    assert find(str(home / "base")).manifest is None


def test_saving_over_a_folder_replaces_it_whole(home):
    loaded = folders.open_for(home / "base", "full")
    (home / "model" / "leftover.txt").write_text("old")
    save_model(loaded.model.module, loaded.tokenizer, folders.manifest(loaded, "full"), home / "model")
    assert not (home / "model" / "leftover.txt").exists()
    assert not list(home.glob(".*"))
    find(str(home / "model"))


def test_a_failed_save_leaves_the_folder_as_it_was(home, monkeypatch):
    before = weights_hash(home / "model")
    loaded = folders.open_for(home / "base", "full")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loaded.tokenizer, "save_pretrained", fail)
    with pytest.raises(OSError, match="No space"):
        save_model(loaded.model.module, loaded.tokenizer, folders.manifest(loaded, "full"), home / "model")
    assert weights_hash(home / "model") == before


def test_a_saved_model_asks_for_no_attention_that_stock_transformers_lacks(home):
    for path in (home / "model").glob("*.json"):
        assert "tunesmith" not in path.read_text() or path.name in (MANIFEST, "adapter_config.json")


def test_every_end_token_is_in_the_generation_settings(tmp_path):
    loaded = folders.open_for(folders.write_base(tmp_path / "base"), "full")
    manifest = folders.manifest(loaded, "full")
    manifest.end_ids = [7, 2]
    save_model(loaded.model.module, loaded.tokenizer, manifest, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [7, 2]


def test_a_run_folder_leads_to_its_model(home):
    assert locate(str(home)) == home / "model"


def test_only_an_adapter_is_merged_and_nothing_is_written_over(home):
    if (home / "model" / "adapter_config.json").exists():
        with pytest.raises(RunError, match="exists"):
            export(home / "model", home / "base", merged=True)
        export(home / "model", home / "merged", merged=True)
        assert Manifest.read(home / "merged").kind == "merged"
        assert not (home / "merged" / "adapter_config.json").exists()
    else:
        with pytest.raises(ModelError, match="there is no adapter to merge"):
            export(home / "model", home / "merged", merged=True)
        with pytest.raises(ModelError, match="no adapter to merge"):
            merge(torch.nn.Linear(1, 1))
