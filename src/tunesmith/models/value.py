"""PPO's value head: one linear layer on the states that tokens are drawn from, trained with the model.

It is a part of the module while a run trains, so that optimizer and checkpoints have it. A saved model has it in a file
of its own beside the weights, which other software does not look for; PPO on top of that model goes on with it.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.models.load import Loaded

NAME = "value_head"
FILE = "value_head.safetensors"


def add_value(loaded: Loaded) -> str:
    """Give the model the value head that lies beside its weights, else one that says 0; returns a note."""
    module = loaded.model.module
    width = module.get_output_embeddings().weight.shape[1]
    head = nn.Linear(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    file = (loaded.adapter or loaded.base_folder) / FILE
    if file.exists():
        saved = load_file(file)
        if saved["weight"].shape != head.weight.shape:
            width_there = saved["weight"].shape[1]
            raise ModelError(f"{file} is for states of width {width_there}", f"{width}", "remove the file")
        head.load_state_dict(saved)
    module.add_module(NAME, head)
    loaded.model.value = head
    return f"a value head on {width} states" + (", as it was saved" if file.exists() else ", new")


def take_value(loaded: Loaded) -> dict[str, dict[str, torch.Tensor]]:
    """The value head as a file of tensors, which the module has no longer; none where it had none."""
    if loaded.model.value is None:
        return {}
    found = {name: tensor.detach().clone() for name, tensor in loaded.model.value.state_dict().items()}
    delattr(loaded.model.module, NAME)
    loaded.model.value = None
    return {FILE: found}
