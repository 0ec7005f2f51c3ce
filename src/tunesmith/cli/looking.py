"""`tunesmith data inspect`, `diff` and `show`: what rows are, what became of them, and what a data set's card says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tunesmith.cli.options import FilesAndSettings, Json, Quiet
from tunesmith.embedded import BASE_MODEL

if TYPE_CHECKING:
    from tunesmith.config.desk import Desk

Folder: TypeAlias = Annotated[Path, typer.Argument(metavar="DATASET", help="Folder of a data set.")]


def inspect(
    arguments: FilesAndSettings,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="PAGE", help="Also write a page with plots.", show_default=False),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="Whose tokens are counted: a model's or a run's folder, a hub id."
        ),
    ] = BASE_MODEL,
    cost: Annotated[
        bool, typer.Option("--cost/--no-cost", help="Measure what training on the rows would take here.")
    ] = True,
    counted: Annotated[
        int,
        typer.Option(
            "--counted", min=0, help="Rows at most whose tokens are counted, drawn from all; 0: all."
        ),
    ] = 10_000,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what rows hold: columns, lengths, labels, repeats, rows to look at, what training on them would cost."""
    from tunesmith.cli import output as out
    from tunesmith.cli import work
    from tunesmith.cli.arguments import files_and_settings
    from tunesmith.cli.progress import progress

    desk = _looked_at(*files_and_settings(arguments, "tunesmith data inspect rows.jsonl"))
    with progress(quiet) as sink:
        found = work.inspect(desk, model, cost=cost, counted=counted, sink=sink)
    if html is not None:
        out.write(html, found.as_html())
    out.show(found, as_json)


def _looked_at(files: Sequence[str], overrides: Sequence[str]) -> Desk:
    """The files as training rows; of a data set of the desk each split as what it is. Cleaning and de-duplication are
    tried."""
    from tunesmith.config.load import load_desk
    from tunesmith.data.folders import current_version

    named: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for file in files:
        version = current_version(Path(file))
        here = [s for s in named if any((version / f"{s}.{end}").is_file() for end in ("jsonl", "parquet"))]
        for split in here if version != Path(file) else ["train"]:
            named[split].append(file)
    values: dict[str, tuple[Any, str]] = {
        f"data.{split}": (entries, "FILE") for split, entries in named.items() if entries
    }
    steps: dict[str, tuple[Any, str]] = {name: ({}, "inspect") for name in ("clean", "dedup")}
    return load_desk(None, overrides, values | steps)


def diff(
    data_set: Folder,
    older: Annotated[
        int | None,
        typer.Option("--from", min=1, help="Version; default: the one before.", show_default=False),
    ] = None,
    newer: Annotated[
        int | None,
        typer.Option("--to", min=1, help="Version; default: the current one.", show_default=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare two versions: rows that came, went (and why), changed (by which rules) or moved, and other settings."""
    from tunesmith.cli import output as out
    from tunesmith.cli.progress import progress
    from tunesmith.desk.diff import diff as compare

    with progress(quiet) as sink:
        sink("phase", name="comparing", text=str(data_set))
        found = compare(data_set, older, newer)
    out.show(found, as_json)


def show(
    data_set: Folder,
    number: Annotated[
        int | None,
        typer.Option("--version", min=1, help="Which; default: the current one.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the card of a version: where its rows are from, what was done to them, what is left."""
    import sys

    from tunesmith.cli import output as out
    from tunesmith.desk.versions import DataSet

    version = DataSet(data_set).version(number)
    if as_json:
        out.show_json(version.manifest)
        return
    text = out.printable((version.folder / "card.md").read_text(encoding="utf-8"))
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text, hyperlinks=False))
