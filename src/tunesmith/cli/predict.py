"""`tunesmith predict`: a file of inputs in, a file of answers out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import Quiet


def predict(
    model: Annotated[
        str, typer.Argument(metavar="MODEL_OR_RUN", help="A run's folder, a model or an adapter.")
    ],
    source: Annotated[Path, typer.Argument(metavar="IN", help="Rows: JSONL, CSV or Parquet.")],
    target: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="OUT", help="Answers, one JSON line each; default: standard output."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Rows answered at once.", show_default=False)
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer.", show_default=False)
    ] = None,
    column: Annotated[
        str | None, typer.Option("--column", help="Column that holds the input.", show_default=False)
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda or cuda:N; auto: a GPU where there is one.")
    ] = "auto",
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            metavar="FILE.jsonl",
            help="Add each row and its answer to this log, as rows that data inspect, make and train read.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Answer every row of a file. Rows are read and written as a stream, so any length of file will do."""
    from tunesmith.cli import work
    from tunesmith.cli.progress import progress

    with progress(quiet) as sink:
        work.predict(
            model,
            source,
            target,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            column=column,
            device=device,
            log=log,
            sink=sink,
        )
