"""The time to the loss of an epoch is the one to the end of its last step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import script

speed_loss = script("speed_loss")


def run(system: str, slope: float, seconds: float, **more: Any) -> dict[str, Any]:
    """40 steps whose loss falls in a line."""
    kind = {"machine": "m", "workload": "w", "dtype": "float32", "rows": 40, "layers": 2, "threads": 1}
    losses = [100 - slope * i for i in range(40)]
    return {**kind, "system": system, "losses": losses, "at": [seconds * (i + 1) for i in range(40)], **more}


def test_the_time_is_that_of_the_last_step(tmp_path: Path) -> None:
    page = speed_loss.section(
        [run("ours", 2, 1), run("theirs", 1, 3), run("ours", 1, 2)], tmp_path / "loss.png"
    )
    assert "Time to the loss of one epoch, 40 GSM8K rows, float32" in page
    # Means of i from 0 to 39 are 19.5, from 24 to 39 they are 31.5; of two runs with slopes 2 and 1 the mean is 1.5.
    assert "| ours | 60 (2) | 2.00 | 2 | 70.750, 52.750 |" in page
    assert "| theirs | 120 (1) | 1.00 | 3 | 80.500, 68.500 |" in page
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_runs_of_other_steps_are_not_compared(tmp_path: Path) -> None:
    short = run("theirs", 1, 3) | {"losses": [1.0] * 20, "at": [1.0] * 20}
    with pytest.raises(SystemExit, match="different numbers of steps"):
        speed_loss.section([run("ours", 2, 1), short], tmp_path / "loss.png")


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
