"""What the command line prints: results on standard output, errors on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tunesmith.errors import ResourceError, TunesmithError


class Result(Protocol):
    """What a verb's work returns: `as_dict` is printed with --json, `as_text` without."""

    def as_dict(self) -> dict[str, Any]: ...

    def as_text(self) -> str: ...


def show(result: Result, as_json: bool) -> None:
    if as_json:
        show_json(result.as_dict())
    else:
        print(printable(result.as_text()))


def show_json(document: Any) -> None:
    """One JSON document; a number that is not finite is an error, as JSON has none."""
    print(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False))


def write(path: Path, text: str | Iterable[str]) -> None:
    """The text, or its parts one after the other, as a whole file; its folder is made where there is none. Raises
    ResourceError where it cannot be written."""
    from tunesmith.storage import made_folder, write_whole

    parts = [text] if isinstance(text, str) else text
    made_folder(path.parent)
    try:
        write_whole(path, (part.encode("utf-8") for part in parts))
    except OSError as error:
        raise ResourceError(
            f"{path}: cannot be written ({error.strerror})", "a file in a folder that you may write to"
        ) from error


def printable(text: str) -> str:
    """Text without control characters, so that a row of data can not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns set apart by two spaces; as wide as they are, so that nothing is cut when piped."""
    print(plain_table(columns, rows))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = [list(columns), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return "\n".join(line.rstrip() for line in lines)


def show_error(error: TunesmithError, as_json: bool) -> None:
    """One screen on standard error: a panel on a terminal, plain text when piped, or JSON."""
    if as_json:
        kind = type(error).__name__
        fields = {"type": kind, "got": error.got, "expected": error.expected, "fix": error.fix}
        print(json.dumps({"error": fields}, ensure_ascii=False), file=sys.stderr)
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.panel import Panel
        from rich.text import Text

        panel = Panel(
            Text(printable(str(error))), title=type(error).__name__, title_align="left", border_style="red"
        )
        Console(stderr=True).print(panel)
    else:
        print(f"error: {printable(str(error))}", file=sys.stderr)
