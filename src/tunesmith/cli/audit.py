"""`tunesmith data audit`: who is in the rows, and what labels and a model's answers have to do with it."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli.arguments import files_and_settings
from tunesmith.cli.options import FilesAndSettings, Json, Quiet


def audit(
    arguments: FilesAndSettings,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder of the report.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Run or model whose answers are compared.", show_default=False),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="Column that names a group; may be given again.", show_default=False),
    ] = None,
    lists: Annotated[
        str | None, typer.Option("--lists", help="YAML file of your own word lists.", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look for bias in files or a data set: groups of people, their labels, and a model's answers to other words."""
    from tunesmith.cli import output as out
    from tunesmith.cli.progress import progress
    from tunesmith.config.audit import Audit
    from tunesmith.config.load import load_section
    from tunesmith.workflow.audit import audit as look

    files, overrides = files_and_settings(arguments, "tunesmith data audit rows.jsonl")
    options = {
        "output": ("--output", output),
        "model": ("--model", model),
        "groups": ("--group", group),
        "lists": ("--lists", lists),
    }
    given = {key: (value, option) for key, (option, value) in options.items() if value is not None}
    config = load_section(Audit, overrides, {"data.train": (files, "FILE"), **given})
    with progress(quiet) as sink:
        report = look(config, sink)
    out.show(report, as_json)
