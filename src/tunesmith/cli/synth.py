"""`tunesmith data synth` and `data augment`: rows that nobody wrote, made from those that somebody did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.cli.options import DryRun, Json, Quiet, VersionFolder

Recipe = Annotated[
    list[str],
    typer.Argument(metavar="RECIPE [KEY=VALUE]...", help="A recipe (YAML), and settings."),
]


def synth(
    arguments: Recipe,
    output: VersionFolder = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make rows from templates, or from seed rows by a model; check them, and add a version with them."""
    from tunesmith.cli import output as out
    from tunesmith.cli.progress import progress
    from tunesmith.config.load import load_recipe
    from tunesmith.config.makers import Synth
    from tunesmith.workflow.synth import synth as make

    path, overrides, values = _said(arguments, output)
    recipe = load_recipe(Synth, path, overrides, values)
    with progress(quiet) as sink:
        made = make(recipe, sink, dry_run=dry_run)
    out.show(made, as_json)


def augment(
    arguments: Recipe,
    output: VersionFolder = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say training rows another way, labels kept: words, typing, translation; check them, and add a version."""
    from tunesmith.cli import output as out
    from tunesmith.cli.progress import progress
    from tunesmith.config.augment import Augment
    from tunesmith.config.load import load_recipe
    from tunesmith.workflow.synth import augment as make

    path, overrides, values = _said(arguments, output)
    recipe = load_recipe(Augment, path, overrides, values)
    with progress(quiet) as sink:
        made = make(recipe, sink, dry_run=dry_run)
    out.show(made, as_json)


def _said(
    arguments: list[str], output: str | None
) -> tuple[Path | None, list[str], dict[str, tuple[Any, str]]]:
    from tunesmith.cli.arguments import split_arguments

    path, overrides = split_arguments(arguments)
    return path, overrides, {} if output is None else {"output": (output, "--output")}
