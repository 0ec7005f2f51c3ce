"""What the machine has, with a container's limits."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tunesmith.config import machine


@pytest.mark.parametrize(("said", "limit"), [("max\n", None), (f"{3 << 30}\n", 3 << 30)])
def test_a_control_groups_limit_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, limit: int | None
) -> None:
    (tmp_path / "max").write_text(said)
    (tmp_path / "current").write_text(f"{1 << 30}\n")
    monkeypatch.setattr(machine, "LIMIT", tmp_path / "max")
    monkeypatch.setattr(machine, "USED", tmp_path / "current")
    whole = psutil.virtual_memory().total
    assert machine.total_memory() == (whole if limit is None else min(whole, limit))
    assert machine.available_memory() <= (whole if limit is None else limit - (1 << 30))


def test_a_machine_without_control_groups_has_what_the_system_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "LIMIT", tmp_path / "none")
    monkeypatch.setattr(machine, "USED", tmp_path / "none")
    assert machine.total_memory() == psutil.virtual_memory().total
    assert 0 < machine.available_memory() <= psutil.virtual_memory().total
