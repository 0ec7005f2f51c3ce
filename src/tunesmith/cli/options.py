"""Options and arguments that several verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress; results and errors only.")
]
RecipeAndOverrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE] [KEY=VALUE]...",
        help="A recipe (YAML), and settings that change it, such as train.epochs=2.",
        show_default=False,
    ),
]
FilesAndSettings: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE... [KEY=VALUE]...", help="Files of rows, and settings, such as data.columns.text=body."
    ),
]
Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings, such as evaluate.batch_size=16; they change those of the run.",
        show_default=False,
    ),
]
DataFiles: TypeAlias = Annotated[
    list[Path], typer.Option("--data", "-d", help="A file of rows; may be given again.", show_default=False)
]
ReportFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--output", "-o", help="Also write the report here.", show_default=False)
]
VersionFolder: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", help="Folder of the data set, to which a version is added.", show_default=False
    ),
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done, and write nothing.")
]
