"""A whole run with an adapter other than LoRA: trained, proved by generation, saved as one, opened again."""

from __future__ import annotations

import json

import pytest

import tunesmith
from tests.workflow.conftest import settings
from tunesmith.config.run import Run
from tunesmith.models.files import Manifest
from tunesmith.workflow.open import load

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize(
    ("tuning", "method", "peft"),
    [
        ("ia3", {}, "IA3"),
        ("prompt", {}, "PROMPT_TUNING"),
        ("prefix", {}, "PREFIX_TUNING"),
        ("prompt", {"type": "classify"}, "PROMPT_TUNING"),
        ("lora", {"lora": {"init": "pissa", "rank": 4}}, "LORA"),
    ],
)
def test_a_run_with_an_adapter_is_proved_and_opens_again(tuning, method, peft, base, labels, tmp_path):
    data = {"train": [str(labels)]}
    tree = settings(base, tmp_path, data, method={"tuning": tuning, **method}, train={"learning_rate": None})
    result = tunesmith.train(Run.model_validate(tree))
    model = result.folder / "model"
    assert Manifest.read(model).kind == "adapter"
    assert json.loads((model / "adapter_config.json").read_text())["peft_type"] == peft
    assert result.report.model.kind == tuning
    assert result.report.model.trainable < result.report.model.parameters / 50
    tuned = next(s for s in result.report.systems if s.name == "tuned")
    assert {"accuracy"} <= tuned.metrics.keys()
    assert "library_name: peft" in (model / "README.md").read_text()

    opened = load(result.folder)
    virtual = 20 if tuning in ("prompt", "prefix") else 0
    assert opened.loaded.model.virtual_tokens == virtual
    assert opened.context == opened.loaded.model.module.config.max_position_embeddings - virtual


def test_learned_tokens_leave_room_for_rows(base, labels, tmp_path):
    tree = settings(
        base, tmp_path, {"train": [str(labels)]}, method={"tuning": "prompt", "prompt": {"tokens": 192}}
    )
    with pytest.raises(
        tunesmith.errors.ConfigError, match="192 learned tokens before each row, and the model's context"
    ):
        tunesmith.train(Run.model_validate(tree))
