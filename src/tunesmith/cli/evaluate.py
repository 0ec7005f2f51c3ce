"""`tunesmith evaluate`: score one model on rows."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli.options import DataFiles, Json, Overrides, Quiet, ReportFolder


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL_OR_RUN", help="A run's folder, a model or an adapter.")
    ],
    data: DataFiles,
    overrides: Overrides = None,
    output: ReportFolder = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on rows, with confidence intervals. A run's own settings are used where MODEL is a run."""
    from tunesmith.cli import output as out
    from tunesmith.cli import work
    from tunesmith.cli.arguments import settings_for
    from tunesmith.cli.progress import progress

    settings = settings_for([model], overrides or [])
    with progress(quiet) as sink:
        result = work.evaluate(model, data, settings, output, sink)
    out.show(result, as_json)
