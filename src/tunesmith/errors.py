"""One exception tree; every error says what was got, what was expected and what to do.

TunesmithError
├── ConfigError        a recipe or an override that cannot be carried out
├── DataError          rows or files that cannot be used
│   └── RowError       one row; carries file, line and field
├── ModelError         a model that cannot be loaded, trained or saved as asked
├── RunError           a run folder in the wrong state (locked, incomplete, other configuration)
│   └── CheckpointError    a checkpoint that fails its manifest
├── NonFiniteError     a loss or gradient that is not a number; names the rows
└── ResourceError      too little memory or disk; says how much is needed

Exit codes of the command line: 2 for ConfigError, 3 DataError, 4 ModelError, 5 RunError,
6 NonFiniteError, 7 ResourceError; 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TunesmithError(Exception):
    """An error a person can act on.

    got: what was found; expected: what would have been right; fix: what to do now.
    """

    exit_code = 1

    def __init__(self, got: str, expected: str = "", fix: str = "") -> None:
        self.got, self.expected, self.fix = got, expected, fix
        super().__init__(got)

    def __str__(self) -> str:
        lines = [self.got]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.fix:
            lines.append(f"  to fix:   {self.fix}")
        return "\n".join(lines)


class ConfigError(TunesmithError):
    exit_code = 2


class DataError(TunesmithError):
    exit_code = 3


class RowError(DataError):
    """One row that cannot be used. `reason` is a short stable key that rows are counted under."""

    def __init__(
        self, reason: str, got: str, *, file: str = "", line: int = 0, field: str = "", fix: str = ""
    ) -> None:
        self.reason, self.file, self.line, self.field = reason, file, line, field
        where = f"{file}:{line}: " if file else ""
        about = f"field '{field}': " if field else ""
        super().__init__(f"{where}{about}{got}", "", fix)


class ModelError(TunesmithError):
    exit_code = 4


class RunError(TunesmithError):
    exit_code = 5


class CheckpointError(RunError):
    """A checkpoint that is not whole: a file missing, or bytes that differ from the manifest."""


class NonFiniteError(TunesmithError):
    exit_code = 6


class ResourceError(TunesmithError):
    exit_code = 7


class Interrupted(TunesmithError):
    """The run was asked to stop (a signal or a time limit) and has saved itself."""

    def __init__(self, got: str, fix: str, exit_code: int) -> None:
        super().__init__(got, "", fix)
        self.exit_code = exit_code


SHOWN = 200
"""Characters of a text that an error shows."""


def clipped(text: str) -> str:
    """One line of it, for errors."""
    line = " ".join(text.split())
    return f"'{line[:SHOWN]}…'" if len(line) > SHOWN else f"'{line}'"


def near_miss(name: str, known: Iterable[str]) -> str:
    """'did you mean …' for the nearest known name, or the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else "known: " + ", ".join(known)
