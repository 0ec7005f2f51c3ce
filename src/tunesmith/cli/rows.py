"""What commands of the desk take: files of rows, and settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from tunesmith.errors import ConfigError

FilesAndSettings: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE... [KEY=VALUE]...", help="Files of rows, and settings, such as data.columns.text=body."
    ),
]


def files_and_settings(name: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell files from `key=value` settings. Raises ConfigError where no file is named."""
    from tunesmith.config.load import is_override

    overrides = [one for one in arguments if is_override(one) and not Path(one).exists()]
    files = [one for one in arguments if one not in overrides]
    if not files:
        raise ConfigError("no file is named", "files of rows", f"tunesmith data {name} rows.jsonl")
    return files, overrides
