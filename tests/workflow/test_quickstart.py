"""What the quickstart tells its reader to type next is taken as it stands."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from torch import nn

from tests.config.test_defaults import FACTS
from tunesmith.config.defaults import resolve
from tunesmith.config.load import load_run
from tunesmith.train.optim import Optimizer
from tunesmith.workflow.quickstart import NEXT, recipe


def test_an_adapter_in_place_of_all_weights_where_bfloat16_is_fast(tmp_path: Path) -> None:
    """The run's own file says everything that was chosen for full tuning."""
    facts = replace(FACTS, has_bf16=True)
    first = resolve(recipe(tmp_path, 0), facts)[0]
    assert first.train.optimizer_state == "bfloat16"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(first.model_dump(mode="json")))
    said = NEXT.format(folder=tmp_path).partition("an adapter instead")[2]
    tool, verb, file, *overrides = shlex.split(said.replace("\\\n", " "))
    assert (tool, verb) == ("tunesmith", "train")
    run = resolve(load_run(Path(file), overrides), facts)[0]
    assert (run.name, run.method.tuning, run.train.learning_rate) == ("lora", "lora", 2e-3)
    adapter = nn.Linear(4, 4, dtype=torch.float32)
    assert not Optimizer(adapter, run.train).lean
