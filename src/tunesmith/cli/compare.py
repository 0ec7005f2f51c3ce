"""`tunesmith compare`: two models on the same rows."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli.options import DataFiles, Json, Overrides, Quiet, ReportFolder


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A run's folder, a model or an adapter.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What it is compared with.")],
    data: DataFiles,
    overrides: Overrides = None,
    output: ReportFolder = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score two models on the same rows, and say whether the difference is more than chance."""
    from tunesmith.cli import output as out
    from tunesmith.cli import work
    from tunesmith.cli.arguments import settings_for
    from tunesmith.cli.progress import progress

    settings = settings_for([a, b], overrides or [])
    with progress(quiet) as sink:
        result = work.compare(a, b, data, settings, output, sink)
    out.show(result, as_json)
