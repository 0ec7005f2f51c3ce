"""`tunesmith train`: from a recipe, or from --data alone, to a tuned model and its proof."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from tunesmith.cli.options import Json, Quiet, RecipeAndOverrides
from tunesmith.errors import ConfigError

Model: TypeAlias = Annotated[
    str | None, typer.Option("--model", "-m", help="Base model: folder, hub id or run.", show_default=False)
]
TrainingFiles: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--data", "-d", help="A file of training rows; may be given again.", show_default=False),
]
Name: TypeAlias = Annotated[
    str | None, typer.Option("--name", "-n", help="Name of the run.", show_default=False)
]
Output: TypeAlias = Annotated[
    str | None, typer.Option("--output", "-o", help="Folder that holds the runs.", show_default=False)
]
Seeds: TypeAlias = Annotated[int, typer.Option("--seeds", min=1, help="Train with this many seeds.")]
MaxMinutes: TypeAlias = Annotated[
    float | None, typer.Option("--max-minutes", min=0.01, help="Stop after this long.", show_default=False)
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Check data and model, show the plan, and stop.")
]
ProfileSteps: TypeAlias = Annotated[
    bool, typer.Option("--profile", help="Measure where the time of some steps goes; the report shows it.")
]
Resume: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--resume/--force",
        help="Where the run's folder exists: continue it, or replace it.",
        show_default=False,
    ),
]


def train(
    arguments: RecipeAndOverrides = None,
    model: Model = None,
    data: TrainingFiles = None,
    name: Name = None,
    output: Output = None,
    seeds: Seeds = 1,
    max_minutes: MaxMinutes = None,
    dry_run: DryRun = False,
    resume: Resume = None,
    profile: ProfileSteps = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune a model on your rows: check them, train, choose the best step, prove it on test rows, report."""
    from tunesmith.cli import output as out
    from tunesmith.cli import work
    from tunesmith.cli.arguments import run_from
    from tunesmith.cli.progress import progress

    run = run_from(
        arguments or [],
        {
            "model.base": ("--model", model),
            "data.train": ("--data", data),
            "name": ("--name", name),
            "output": ("--output", output),
        },
    )
    if not run.data.train:
        raise ConfigError(
            "no rows to train on",
            "data.train in a recipe, or --data FILE",
            "tunesmith train --data rows.jsonl; to see one work first: tunesmith quickstart",
        )
    with progress(quiet) as sink:
        result = work.train(
            run,
            sink=sink,
            max_minutes=max_minutes,
            seeds=seeds,
            resume=resume,
            dry_run=dry_run,
            profile=profile,
        )
    out.show(result, as_json)
