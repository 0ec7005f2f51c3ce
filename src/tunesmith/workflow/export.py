"""A tuned model as a folder that other servers load."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.config.run import ModelConfig
from tunesmith.errors import ModelError, RunError
from tunesmith.models.files import Manifest, locate
from tunesmith.models.load import find, load_model
from tunesmith.models.save import merge, save_model


@dataclass(frozen=True)
class Exported:
    source: Path
    target: Path
    kind: str

    def as_dict(self) -> dict[str, Any]:
        return {"source": str(self.source), "target": str(self.target), "kind": self.kind}

    def as_text(self) -> str:
        return f"{self.kind} model written to {self.target}"


def export(source: Path, target: Path, merged: bool = False) -> Exported:
    """Copy a model as it is, or merge its adapter into the base (in float32, saved in the base's dtype)."""
    if target.exists():
        raise RunError(f"{target} exists", "a folder that does not exist yet", "choose another name")
    folder = locate(str(source))
    found = find(str(source))
    if not merged:
        shutil.copytree(folder, target)
        return Exported(source, target, "adapter" if found.adapter else "full")
    if found.adapter is None:
        raise ModelError(
            f"{source} is a full model: there is no adapter to merge", "an adapter", "leave --merged out"
        )
    stored = load_model(
        ModelConfig.model_validate({"base": str(source), "dtype": "auto", "device": "cpu"})
    ).model.module.dtype
    # Summed in float32: in bfloat16 a small update would be lost in the rounding of W + BA before it is saved.
    loaded = load_model(
        ModelConfig.model_validate({"base": str(source), "dtype": "float32", "device": "cpu"})
    )
    module = merge(loaded.model.module).to(stored)
    manifest = loaded.manifest or Manifest.for_foreign(loaded.base, loaded.base_hash)
    kept = replace(manifest, kind="merged", files={})
    save_model(module, loaded.tokenizer, kept, target, loaded.model.head)
    return Exported(source, target, "merged")
