"""The page of mutants: what is recorded is read again, and a line stays where its mutant did not run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("mutants", ROOT / "tools/mutants.py")
assert spec is not None
assert spec.loader is not None
mutants = sys.modules["mutants"] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
spec.loader.exec_module(mutants)


def mutant(name: str, file: str = "a.py") -> mutants.Mutant:
    return mutants.Mutant(name, file, "old", "new", "tests")


def test_a_page_holds_the_mutants_that_are_there_in_their_order_old_lines_and_new() -> None:
    known = [mutant("one"), mutant("two"), mutant("two", "b.py"), mutant("three")]
    before = mutants.table(
        known, {("one", "a.py"): "t::one", ("two", "b.py"): "t::b", ("gone", "a.py"): "t::gone"}
    )
    assert mutants.read(before) == {("one", "a.py"): "t::one", ("two", "b.py"): "t::b"}
    after = mutants.table(
        known, mutants.read(before) | {("two", "a.py"): "t::a", ("one", "a.py"): "t::other"}
    )
    assert after.splitlines()[-3:] == [
        "| one | `a.py` | `t::other` |",
        "| two | `a.py` | `t::a` |",
        "| two | `b.py` | `t::b` |",
    ]


KNOWN = [mutants.Mutant(**m) for m in yaml.safe_load((ROOT / "tools/mutants.yaml").read_text())]


def test_mutants_are_told_apart_by_name_and_file() -> None:
    assert len({m.key for m in KNOWN}) == len(KNOWN)


def test_every_mutant_still_applies() -> None:
    sources = {m.file: (ROOT / "src/tunesmith" / m.file).read_text() for m in KNOWN}
    assert [m.name for m in KNOWN if sources[m.file].count(m.old) != 1 or m.old == m.new] == []
