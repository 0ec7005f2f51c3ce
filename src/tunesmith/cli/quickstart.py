"""`tunesmith quickstart`: everything once, on the embedded model and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import Json, Quiet


def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that holds the runs.")] = Path(
        "runs"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seeds everything.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune the embedded model on the embedded tickets, and prove that it got better: about a minute, offline."""
    from tunesmith.cli import output as out
    from tunesmith.cli import work
    from tunesmith.cli.progress import progress

    with progress(quiet) as sink:
        result = work.quickstart(output, seed, sink)
    out.show(result, as_json)
