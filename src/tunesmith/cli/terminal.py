"""One key at a time from a terminal, and a screen that is written anew for each."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tunesmith.cli.output import printable
from tunesmith.errors import ConfigError

CLEAR = "\x1b[2J\x1b[H"
ESCAPE = "\x1b"


def required() -> None:
    """Raises ConfigError where no person sits at a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("there is no terminal here", "a terminal, whose keys are read", "run it by hand")


@contextmanager
def keys() -> Iterator[Callable[[], str]]:
    """What waits for the next key: a character, or `q` where the terminal is closed. Its settings are put back."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield lambda: _key(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _key(descriptor: int) -> str:
    """A sequence of an arrow or function key comes at once, and means nothing here: an empty text."""
    first = os.read(descriptor, 1)
    if not first:
        return "q"
    length = 1 + (first[0] >= 0xC0) + (first[0] >= 0xE0) + (first[0] >= 0xF0)  # of a character in UTF-8
    while len(first) < length:
        first += os.read(descriptor, length - len(first))
    key = first.decode("utf-8", "replace")
    if key == ESCAPE and _waits(descriptor):
        _rest_of_sequence(descriptor)
        return ""
    return key


def _rest_of_sequence(descriptor: int) -> None:
    """Reads what follows an escape: one byte, or of `[` and `O` all up to a letter or `~` (ECMA-48, 5.4)."""
    byte = os.read(descriptor, 1)
    if byte in (b"[", b"O"):
        byte = os.read(descriptor, 1)
        while byte and not 0x40 <= byte[0] <= 0x7E:
            byte = os.read(descriptor, 1)


def _waits(descriptor: int) -> bool:
    import select

    return bool(select.select([descriptor], [], [], 0.02)[0])


def show(lines: Sequence[str]) -> None:
    print(CLEAR + "\n".join(printable(line) for line in lines), flush=True)
