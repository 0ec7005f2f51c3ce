"""`tunesmith export`: a folder that other servers load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import Json


def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run's folder, or an adapter's.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet.")],
    merged: Annotated[bool, typer.Option("--merged", help="Merge an adapter into its base model.")] = False,
    as_json: Json = False,
) -> None:
    """Write the tuned model as a folder that stock transformers (and PEFT, for an adapter) loads."""
    from tunesmith.cli import output as out
    from tunesmith.cli import work

    out.show(work.export(source, target, merged), as_json)
