"""A hub id leads to the hub's cache on this machine; nothing is downloaded here."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.models import folders
from tunesmith.config.run import ModelConfig
from tunesmith.errors import ModelError
from tunesmith.models.load import load_model

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache as its client lays it out, with one model and one tag."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    home = tmp_path / "models--someone--tiny"
    folders.write_base(home / "snapshots" / REVISION)
    (home / "refs").mkdir()
    for name in ("main", "v1"):
        (home / "refs" / name).write_text(REVISION)
    return tmp_path


@pytest.mark.parametrize("revision", [None, "v1", REVISION])
def test_a_hub_id_loads_from_the_cache(cache: Path, revision: str | None) -> None:
    loaded = load_model(ModelConfig(base="someone/tiny", revision=revision, dtype="float32"))
    assert loaded.base == "someone/tiny"
    assert loaded.base_folder == cache / "models--someone--tiny" / "snapshots" / REVISION


@pytest.mark.parametrize(("base", "revision"), [("someone/else", None), ("someone/tiny", "v2")])
def test_what_is_not_in_the_cache_is_an_error_that_says_so(
    cache: Path, base: str, revision: str | None
) -> None:
    with pytest.raises(ModelError, match="neither a folder here nor to be had from the hub"):
        load_model(ModelConfig(base=base, revision=revision))
