"""The guide to synthetic rows names every check with its default; the recipes that are shipped can be read."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.augment import Augment, AugmentChecks, Change
from tunesmith.config.load import load_recipe
from tunesmith.config.makers import Maker, Synth
from tunesmith.config.section import Section
from tunesmith.config.synth import Checks

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "synthetic.md").read_text(encoding="utf-8")
KINDS: dict[str, type[Synth] | type[Augment]] = {
    "tickets_synth": Synth,
    "tickets_grid": Synth,
    "tickets_augment": Augment,
}


def test_every_check_stands_there_with_its_default() -> None:
    table = GUIDE.split("## Checks\n")[1].split("\n## ")[0]
    said = {name: rest for name, rest in re.findall(r"^\| `(\w+)` \| ([^|]*) \|", table, re.MULTILINE)}
    checks = dict(Checks())
    for name, rest in said.items():
        assert rest.startswith(f"`{json.dumps(checks[name])}`"), name
    assert "of `augment` `null`" in said["novelty"]
    assert AugmentChecks().novelty is None
    prose = {name for name in checks if name not in said}
    assert prose == {"leaks", "encoder", "probe_least"}
    assert all(f"`{name}" in table for name in prose)


@pytest.mark.parametrize("union", [Maker, Change])
def test_every_kind_stands_there(union: Any) -> None:
    for kind in typing.get_args(typing.get_args(union)[0]):
        assert issubclass(kind, Section)
        assert f"| `{kind.model_fields['kind'].default}` |" in GUIDE


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes" / "desk").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_recipes_are_whole(path: Path) -> None:
    kind = KINDS[path.stem]
    found = load_recipe(kind, path, [], {})
    files = [*found.data.train, *found.data.test]
    assert files
    assert all((ROOT / file).is_file() for file in files)
    assert f"tunesmith data {kind.__name__.lower()} recipes/desk/{path.name}" in path.read_text()
    assert f"(desk/{path.name})" in (ROOT / "recipes" / "README.md").read_text()
