"""The recipes that are shipped: each can be read, is named as its file, is listed, and finds its sample data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.config.load import load_run

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_whole(path: Path) -> None:
    run = load_run(path)
    assert run.name == path.stem
    assert f"({path.name})" in (ROOT / "recipes" / "README.md").read_text()
    rows = [*run.data.train, *run.data.validation, *run.data.test]
    assert rows
    assert all((ROOT / row).is_file() for row in rows if row.startswith(("recipes/", "src/")))
    assert f"tunesmith train recipes/{path.name}" in path.read_text()
