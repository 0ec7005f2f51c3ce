"""From a name in a recipe to a model and tokenizer in memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from tunesmith.config.run import ModelConfig
from tunesmith.core import attention, gate
from tunesmith.core.device import choose, keep_freed_blocks
from tunesmith.core.heads import Head, PooledHead
from tunesmith.core.model import Model
from tunesmith.errors import ModelError
from tunesmith.models.fast import quicken
from tunesmith.models.files import Manifest, locate, read_json, weights_hash
from tunesmith.models.heads import HeadSpec, refuse_missing
from tunesmith.models.heads import build as build_head
from tunesmith.models.setup import choose_path, dropout_as_asked

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


@dataclass
class Loaded:
    """A model ready to train or to answer, and where it came from.

    adapter: the folder of a PEFT adapter that the base wears, or None. notes: what a person should know. head: what
    the model's head says; None for a language model.
    """

    model: Model
    tokenizer: Any
    base: str
    base_folder: Path
    base_hash: str
    adapter: Path | None
    manifest: Manifest | None
    notes: list[str]
    head: HeadSpec | None = None


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

    @property
    def virtual_tokens(self) -> int:
        """Learned tokens that its adapter puts before each row (prompt and prefix tuning)."""
        if self.adapter is None:
            return 0
        return int(read_json(self.adapter / "adapter_config.json").get("num_virtual_tokens") or 0)


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
    return config


def _quiet(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING


def _load_weights(
    kind: Any,
    source: Source,
    config: PretrainedConfig,
    dtype: torch.dtype | str,
    attn_implementation: str | None,
    *,
    other_sizes: bool = False,
) -> tuple[Any, set[str]]:
    """The base model as an AutoModel `kind`, and the tensors that no file had: transformers draws those at random.

    other_sizes: tensors of another shape than the model's count as missing.
    """
    reports = logging.getLogger("transformers.modeling_utils")
    reports.addFilter(_quiet)  # what is missing is looked at here, and said in a line
    try:
        module, found = kind.from_pretrained(
            source.base_folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            attn_implementation=attn_implementation,
            ignore_mismatched_sizes=other_sizes,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"the weights in {source.base_folder} cannot be loaded: {_first_line(error)}",
            "whole *.safetensors files of a model of this kind that fit config.json",
            "copy the folder again, whole; convert other formats (pytorch_model.bin) to safetensors first",
        ) from error
    finally:
        reports.removeFilter(_quiet)
    return module, {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _language_model(
    source: Source, config: PretrainedConfig, dtype: torch.dtype | str, implementation: str | None
) -> Any:
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    module, missing = _load_weights(kind, source, config, dtype, implementation)
    refuse_missing(source.base_folder, missing)
    return module


def _set_up() -> None:
    """Of the process, before the first model is loaded; once more does nothing."""
    keep_freed_blocks()
    attention.register()
    transformers.logging.disable_progress_bar()  # loading is short; a run has bars of its own


def load_model(
    config: ModelConfig,
    *,
    head: HeadSpec | None = None,
    train: bool = False,
    prompted: bool = False,
    still: bool = False,
) -> Loaded:
    """Load the base (and its adapter). `config.dtype` must be resolved, except that `auto` keeps the file's own.

    head: to train on it; None: the one that it was saved with, or none. prompted: learned tokens before rows.
    still: no dropout, unless the recipe sets it (log-probabilities are then those of evaluation).
    """
    device, source = choose(config.device), find(config.base, config.revision)
    hf_config = read_config(source)
    saved = HeadSpec.from_dict(source.manifest.head) if source.manifest and source.manifest.head else None
    spec, kept = _head_of(source, head, saved)
    _check_kind(source, hf_config, spec)
    prompted = prompted or source.virtual_tokens > 0
    path, why = choose_path(hf_config, config.path, prompted)
    notes = [why, *dropout_as_asked(config.dropout, hf_config, still)]
    _set_up()
    dtype = "auto" if config.dtype == "auto" else DTYPES[config.dtype]
    implementation = attention.NAME if path == "layout" else None
    tokenizer = load_tokenizer(source)
    read: Head | None = None
    if spec is None:
        module = _language_model(source, hf_config, dtype, implementation)
    else:
        hf_config.pad_token_id = _padding(hf_config, tokenizer)
        module, read, news = build_head(
            source.base_folder,
            hf_config,
            spec,
            lambda kind: _load_weights(kind, source, hf_config, dtype, implementation, other_sizes=True),
            (source.adapter or source.base_folder) if kept else None,
            renew=saved is not None and not kept,
            bare=prompted,
        )
        spec = replace(spec, pooling=read.pooling)
        if path == "layout" and gate.gate(hf_config).from_padding:
            read.offset = hf_config.pad_token_id + 1
        notes += news if source.adapter is None else []  # an adapter brings its head
    if source.adapter is not None:
        module = _wear(module, source.adapter, len(tokenizer), train)
    module.train(train)
    model = Model(module, path, hf_config.get_text_config().num_hidden_layers, read, _start_id(hf_config))
    notes += _as_it_runs(model, source, hf_config, device)
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        base=source.base,
        base_folder=source.base_folder,
        base_hash=weights_hash(source.base_folder),
        adapter=source.adapter,
        manifest=source.manifest,
        notes=notes,
        head=spec,
    )


def _as_it_runs(model: Model, source: Source, config: PretrainedConfig, device: torch.device) -> list[str]:
    """Tell the model what it wears, give it the fast layers that hold for it, and move it."""
    if source.adapter is not None:
        count_virtual(model)
    said = quicken(model, config, device)
    model.to(device)
    return [said] if said else []


def count_virtual(model: Model) -> None:
    """Tell a model that wears an adapter what it puts before each row."""
    worn = model.module.backbone if isinstance(model.module, PooledHead) else model.module
    config = worn.peft_config["default"]
    if not config.is_prompt_learning:
        return
    model.virtual_tokens = config.num_virtual_tokens
    model.virtual_columns = config.num_virtual_tokens if config.peft_type == "PROMPT_TUNING" else 0
    if model.head is not None:
        model.head.backbone = worn


def _start_id(config: PretrainedConfig) -> int | None:
    """What an encoder-decoder model's decoder begins with."""
    return int(config.decoder_start_token_id) if config.is_encoder_decoder else None


def _head_of(source: Source, asked: HeadSpec | None, saved: HeadSpec | None) -> tuple[HeadSpec | None, bool]:
    """What the head is to say, and whether the saved one says it. Raises ModelError for another than an adapter's."""
    if asked is None or saved is None:
        spec, kept = asked or saved, asked is None and saved is not None
    else:
        same = asked.method == saved.method
        spec = replace(asked, pooling=saved.pooling) if same and asked.pooling == "auto" else asked
        kept = same and (spec.labels, spec.pooling) == (saved.labels, saved.pooling)
    if source.adapter is not None and spec is not None and not kept:
        own = f"a head for {_words(saved)}" if saved is not None else "no head"
        raise ModelError(
            f"the adapter {source.adapter} has {own}",
            f"one for {_words(spec)}",
            "export it merged and train on that model",
        )
    return spec, kept


def _words(spec: HeadSpec) -> str:
    names = ", ".join(spec.labels[:5]) + (", …" if len(spec.labels) > 5 else "")
    return f"{spec.method} ({names}; pooling {spec.pooling})"


def _check_kind(source: Source, config: PretrainedConfig, head: HeadSpec | None) -> None:
    if head is None and gate.is_encoder(config):
        raise ModelError(
            f"{source.base} ({config.model_type}) is an encoder: it does not write text",
            "a decoder (causal language) model for methods that write",
            "set method.type=classify, regress, tag, embed or reward, or choose a decoder",
        )

    if not config.is_encoder_decoder:
        return
    if head is not None:
        raise ModelError(
            f"{source.base} ({config.model_type}) is an encoder-decoder model, which has no head here",
            "an encoder or a decoder for method.type classify, regress, tag, embed or reward",
            "write method.type=sft: the class is then the answer's text",
        )
    if (
        config.model_type not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
        or config.to_dict().get("decoder_start_token_id") is None
    ):
        raise ModelError(
            f"{source.base} ({config.model_type}) is an encoder-decoder model that does not write text",
            "one such as T5 or BART",
        )


def _padding(config: PretrainedConfig, tokenizer: Any) -> int:
    """What stock heads of causal models look for: the configuration's padding token, the tokenizer's, or its end
    token."""
    found = (config.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    known = next((int(token) for token in found if token is not None), None)
    if known is None:
        raise ModelError(
            "the tokenizer has neither a padding nor an end token", "one of them", "choose another model"
        )
    return known


def _wear(module: Any, adapter: Path, num_tokens: int, train: bool) -> Any:
    """The module, or the backbone of a pooled head, under its adapter."""
    from peft import PeftConfig, PeftModel

    prompted = PeftConfig.from_pretrained(adapter).is_prompt_learning
    pooled = isinstance(module, PooledHead)
    if not pooled and num_tokens > module.get_input_embeddings().num_embeddings:
        module.resize_token_embeddings(num_tokens, mean_resizing=False)
    inner = module.backbone if pooled else module
    worn = PeftModel.from_pretrained(inner, adapter, is_trainable=train and not prompted)
    if prompted:  # PEFT loads learned tokens for answering only, though they can be trained as they are
        worn.prompt_encoder.requires_grad_(train)
    if not pooled:
        return worn
    module.backbone = worn
    return module
