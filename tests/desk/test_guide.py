"""The guide to the desk names every setting with its default, and every reason to look at a row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tunesmith.config.desk import Clean, Dedup, Scrub, Split
from tunesmith.config.section import Section
from tunesmith.desk.suspects import REASONS

GUIDE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
TITLES: dict[str, type[Section]] = {
    "Cleaning": Clean,
    "Personal data": Scrub,
    "Repeats": Dedup,
    "Splitting": Split,
}


@pytest.mark.parametrize("title", TITLES)
def test_every_setting_stands_there_with_its_default(title: str) -> None:
    part = GUIDE.split(f"### {title}\n")[1].split("\n##")[0]
    said: dict[str, str] = {}
    for names, defaults in re.findall(r"^\| (`[^|]*`) \| (`[^|]*`) \|", part, re.MULTILINE):
        keys, values = re.findall("`([^`]+)`", names), re.findall("`([^`]+)`", defaults)
        said |= dict(zip(keys, values * len(keys) if len(values) == 1 else values, strict=True))
    section = TITLES[title]()
    assert said == {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in section
        if name != "seed"
    }


def test_every_reason_stands_there_in_its_order() -> None:
    assert re.findall(r"^\| `(\w+)` \| [a-z]", GUIDE.split("## A recipe")[0], re.MULTILINE) == list(REASONS)
