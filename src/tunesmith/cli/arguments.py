"""From what was typed to a `Run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ConfigError

if TYPE_CHECKING:
    from tunesmith.config.run import Run


def split_arguments(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Tell the recipe from the `key=value` settings; they may stand in any order."""
    from tunesmith.config.load import is_override

    overrides = [a for a in arguments if is_override(a) and not Path(a).is_file()]
    recipes = [a for a in arguments if a not in overrides]
    if len(recipes) > 1:
        raise ConfigError(
            f"several recipes: {', '.join(recipes)}",
            "one recipe, and settings written key=value",
            "start one run for each recipe",
        )
    return (Path(recipes[0]) if recipes else None), overrides


def files_and_settings(arguments: Sequence[str], example: str) -> tuple[list[str], list[str]]:
    """Files, of which there must be one, and `key=value` settings; they may stand in any order."""
    from tunesmith.config.load import is_override

    overrides = [a for a in arguments if is_override(a) and not Path(a).exists()]
    files = [a for a in arguments if a not in overrides]
    if not files:
        raise ConfigError("no file is named", "files of rows", example)
    return files, overrides


def run_from(arguments: Sequence[str], options: dict[str, tuple[str, Any]]) -> Run:
    """options: dotted key -> (option's name, its value); an option that was not given has None or nothing."""
    from tunesmith.config.load import load_run

    path, overrides = split_arguments(arguments)
    given = {key: (value, option) for key, (option, value) in options.items() if value not in (None, [])}
    return load_run(path, overrides, given)


def settings_for(models: Sequence[str], overrides: Sequence[str]) -> Run:
    """Settings of the first of the models that is a run folder, else the defaults; then the overrides."""
    from tunesmith.config.load import load_run

    recipes = (Path(model) / "config.yaml" for model in models)
    return load_run(next((path for path in recipes if path.is_file()), None), overrides)
