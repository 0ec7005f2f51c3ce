"""Run by itself, without Tunesmith: open saved models with stock transformers and PEFT, and write their logits.

python fresh_process.py cases.json    name -> {"folder", "adapter", "ids"}; writes logits.safetensors beside it, and
what else the models say of themselves (attention, end token, whether there is a template) as said.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(path: Path) -> None:
    torch.set_num_threads(1)
    found, said = {}, {}
    for name, case in json.loads(path.read_text()).items():
        opener = AutoPeftModelForCausalLM if case["adapter"] else AutoModelForCausalLM
        model = opener.from_pretrained(case["folder"]).eval()
        rows = model.get_input_embeddings().weight.shape[0]
        tokenizer = AutoTokenizer.from_pretrained(case["folder"])
        assert rows >= len(tokenizer), f"{name}: a token without a row"
        with torch.no_grad():
            found[name] = model(input_ids=torch.tensor(case["ids"])).logits.contiguous()
        said[name] = {
            "attention": model.config._attn_implementation,
            "end": model.generation_config.eos_token_id,
            "template": bool(tokenizer.chat_template),
        }
    assert not any(name.startswith("tunesmith") for name in sys.modules)
    save_file(found, path.with_name("logits.safetensors"))
    path.with_name("said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
