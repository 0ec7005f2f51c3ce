"""The link checker finds what is broken, and nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "check_links.py"


def problems(folder: Path, text: str) -> list[str]:
    """target: why, of each broken link in a page of that text, beside `other.md`."""
    (folder / "other.md").write_text("# Other page: `code` & more\n\n## Twice\n\n## Twice\n\nUnder\n-----\n")
    (folder / "page.md").write_text(text)
    done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)
    *lines, summary = done.stderr.splitlines()
    assert done.returncode == bool(lines)
    assert summary == f"2 files, {len(lines)} broken links"
    return [line.removeprefix(f"{folder}/page.md:") for line in lines]


@pytest.mark.parametrize(
    "text",
    [
        "[a](other.md) ![i](other.md 'title') [b](<other.md>) [up](.)",
        "[a](other.md#other-page-code--more) [b](other.md#twice) [c](other.md#twice-1) [d](other.md#under)",
        "# Here\n[a](#here)\n<a id='x'></a> [b](#x)",
        "[a](https://example.org/none) [m](mailto:a@b.c) [p](//example.org)",
        "`[code](none.md)` and\n```\n[code](none.md)\n```\n~~~~\n```\n[code](none.md)\n~~~~",
        "[text][label] [label][]\n\n[label]: other.md",
        "a [x] in brackets, [ ] a box",
    ],
)
def test_whole_links(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x\n[a](none.md)", ["2: none.md: no such file"]),
        ("![i](none.png)", ["1: none.png: no such file"]),
        ("[![i](none.png)](other.md)", ["1: none.png: no such file"]),
        ("[![i](other.md)](none.md)", ["1: none.md: no such file"]),
        ("[a](other.md#nowhere)", ["1: other.md#nowhere: no such anchor"]),
        ("[a](other.md#twice-2)", ["1: other.md#twice-2: no such anchor"]),
        ("[a](#nowhere)", ["1: #nowhere: no such anchor"]),
        ("```\n# In code\n```\n[a](#in-code)", ["4: #in-code: no such anchor"]),
        ("[a](/other.md)", ["1: /other.md: not relative"]),
        ("[text][label]", ["1: [text][label]: no such reference"]),
        ("[l][l]\n\n[l]: none.md", ["3: none.md: no such file"]),
        (
            '<img alt="x" src="none.png"> <a href="none.md">',
            ["1: none.png: no such file", "1: none.md: no such file"],
        ),
    ],
)
def test_broken_links(tmp_path: Path, text: str, found: list[str]) -> None:
    assert problems(tmp_path, text) == found


def test_a_missing_argument_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "none"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, f"no such file or folder: {tmp_path / 'none'}\n")


def test_this_projects_pages_are_whole() -> None:
    spec = importlib.util.spec_from_file_location("check_links", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_links"] = module
    spec.loader.exec_module(module)
    pages = module.markdown_files([SCRIPT.parents[1] / "README.md", SCRIPT.parents[1] / "docs"])
    assert [str(problem) for page in pages for problem in module.check(page)] == []
