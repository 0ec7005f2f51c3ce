"""A tuned model as a folder that stock software loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import fresh
from tests.models import fresh_process
from tests.workflow.conftest import tiny_base
from tunesmith.config.run import ModelConfig
from tunesmith.errors import ModelError, RunError
from tunesmith.models.load import load_model
from tunesmith.workflow.export import export
from tunesmith.workflow.open import load

IDS = torch.tensor([[5, 60, 700, 7, 80, 2, 90, 11]])


def logits(module: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module(input_ids=IDS).logits


def test_a_model_is_copied_as_it_is(trained, tmp_path):
    for tuning, kind in (("full", "full"), ("lora", "adapter")):
        source = trained(tuning).folder
        found = export(source, tmp_path / "deep" / tuning)
        assert found.kind == kind
        files = {p.name: p.read_bytes() for p in (source / "model").iterdir()}
        assert files == {p.name: p.read_bytes() for p in found.target.iterdir()}
        json.dumps(found.as_dict())
        assert str(found.target) in found.as_text()


def test_a_copied_adapter_loads_with_peft(base, trained, tmp_path):
    export(trained("lora").folder, tmp_path / "out")
    stock = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out")
    ours = load_model(ModelConfig(base=str(trained("lora").folder), path="padded")).model.module
    assert torch.equal(logits(stock), logits(ours))


def test_a_merged_model_computes_the_same_in_a_fresh_process_with_stock_transformers(trained, tmp_path):
    source = trained("lora").folder
    found = export(source, tmp_path / "out", merged=True)
    assert found.kind == "merged"
    adapted = load_model(ModelConfig(base=str(source), path="padded")).model.module
    asked = {"merged": {"folder": str(tmp_path / "out"), "adapter": False, "ids": IDS.tolist()}}
    there = fresh.ask(fresh_process, asked, tmp_path, "logits.safetensors")["merged"]
    torch.testing.assert_close(there, logits(adapted), atol=1e-4, rtol=0)
    said = json.loads((tmp_path / "said.json").read_text())["merged"]
    assert said["attention"] == "sdpa"
    assert said["end"] == AutoTokenizer.from_pretrained(source / "model").eos_token_id
    assert said["template"]


def test_a_merged_model_answers_as_the_adapter_does(trained, tmp_path):
    export(trained("lora").folder, tmp_path / "out", merged=True)
    asked = ["a dog is here", "number 3: a pear is here", "zinc"]
    merged, adapted = load(tmp_path / "out"), load(trained("lora").folder)
    assert merged.instruction == adapted.instruction == "Which kind?"
    assert list(merged.predict(asked, max_new_tokens=6)) == list(adapted.predict(asked, max_new_tokens=6))


def test_an_adapter_of_other_software_can_be_merged_and_opened(tmp_path):
    from peft import LoraConfig, get_peft_model

    base = tiny_base(tmp_path / "base")
    module = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    module.save_pretrained(tmp_path / "adapter")
    export(tmp_path / "adapter", tmp_path / "out", merged=True)
    assert len(list(load(tmp_path / "out").predict(["x"], max_new_tokens=2))) == 1
    assert len(list(load(tmp_path / "adapter").predict(["x"], max_new_tokens=2))) == 1


def test_a_full_model_has_nothing_to_merge(trained, tmp_path):
    with pytest.raises(ModelError, match="no adapter to merge") as caught:
        export(trained("full").folder, tmp_path / "out", merged=True)
    assert "--merged" in caught.value.fix
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("merged", [False, True])
def test_a_target_that_exists_is_left_alone(merged, trained, tmp_path):
    mine: Path = tmp_path / "mine.txt"
    mine.write_text("precious")
    with pytest.raises(RunError, match="exists"):
        export(trained("lora").folder, tmp_path, merged=merged)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_that_is_not_finished_cannot_be_exported(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: run\n")
    with pytest.raises(ModelError, match="holds no model"):
        export(tmp_path / "run", tmp_path / "out")
