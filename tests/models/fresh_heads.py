"""Run by itself, without Tunesmith: open saved models with heads by stock software, and write what they say.

python fresh_heads.py cases.json    {"cases": name -> {"folder", "base", "kind", "adapter", "labels"}, "texts"}; writes
outputs.safetensors (name, or name/sentence_transformers) and labels.json beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftModelForSequenceClassification, PeftModelForTokenClassification
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

OPENERS = {
    "sequence": (AutoModelForSequenceClassification, PeftModelForSequenceClassification),
    "token": (AutoModelForTokenClassification, PeftModelForTokenClassification),
}


def opened(case: dict[str, Any]) -> Any:
    plain, peft = OPENERS[case["kind"]]
    if not case["adapter"]:
        return plain.from_pretrained(case["folder"]).eval()
    base = plain.from_pretrained(case["base"], num_labels=case["labels"])
    return peft.from_pretrained(base, case["folder"]).eval()


def pooled(case: dict[str, Any], rows: list[list[int]]) -> torch.Tensor:
    """What the files of sentence-transformers mean, read without it: states, a pooling, a linear layer."""
    folder = Path(case["folder"])
    parts = [part["path"] for part in json.loads((folder / "modules.json").read_text())]
    assert parts == ["", "1_Pooling", "2_Dense"]
    model = AutoModel.from_pretrained(case["base"] if case["adapter"] else folder)
    if case["adapter"]:
        model = PeftModel.from_pretrained(model, folder)
    mode = json.loads((folder / parts[1] / "config.json").read_text())
    dense = json.loads((folder / parts[2] / "config.json").read_text())
    assert dense["activation_function"] == "torch.nn.modules.linear.Identity"
    layer = torch.nn.Linear(dense["in_features"], dense["out_features"])
    weights = load_file(folder / parts[2] / "model.safetensors")
    layer.load_state_dict({name.removeprefix("linear."): w for name, w in weights.items()})
    found = []
    for row in rows:
        states = model.eval()(input_ids=torch.tensor([row])).last_hidden_state[0]
        read = {
            "pooling_mode_cls_token": states[0],
            "pooling_mode_mean_tokens": states.mean(0),
            "pooling_mode_lasttoken": states[-1],
        }
        (state,) = [value for name, value in read.items() if mode[name]]
        found.append(layer(state))
    return torch.stack(found)


def embeddings(case: dict[str, Any], texts: list[str]) -> torch.Tensor:
    """By sentence-transformers itself."""
    model = SentenceTransformer(case["folder"], device="cpu")
    return model.encode(texts, convert_to_tensor=True, show_progress_bar=False)


def main(path: Path) -> None:
    torch.set_num_threads(1)
    asked = json.loads(path.read_text())
    found: dict[str, torch.Tensor] = {}
    labels = {}
    for name, case in asked["cases"].items():
        rows = AutoTokenizer.from_pretrained(case["folder"])(asked["texts"])["input_ids"]
        with torch.no_grad():
            if case["kind"] == "pooled":
                found[name] = pooled(case, rows)
                found[f"{name}/sentence_transformers"] = embeddings(case, asked["texts"])
                continue
            model = opened(case)
            labels[name] = model.config.id2label
            said = [model(input_ids=torch.tensor([row])).logits for row in rows]
            found[name] = torch.cat([s[0] if case["kind"] == "token" else s for s in said])
    assert not any(name.startswith("tunesmith") for name in sys.modules)
    save_file(
        {name: t.contiguous().float() for name, t in found.items()}, path.with_name("outputs.safetensors")
    )
    path.with_name("labels.json").write_text(json.dumps(labels))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
