"""Model folders as a user has them: a tiny random base with a byte-level tokenizer, and one real step of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests import fakes
from tunesmith.config.run import FreezeConfig, LoraConfig, ModelConfig, SftConfig, TrainConfig
from tunesmith.core.batch import Batch
from tunesmith.models.files import Manifest
from tunesmith.models.load import Loaded, load_model
from tunesmith.models.tune import prepare
from tunesmith.objectives.sft import Sft
from tunesmith.train.build import with_template
from tunesmith.train.optim import Optimizer

SPECIAL = ["<pad>", "<s>", "</s>"]
VOCAB = len(SPECIAL) + 256
IDS = torch.tensor([[5, 80, 11, 200, 33, 9, 64, 120], [7, 7, 258, 90, 41, 3, 18, 77]])


def tokenizer(eos: bool = True) -> Any:
    """Every byte is a token; <pad> is 0, </s> is 2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", **({"eos_token": "</s>"} if eos else {})
    )


def write_base(
    folder: Path,
    family: str = "llama",
    *,
    tied: bool = True,
    spare: int = 0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    eos: bool = True,
    **more: Any,
) -> Path:
    """A random model saved by stock transformers, its vocabulary `spare` rows larger than the tokenizer."""
    config = fakes.config(family, **more)
    config.vocab_size, config.tie_word_embeddings = VOCAB + spare, tied
    torch.manual_seed(seed)
    module = AutoModelForCausalLM.from_config(config)
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.15)
    module.to(dtype).save_pretrained(folder)
    tokenizer(eos).save_pretrained(folder)
    return folder


def open_for(
    folder: Path,
    tuning: str,
    *,
    dtype: str = "float32",
    lora: LoraConfig | None = None,
    freeze: FreezeConfig | None = None,
) -> Loaded:
    """Load as a run does: model, template (and rows for what it adds), trainable parameters."""
    loaded = load_model(ModelConfig(base=str(folder), dtype=dtype), train=True)
    more: dict[str, Any] = {"lora": lora or LoraConfig(rank=4)} if tuning == "lora" else {}
    if freeze is not None:
        more["freeze"] = freeze
    prepare(loaded, SftConfig(tuning=tuning, **more), with_template(loaded, "auto"))
    return loaded


def one_step(loaded: Loaded, rate: float = 1e-2) -> None:
    """One optimizer step on rows that hold the end token and every new one."""
    last = len(loaded.tokenizer) - 1
    rows = [fakes.row([5, 6, 80, 90, last], 2, 0), fakes.row([9, 8, 7, 2, last, 30], 1, 1)]
    batch = Batch.from_rows(rows)
    objective = Sft(SftConfig())
    optimizer = Optimizer(loaded.model.module, TrainConfig())
    (objective.loss(loaded.model, batch).terms["sft"] / objective.weights(batch)["sft"]).backward()
    optimizer.step(rate, optimizer.grad_norm().item())


def logits(module: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    """(B, T, V) without dropout, as the module is."""
    training = module.training
    module.eval()
    with torch.no_grad():
        out = module(input_ids=ids).logits
    module.train(training)
    return out  # type: ignore[no-any-return]


def stock(module: Any) -> Any:
    """The module under the attention that stock transformers gives its family."""
    inner = module.get_base_model() if hasattr(module, "get_base_model") else module
    inner.set_attn_implementation("sdpa" if inner._supports_sdpa else "eager")
    return module


def manifest(loaded: Loaded, kind: str, template_hash: str = "t") -> Manifest:
    return Manifest(
        kind=kind,
        base=loaded.base,
        base_hash=loaded.base_hash,
        dtype=str(loaded.model.module.dtype).removeprefix("torch."),
        template_hash=template_hash,
        template="plain",
        end_ids=[2],
        run="test",
        parent=None,
        versions={},
    )


def load_plain(folder: Path) -> Any:
    """What stock transformers loads from a folder."""
    return AutoModelForCausalLM.from_pretrained(folder)
