"""`tunesmith data synth` and `data augment`: rows that nobody wrote, made from those that somebody did."""

from __future__ import annotations

from collections.abc import Callable
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
    from tunesmith.config.makers import Synth
    from tunesmith.workflow.synth import synth as make

    _carried_out(Synth, make, arguments, output, dry_run, as_json, quiet)


def augment(
    arguments: Recipe,
    output: VersionFolder = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say training rows another way, labels kept: words, typing, translation; check them, and add a version."""
    from tunesmith.config.augment import Augment
    from tunesmith.workflow.synth import augment as make

    _carried_out(Augment, make, arguments, output, dry_run, as_json, quiet)


def _carried_out(
    kind: type[Any],
    make: Callable[..., Any],
    arguments: list[str],
    output: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from tunesmith.cli import output as out
    from tunesmith.cli.arguments import split_arguments
    from tunesmith.cli.progress import progress
    from tunesmith.config.load import load_recipe

    path, overrides = split_arguments(arguments)
    recipe = load_recipe(kind, path, overrides, {} if output is None else {"output": (output, "--output")})
    with progress(quiet) as sink:
        made = make(recipe, sink, dry_run=dry_run)
    out.show(made, as_json)
