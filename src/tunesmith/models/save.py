"""Models out: folders that stock transformers (and PEFT) load, written aside and renamed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError
from tunesmith.models.files import Manifest


def save_model(module: Any, tokenizer: Any, manifest: Manifest, folder: Path) -> None:
    """Write module, tokenizer, template and manifest to `folder`, whole or not at all.

    A PEFT module writes its adapter only; a full one all weights in the dtype it computes in.
    """
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    generation = module.generation_config
    if manifest.end_ids:
        generation.eos_token_id = manifest.end_ids if len(manifest.end_ids) > 1 else manifest.end_ids[0]
    if generation.pad_token_id is None:
        generation.pad_token_id = tokenizer.pad_token_id
    if manifest.kind == "adapter":
        module.save_pretrained(aside, safe_serialization=True, save_embedding_layers=False)
        generation.save_pretrained(aside)
        (aside / "README.md").unlink(missing_ok=True)  # PEFT's empty card; ours is written with the report
    else:
        module.save_pretrained(aside, safe_serialization=True)
    tokenizer.save_pretrained(aside)
    manifest.write(aside)
    if folder.exists():
        shutil.rmtree(folder)
    aside.rename(folder)


def merge(module: Any) -> Any:
    """The base with the adapter's update added to its weights (W + alpha / r * B A)."""
    from peft import PeftModel

    if not isinstance(module, PeftModel):
        raise ModelError("this model has no adapter to merge", "an adapter", "export it as it is")
    return module.merge_and_unload()
