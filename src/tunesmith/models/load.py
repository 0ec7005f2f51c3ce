"""From a name in a recipe to a model and tokenizer in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from tunesmith.config.run import ModelConfig
from tunesmith.core import attention, gate
from tunesmith.core.model import Model
from tunesmith.errors import ModelError
from tunesmith.models.files import Manifest, locate, read_json, weights_hash

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
DROPOUTS = (
    "attention_dropout attn_pdrop resid_pdrop embd_pdrop hidden_dropout dropout embed_dropout activation_dropout "
    "attention_probs_dropout_prob hidden_dropout_prob"
).split()


@dataclass
class Loaded:
    """A model ready to train or to answer, and where it came from.

    adapter: the folder of a PEFT adapter that the base wears, or None. notes: what a person should know.
    """

    model: Model
    tokenizer: Any
    base: str
    base_folder: Path
    base_hash: str
    adapter: Path | None
    manifest: Manifest | None
    notes: list[str]


@dataclass(frozen=True)
class Source:
    """Where weights and tokenizer lie: a base folder and perhaps an adapter on it."""

    base: str
    base_folder: Path
    adapter: Path | None
    manifest: Manifest | None

    @property
    def tokenizer_folder(self) -> Path:
        has_own = self.adapter is not None and (self.adapter / "tokenizer.json").exists()
        return self.adapter if has_own and self.adapter is not None else self.base_folder


def find(base: str, revision: str | None = None) -> Source:
    """Resolve a name; an adapter's base must be the one it was trained on."""
    folder = locate(base, revision)
    manifest = Manifest.read(folder)
    if not (folder / "adapter_config.json").exists():
        return Source(base, folder, None, manifest)
    name = manifest.base if manifest else read_json(folder / "adapter_config.json")["base_model_name_or_path"]
    base_folder = locate(name)
    if manifest and manifest.base_hash != weights_hash(base_folder):
        raise ModelError(
            f"the adapter {folder} does not fit the weights in {base_folder}",
            f"the base it was trained on (hash {manifest.base_hash[:16]}…)",
            f"put the original '{name}' back",
        )
    return Source(name, base_folder, folder, manifest)


def load_tokenizer(source: Source) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.tokenizer_folder, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise ModelError(
            f"{source.tokenizer_folder} holds no tokenizer that loads: {_first_line(error)}",
            "a folder with tokenizer.json",
            "copy the model's folder again, whole",
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer of {source.base} has no fast version",
            "a folder with tokenizer.json",
            "convert it with transformers' convert_slow_tokenizer",
        )
    return tokenizer


def read_config(source: Source) -> PretrainedConfig:
    raw = read_json(source.base_folder / "config.json")
    if raw.get("auto_map"):
        raise ModelError(
            f"{source.base} needs its own Python code (auto_map)", "an architecture that transformers has"
        )
    try:
        config = AutoConfig.from_pretrained(source.base_folder, trust_remote_code=False)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"config.json of {source.base} cannot be used: {_first_line(error)}",
            "an architecture that this version of transformers has",
            "choose another model, or update transformers",
        ) from error
    if config.is_encoder_decoder:
        raise ModelError(
            f"{source.base} ({config.model_type}) is an encoder-decoder model",
            "a decoder (causal language) model",
            "choose a decoder model",
        )
    return config


def choose_path(config: PretrainedConfig, setting: str) -> tuple[Literal["layout", "padded"], str]:
    """The way rows reach the model, and why in words."""
    if setting == "padded":
        return "padded", "padded rows: set by you"
    verdict = gate.gate(config)
    if verdict.accepted:
        return "layout", f"flat layout: {config.model_type} {verdict.reason}"
    if setting == "layout":
        raise ModelError(
            f"the layout does not hold for {config.model_type}: {verdict.reason}",
            "an architecture that passes the gate",
            "set model.path=auto or padded",
        )
    return (
        "padded",
        f"padded rows, which cost their padding: the gate refused {config.model_type} ({verdict.reason})",
    )


def set_dropout(config: PretrainedConfig, value: float) -> list[str]:
    """Set every dropout that the architecture has; refuse where it has none."""
    names = [name for name in DROPOUTS if isinstance(config.to_dict().get(name), (int, float))]
    if not names:
        raise ModelError(
            f"model.dropout={value}, but {config.model_type} has no dropout",
            "an architecture with dropout",
            "leave model.dropout out; for LoRA there is method.lora.dropout",
        )
    for name in names:
        setattr(config, name, value)
    return names


def _load_weights(
    source: Source, config: PretrainedConfig, dtype: torch.dtype | str, attn_implementation: str | None
) -> Any:
    """The base model with every weight from its files: transformers would draw a missing one at random."""
    what = f"the weights in {source.base_folder}"
    try:
        module, found = AutoModelForCausalLM.from_pretrained(
            source.base_folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            attn_implementation=attn_implementation,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{what} cannot be loaded: {_first_line(error)}",
            "whole *.safetensors files of a decoder (causal language) model that fit config.json",
            "copy the folder again, whole; convert other formats (pytorch_model.bin) to safetensors first",
        ) from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(
            f"{what} lack {len(missing)} of the model's tensors, such as {missing[0]}",
            "every weight that config.json speaks of",
            "copy the folder again, whole",
        )
    return module


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def load_model(config: ModelConfig, *, train: bool = False) -> Loaded:
    """Load the base (and its adapter). `config.dtype` must be resolved, except that `auto` keeps the file's own."""
    source = find(config.base, config.revision)
    hf_config = read_config(source)
    notes: list[str] = []
    if config.dropout is not None:
        notes.append(f"dropout {config.dropout} on " + ", ".join(set_dropout(hf_config, config.dropout)))
    path, why = choose_path(hf_config, config.path)
    notes.append(why)
    attention.register()
    transformers.logging.disable_progress_bar()  # loading is short; a run has bars of its own
    dtype = "auto" if config.dtype == "auto" else DTYPES[config.dtype]
    module = _load_weights(source, hf_config, dtype, attention.NAME if path == "layout" else None)
    tokenizer = load_tokenizer(source)
    if source.adapter is not None:
        from peft import PeftModel

        if len(tokenizer) > module.get_input_embeddings().num_embeddings:
            module.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        module = PeftModel.from_pretrained(module, source.adapter, is_trainable=train)
    module.train(train)
    layers = hf_config.get_text_config().num_hidden_layers
    return Loaded(
        model=Model(module, path, layers),
        tokenizer=tokenizer,
        base=source.base,
        base_folder=source.base_folder,
        base_hash=weights_hash(source.base_folder),
        adapter=source.adapter,
        manifest=source.manifest,
        notes=notes,
    )
