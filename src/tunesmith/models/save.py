"""Models out: folders that stock transformers (and PEFT) load, written aside and renamed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunesmith.core.heads import Head, PooledHead
from tunesmith.errors import ModelError
from tunesmith.models.adapters import adapter_of, save_as_plain
from tunesmith.models.critic import APART
from tunesmith.models.files import Manifest
from tunesmith.models.heads import save_pooled
from tunesmith.models.tune import merged
from tunesmith.models.value import NAME


def save_model(
    module: Any,
    tokenizer: Any,
    manifest: Manifest,
    folder: Path,
    head: Head | None = None,
    beside: Mapping[str, dict[str, Tensor]] | None = None,
) -> None:
    """Write module, tokenizer, template and manifest to `folder`, whole or not at all.

    A PEFT module writes its adapter only; a full one all weights in the dtype it computes in. beside: files of tensors
    that are no part of the model.
    """
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    if isinstance(module, PooledHead):
        assert head is not None
        positions = module.config.get_text_config().to_dict().get("max_position_embeddings")
        room = tokenizer.model_max_length if positions is None else positions - head.offset
        save_pooled(module, head.pooling, aside, min(tokenizer.model_max_length, room))
    elif head is not None and manifest.kind == "adapter":
        module.save_pretrained(aside, safe_serialization=True, save_embedding_layers=False)
    elif head is not None:
        module.save_pretrained(aside, safe_serialization=True)
    else:
        _save_language_model(module, tokenizer, manifest, aside)
    worn = adapter_of(module)
    if manifest.kind == "adapter" and worn is not None:
        save_as_plain(worn, aside)
        (aside / "README.md").unlink(missing_ok=True)  # PEFT's empty card; ours is written with the report
    tokenizer.save_pretrained(aside)
    for name, tensors in (beside or {}).items():
        save_file(tensors, aside / name)
    manifest.write(aside)
    if folder.exists():
        shutil.rmtree(folder)
    aside.rename(folder)


def _save_language_model(module: Any, tokenizer: Any, manifest: Manifest, folder: Path) -> None:
    generation = module.generation_config
    if manifest.end_ids:
        generation.eos_token_id = manifest.end_ids if len(manifest.end_ids) > 1 else manifest.end_ids[0]
    if generation.pad_token_id is None:
        generation.pad_token_id = tokenizer.pad_token_id
    if manifest.kind == "adapter":
        module.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        generation.save_pretrained(folder)
    else:
        module.save_pretrained(folder, safe_serialization=True)


def save_weights(module: Any, folder: Path) -> None:
    """Write what other software answers with as the module would: its adapter, or all its weights, without what PPO
    values states with; whole or not at all."""
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    worn = adapter_of(module)
    only = {"save_embedding_layers": False} if worn is not None else {}
    module.save_pretrained(aside, state_dict=_answering(module), safe_serialization=True, **only)
    if worn is not None:
        save_as_plain(worn, aside)
    aside.rename(folder)


def fingerprint(module: Any) -> str:
    """Of what `save_weights` writes: the same for the same weights. Those beneath an adapter do not change."""
    adapted, digest = adapter_of(module) is not None, hashlib.sha256()
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    for name, tensor in _answering(module).items():
        if not adapted or name in trained:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _answering(module: Any) -> dict[str, Tensor]:
    beside = (f"{NAME}.", APART)
    return {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(beside)}


def merge(module: Any) -> Any:
    """The base with the adapter's update added to its weights (LoRA: W + alpha / r * B A)."""
    if adapter_of(module) is None:
        raise ModelError("this model has no adapter to merge", "an adapter", "export it as it is")
    return merged(module)
