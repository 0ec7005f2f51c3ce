"""The list of hostile inputs, at a size for every day: `make hostile` has them at full size."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import chats, containers, texts
from tests.hostile.inputs import ALL

ROOT = Path(__file__).parents[2]
Put = Callable[[int], dict[str, Any]]


@pytest.fixture(scope="module")
def put() -> Iterator[Put]:
    """Puts an input through in a process that is forked from one without torch, as the command line is."""
    command = [sys.executable, "-m", "tests.hostile.campaign", "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        assert stdout.readline() == "ready\n"

        def asked(number: int) -> dict[str, Any]:
            stdin.write(f"{number}\n")
            stdin.flush()
            found: dict[str, Any] = json.loads(stdout.readline())
            return found

        yield asked
        stdin.close()


def test_there_are_all_of_them() -> None:
    assert sorted(ALL) == list(range(1, 69))
    assert {one.write.__module__ for one in ALL.values()} == {m.__name__ for m in (texts, chats, containers)}


@pytest.mark.parametrize("number", sorted(ALL), ids=lambda number: f"{number}-{ALL[number].name}")
def test_hostile(number: int, put: Put) -> None:
    from tests.hostile.campaign import faults_of

    found = put(number)
    assert faults_of(ALL[number], found) == []


def test_a_fault_is_seen() -> None:
    from tests.hostile.campaign import faults_of

    good = {"comes_of_it": {"refused nul_byte": 1}, "left": 2, "seconds": 0.1, "mib": 60, "lives": True}
    assert faults_of(ALL[3], good) == []
    for fault in (
        {"comes_of_it": {}},
        {"comes_of_it": {"refused nul_byte": 2}},
        {"left": 3},
        {"seconds": 11},
        {"mib": 513},
        {"lives": False},
    ):
        assert len(faults_of(ALL[3], {**good, **fault})) == 1
