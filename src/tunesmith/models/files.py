"""Model folders on disk: where a name leads, what a folder holds, and its manifest.

`tunesmith.json` in a saved model lists kind (full, adapter, merged), base and its hash, dtype, template hash
and the SHA-256 of every weight file; loading checks them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.embedded import base_model_path
from tunesmith.errors import ModelError, near_miss

MANIFEST = "tunesmith.json"
EMBEDDED = "tunesmith/base-8m"


@dataclass
class Manifest:
    """What a saved model is.

    base_hash: `weights_hash` of the base that an adapter or a tuned model started from. format, columns, message_keys,
    roles: of the rows it was trained on, as in `DataConfig`; labels: their classes, empty where they have none.
    head: what its head says (`HeadSpec`), for a model that has one.
    """

    kind: str
    base: str
    base_hash: str
    dtype: str
    template_hash: str
    template: str
    end_ids: list[int]
    run: str
    parent: str | None
    versions: dict[str, str]
    instruction: str | None = None
    format: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    message_keys: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    head: dict[str, Any] | None = None
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def for_foreign(cls, base: str, base_hash: str) -> Manifest:
        """For an adapter that other software made: what is known of it."""
        return cls("adapter", base, base_hash, "auto", "", "", [], "", None, {})

    def write(self, folder: Path) -> None:
        found = sorted(folder.rglob("*.safetensors"))
        self.files = {p.relative_to(folder).as_posix(): sha256(p) for p in found}
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path, *, verify: bool = True) -> Manifest | None:
        """None where there is none (a model that Tunesmith did not save). verify: hash the weight files, too."""
        path = folder / MANIFEST
        if not path.exists():
            return None
        try:
            manifest = cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ModelError(
                f"{path} cannot be read: {error}", "the manifest as it was saved", "save it again"
            ) from error
        for name, expected in manifest.files.items() if verify else ():
            if not (folder / name).exists() or sha256(folder / name) != expected:
                raise ModelError(
                    f"{folder / name} differs from its manifest",
                    f"SHA-256 {expected[:16]}…",
                    "copy the folder again, whole",
                )
        return manifest


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_hash(folder: Path) -> str:
    """One hash over the weight files of a folder, in the order of their names."""
    files = sorted(folder.glob("*.safetensors"))
    return hashlib.sha256("".join(sha256(p) for p in files).encode()).hexdigest()


def locate(base: str, revision: str | None = None) -> Path:
    """The folder that a name leads to: the embedded model, a folder, a run (its model/), or a hub id."""
    if base == EMBEDDED:
        return base_model_path()
    path = Path(base).expanduser()
    if path.is_dir():
        if (path / "model").is_dir() and not (path / "config.json").exists():
            path = path / "model"
        if not any((path / name).exists() for name in ("config.json", "adapter_config.json")):
            raise ModelError(
                f"{base} holds no model",
                "a folder with config.json or adapter_config.json, or a finished run",
            )
        return path
    if base.startswith((".", "/", "~")) or base.count("/") != 1:
        parent = path.parent if path.parent.is_dir() else Path(".")
        names = [p.name for p in parent.iterdir() if p.is_dir()]
        raise ModelError(
            f"there is no folder {base}", near_miss(path.name, names), "name a folder or a hub id"
        )
    return _from_hub(base, revision)


def _from_hub(base: str, revision: str | None) -> Path:
    """Weights as safetensors, configuration and tokenizer only: nothing that runs or unpickles."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        folder = snapshot_download(
            base, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
        )
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"the model '{base}' is neither a folder here nor to be had from the hub ({type(error).__name__})",
            f"a folder, a hub id, or {EMBEDDED}",
            "check the name and the connection; unset HF_HUB_OFFLINE to allow downloads",
        ) from error
    return Path(folder)


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "a JSON object") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}", "a JSON object")
    return value


def licence_of(folder: Path) -> str:
    """The licence that the base's card names in its front matter, or in a table row, else nothing."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else ""
    found = re.search(r"^(?:license:|\| *licen[cs]e *\|)\s*([^|\n]+)", text, re.MULTILINE | re.IGNORECASE)
    return found[1].strip() if found else ""
