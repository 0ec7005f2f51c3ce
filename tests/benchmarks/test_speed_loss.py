"""The time to a loss is that at which the mean of the last steps first is as low as where the worst run ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import script

speed_loss = script("speed_loss")


def run(system: str, slope: float, seconds: float, **more: Any) -> dict[str, Any]:
    """40 steps whose loss falls in a line, so that the mean of 16 up to step i (from 0) is that of step i - 7.5."""
    kind = {"machine": "m", "workload": "w", "dtype": "float32", "rows": 40, "layers": 2, "threads": 1}
    losses = [100 - slope * i for i in range(40)]
    return {**kind, "system": system, "losses": losses, "at": [seconds * (i + 1) for i in range(40)], **more}


def test_the_time_is_that_of_the_loss_that_every_run_reaches(tmp_path: Path) -> None:
    runs = [run("ours", 2, 1), run("theirs", 1, 3)]
    # theirs ends at 100 - 31.5 = 68.5, after 120 s; ours is there at step 23.25, so at the end of step 24: 25 s.
    page = speed_loss.section(runs, tmp_path / "loss.png")
    assert "a training loss of 68.500, 40 GSM8K rows, float32" in page
    assert "| ours | 25 (1) | 4.80 | 1 |" in page
    assert "| theirs | 120 (1) | 1.00 | 3 |" in page
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_runs_of_another_kind_are_told_apart(tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [{}, {"dtype": "bfloat16"}, {"machine": "n"}]
    runs = [run(s, 1, 1, **kind) for kind in kinds for s in ("ours", "theirs")]
    found = speed_loss.sections(runs, tmp_path)
    assert {machine: page.count("### Time to") for machine, page in found.items()} == {"m": 2, "n": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loss-1.png", "loss-2.png", "loss-3.png"]
    assert "images/loss-3.png" in found["n"]


def test_a_run_too_short_for_a_mean_is_refused() -> None:
    with pytest.raises(SystemExit, match="a run of 3 steps"):
        speed_loss.Curve.of({"system": "ours", "losses": [1.0] * 3, "at": [1.0] * 3})
