"""Row 10: an adapter merged in bfloat16 answers as it did before, on the embedded model and real text."""

from __future__ import annotations

import torch
from transformers import AutoTokenizer

from tunesmith.config.methods import SftConfig
from tunesmith.config.run import ModelConfig
from tunesmith.embedded import base_model_path, general_text
from tunesmith.models.load import load_model
from tunesmith.models.save import merge
from tunesmith.models.tune import prepare


def test_row_10_merged_in_bfloat16_agrees_with_the_adapter():
    """Greedy agreement at least 99 %, mean KL at most 1e-3 nats a token (the served artefact is the merged one)."""
    loaded = load_model(ModelConfig(base="tunesmith/base-8m", dtype="float32"))
    prepare(loaded, SftConfig(tuning="lora"), [])
    module = loaded.model.module.eval()
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    tokenizer = AutoTokenizer.from_pretrained(base_model_path())
    lines = general_text().read_text(encoding="utf-8").splitlines()[:24]
    ids = [torch.tensor([tokenizer(line)["input_ids"]]) for line in lines]
    with torch.no_grad():
        adapted = torch.cat([module(input_ids=i).logits[0] for i in ids])
        # Rounded to bfloat16 as it is saved; computed in float32, so that only the merge is compared.
        merged = merge(module).to(torch.bfloat16).float()
        got = torch.cat([merged(input_ids=i).logits[0] for i in ids])
    before, after = adapted.log_softmax(-1), got.log_softmax(-1)
    assert (before.exp() * (before - after)).sum(-1).mean() <= 1e-3
    assert (adapted.argmax(-1) == got.argmax(-1)).float().mean() >= 0.99
