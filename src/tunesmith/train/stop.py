"""Reasons to stop between two steps: SIGTERM, Ctrl-C, a time limit."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType


class Stop:
    """`stop()` gives the reason to stop, or "". A second Ctrl-C interrupts at once.

    Used as a context manager: the earlier signal handlers come back at its end. Outside the main thread, where
    Python delivers no signals, only the time limit stops.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self.reason = ""
        self.signal: int | None = None
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._max_minutes = max_minutes
        self._earlier: dict[int, object] = {}

    def __call__(self) -> str:
        if not self.reason and self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = f"the time limit of {self._max_minutes:g} minutes"
        return self.reason

    def __enter__(self) -> Stop:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGTERM, signal.SIGINT):
            self._earlier[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        self.reason = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
