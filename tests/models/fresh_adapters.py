"""Run by itself, without Tunesmith: open saved adapters with stock transformers and PEFT, and write their answers.

python fresh_adapters.py cases.json    name -> {"opener", "folder", "base", "rows"}; writes answers.safetensors
beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

BASES = {
    "decoder": AutoModelForCausalLM,
    "classifier": AutoModelForSequenceClassification,
    "pooled": AutoModel,
}


def answers(case: dict) -> torch.Tensor:
    """Each row by itself: the logits of all its positions but the last, or of its classes."""
    base = BASES[case["opener"]].from_pretrained(case["base"])
    model = PeftModel.from_pretrained(base, case["folder"]).eval()
    config = PeftConfig.from_pretrained(case["folder"])
    found = []
    for row in case["rows"]:
        ids = torch.tensor([row])
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        virtual = config.num_virtual_tokens if config.peft_type == "PROMPT_TUNING" else 0
        if case["opener"] == "decoder":
            found.append(out.logits[0, virtual:-1])
        elif case["opener"] == "classifier":
            found.append(out.logits)
        else:
            dense = load_file(Path(case["folder"]) / "2_Dense" / "model.safetensors")
            state = out.last_hidden_state[:, virtual]
            found.append(state @ dense["linear.weight"].T + dense["linear.bias"])
    return torch.cat(found)


def main(path: Path) -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        found = {name: answers(case).contiguous() for name, case in json.loads(path.read_text()).items()}
    assert not any(name.startswith("tunesmith") for name in sys.modules)
    save_file(found, path.with_name("answers.safetensors"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
