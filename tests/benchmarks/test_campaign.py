"""A campaign that is stopped goes on where it ended, and no run is counted twice."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import script
from tunesmith.config.machine import describe_machine

campaign = script("campaign")


def arguments(out: Path, **more: Any) -> argparse.Namespace:
    usual = {
        "threads": 1,
        "workloads": "short,long",
        "systems": "ours,theirs",
        "repeats": 2,
        "layers": 3,
        "dtype": "float32",
    }
    return argparse.Namespace(out=out, **{**usual, **more})


def test_systems_come_in_turn_and_then_the_other_way_round() -> None:
    assert campaign.order(["a", "b", "c"], 3) == [
        *[(0, "a"), (0, "b"), (0, "c")],
        *[(1, "c"), (1, "b"), (1, "a")],
        *[(2, "a"), (2, "b"), (2, "c")],
    ]


def test_what_was_run_is_written_down_at_once_and_not_run_again(tmp_path: Path) -> None:
    ran: list[tuple[str, str]] = []
    folders: list[Path] = []

    def made(name: str, folder: Path) -> dict[str, Any]:
        assert folder.is_dir()
        folders.append(folder)
        return {"name": name, "gate": f"{name}: right"}

    def run(system: str, ready: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
        if len(ran) == stop:
            raise KeyboardInterrupt
        ran.append((ready["name"], system))
        return {"speed": len(ran)}

    out = tmp_path / "results" / "some.json"
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        campaign.compared(arguments(out), made, run, {"rows": 7})
    assert len(json.loads(out.read_text())["rows"]) == 3
    stop = -1
    rows = campaign.compared(arguments(out), made, run, {"rows": 7})
    assert ran == [(w, s) for w in ("short", "long") for s in ("ours", "theirs", "theirs", "ours")]
    written = json.loads(out.read_text())
    assert written["rows"] == rows
    assert written["gate"] == {
        "short, 3 layers, float32": "short: right",
        "long, 3 layers, float32": "long: right",
    }
    first = rows[0]
    key = {"workload": "short", "rows": 7, "dtype": "float32", "threads": 1, "system": "ours", "repeat": 0}
    assert first == key | {"machine": describe_machine(), "date": first["date"], "speed": 1}
    assert len(set(folders)) == len(folders) == 3  # the first workload began twice
    assert not any(folder.exists() for folder in folders)
    campaign.compared(arguments(out), made, run, {"rows": 7})
    assert len(ran) == 8
    campaign.compared(arguments(out, workloads="short", systems="ours", repeats=1), made, run, {"rows": 8})
    assert len(ran) == 9  # of another size
    others = campaign.compared(arguments(out, workloads="short", dtype="bfloat16"), made, run, {"rows": 7})
    assert len(ran) == 13  # in other numbers
    assert {row["dtype"] for row in others} == {"bfloat16"}, "no median is of both"
    assert len(others) == 4


def test_what_a_row_was_computed_in_is_said_as_it_was() -> None:
    assert campaign.numerics("full", "bfloat16", False, "bf16 alone") == "bf16 alone"
    assert campaign.numerics("lora", "bfloat16", False, "bf16 alone") == "adapters fp32"
    assert campaign.numerics("lora", "float32", False, "bf16 alone") == "fp32"
    assert campaign.numerics("full", "bfloat16", True, "bf16 alone") == "fp32, autocast"
