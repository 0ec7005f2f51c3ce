"""Test the tests: break the code on purpose, one place at a time, and see that a test notices.

python tools/mutants.py [--only WORD ...] [--missing] [--record docs/mutants.md]

Each mutant of tools/mutants.yaml replaces a text that occurs exactly once in one file of a copy of the tree; then
the tests run that should notice. Exits 1 where a mutant survives or no longer applies, and where the tests fail
without any. A page that is recorded has the mutants that were noticed, each as soon as it was, and keeps the lines of
those that did not run; `--missing` runs those alone that have no line in it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/mutants.md"
LINE = re.compile(r"^\| (.+) \| `(.+)` \| `(.+)` \|$", re.MULTILINE)
FAILED = re.compile(r"^FAILED (\S+)", re.MULTILINE)
LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Mutant:
    """In src/tunesmith/`file`, `old` becomes `new`; `tests` are the arguments of pytest that should notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.file


@dataclass(frozen=True)
class Outcome:
    mutant: Mutant
    verdict: str
    by: str
    seconds: float

    @property
    def killed(self) -> bool:
        return self.verdict == "killed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[""], help="mutants whose name or file holds one of these"
    )
    parser.add_argument("--missing", action="store_true", help="mutants that the page has no line of")
    parser.add_argument("--record", type=Path, help="write the table to this Markdown file")
    given = parser.parse_args()
    mutants = [Mutant(**fields) for fields in yaml.safe_load((ROOT / "tools/mutants.yaml").read_text())]
    page = given.record or PAGE
    recorded = read(page.read_text()) if page.exists() else {}
    chosen = [m for m in mutants if any(word in m.name or word in m.file for word in given.only)]
    if not chosen:
        parser.error(f"no mutant's name or file holds {' or '.join(given.only)}")
    if given.missing:
        chosen = [m for m in chosen if m.key not in recorded]
        print(f"{len(chosen)} of {len(mutants)} have no line in {page}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tunesmith-mutants-") as name:
        tree = copy_tree(Path(name))
        selections = sorted({test for m in chosen for test in m.tests.split()})
        status, by, seconds = run_tests(tree, selections, limit=None)
        print(
            f"{'sound' if status == 0 else 'BROKEN'}: the tests without a mutant, {seconds:.0f} s {by}",
            flush=True,
        )
        if status != 0:
            return 1
        outcomes = []
        for mutant in chosen:
            outcomes.append(try_mutant(tree, mutant))
            o = outcomes[-1]
            print(f"{o.verdict:9} {mutant.name}  {o.seconds:.0f} s  {o.by}", flush=True)
            recorded.pop(mutant.key, None)
            if o.killed:
                recorded[mutant.key] = _short(o.by)
            if given.record:  # at once: a run that is stopped is gone on with by --missing
                given.record.write_text(table(mutants, recorded))
    killed = sum(o.killed for o in outcomes)
    print(f"{killed} of {len(outcomes)} killed")
    return 0 if killed == len(outcomes) else 1


def copy_tree(folder: Path) -> Path:
    """What the tests read: they hold guides, recipes and results to the code as well."""
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("src", "tests", "docs", "recipes", "benchmarks", "tools"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def try_mutant(tree: Path, mutant: Mutant) -> Outcome:
    """Apply, test, take back."""
    path = tree / "src" / "tunesmith" / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        return Outcome(
            mutant, "STALE", f"its text occurs {text.count(mutant.old)} times in {mutant.file}", 0.0
        )
    mutated = text.replace(mutant.old, mutant.new)
    if path.suffix == ".py":
        compile(mutated, str(path), "exec")  # a mutant that is no Python would be killed for nothing
    path.write_text(mutated)
    try:
        status, by, seconds = run_tests(tree, mutant.tests.split())
    finally:
        path.write_text(text)
    return Outcome(mutant, "killed" if status == 1 and by else "SURVIVED", by, seconds)


def run_tests(tree: Path, selection: list[str], limit: int | None = LIMIT_SECONDS) -> tuple[int, str, float]:
    """(pytest's exit status, the first test that failed, seconds); status -1 past the time limit."""
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": ""}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *selection],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return -1, f"no result in {limit} s", time.monotonic() - started
    found = FAILED.search(done.stdout)
    by = found[1] if found else "" if done.returncode == 0 else done.stdout[-300:] + done.stderr[-300:]
    # A mutant may make the process die at its end, after a test has failed and been told of.
    status = 1 if found and done.returncode < 0 else done.returncode
    return status, by, time.monotonic() - started


def read(page: str) -> dict[tuple[str, str], str]:
    """A mutant's name and file -> the test that noticed, as `table` writes them."""
    return {(name, file): by for name, file, by in LINE.findall(page)}


def table(mutants: Sequence[Mutant], noticed: Mapping[tuple[str, str], str]) -> str:
    """In the order of `mutants`; one that is not in `noticed` has no line."""
    lines = [
        "# Mutants",
        "",
        "The code broken on purpose, and the first test that noticed. Made by `python tools/mutants.py --record`;",
        "`make mutants` runs them again.",
        "",
        "| mutant | file | noticed by |",
        "|---|---|---|",
    ]
    lines += [f"| {m.name} | `{m.file}` | `{noticed[m.key]}` |" for m in mutants if m.key in noticed]
    return "\n".join([*lines, ""])


def _short(test: str) -> str:
    """tests/a/test_b.py::test_c, without parameters (which may hold a |)."""
    return test.split("[")[0]


if __name__ == "__main__":
    sys.exit(main())
