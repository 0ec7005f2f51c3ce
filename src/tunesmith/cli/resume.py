"""`tunesmith resume`: go on where a run stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import Json, Quiet


def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="A run's folder, e.g. runs/tickets.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Continue a stopped run from its newest whole checkpoint, with the configuration it started with."""
    from tunesmith.cli import output as out
    from tunesmith.cli import work
    from tunesmith.cli.progress import progress

    with progress(quiet) as sink:
        result = work.resume(folder, sink)
    out.show(result, as_json)
