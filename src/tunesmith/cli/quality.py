"""`tunesmith data quality` and `tunesmith data review`: which rows are doubtful, and what a person says of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.cli.arguments import files_and_settings
from tunesmith.cli.options import FilesAndSettings, Json, Quiet


def quality(
    arguments: FilesAndSettings,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder of the table.", show_default=False)
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="Model whose features the probe of labels reads.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model or run by whose loss answers are scored.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="PAGE", help="Also write a page with plots.", show_default=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score every row of files or a data set: doubtful labels, unlikely answers, rows that contradict others."""
    from tunesmith.cli import output as out
    from tunesmith.cli.progress import progress
    from tunesmith.config.load import load_section
    from tunesmith.config.quality import Quality
    from tunesmith.workflow.quality import quality as score

    files, overrides = files_and_settings(arguments, "tunesmith data quality rows.jsonl")
    options = {"output": ("--output", output), "encoder": ("--encoder", encoder), "model": ("--model", model)}
    given = {key: (value, option) for key, (option, value) in options.items() if value is not None}
    config = load_section(Quality, overrides, {"data.train": (files, "FILE"), **given})
    with progress(quiet) as sink:
        report = score(config, sink)
    if html is not None:
        out.write(html, report.as_html())
    out.show(report, as_json)


def review(
    data_set: Annotated[
        Path, typer.Argument(metavar="DATASET", help="A data set, or a folder of `data quality`.")
    ],
    apply: Annotated[
        bool, typer.Option("--apply", help="Make a version of the data set with the decisions carried out.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Walk through the worst rows, as `data quality` found them, and keep, drop or relabel each by a key."""
    from tunesmith.cli import output as out
    from tunesmith.cli import terminal
    from tunesmith.cli.progress import progress
    from tunesmith.desk.review import walk_of

    if apply:
        _applied(data_set, as_json, quiet)
        return
    terminal.required()
    with progress(quiet) as sink:
        walk = walk_of(data_set, sink)
    with terminal.keys() as next_key:
        while not walk.ended:
            terminal.show(walk.screen())
            walk.press(next_key())
    counts = Counter(str(one.verdict) for one in walk.decided.values())
    facts: dict[str, Any] = {"decisions": str(walk.path), "rows": len(walk.records), **counts}
    if as_json:
        out.show_json(facts)
    else:
        said = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items()) or "none"
        print(f"{len(walk.decided):,} of {len(walk.records):,} rows decided: {said}\nwritten: {walk.path}")


def _applied(data_set: Path, as_json: bool, quiet: bool) -> None:
    from tunesmith.cli import output as out
    from tunesmith.cli.progress import progress
    from tunesmith.config.load import load_desk
    from tunesmith.desk.decisions import DECISIONS
    from tunesmith.desk.make import make
    from tunesmith.desk.review import quality_folder

    decisions = str(quality_folder(data_set) / DECISIONS)
    values: dict[str, tuple[Any, str]] = {
        "output": (str(data_set), "DATASET"),
        "review.decisions": (decisions, "--apply"),
        "data.train": ([str(data_set)], "DATASET"),
    }
    with progress(quiet) as sink:
        made = make(load_desk(None, [], values), sink)
    out.show(made, as_json)
