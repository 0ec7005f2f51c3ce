"""Every row read is used, or dropped for a reason that is written down. Counts are exact, per file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.data.sources import UnreadableRow
from tunesmith.errors import DataError, RowError
from tunesmith.types import RowRef

MAX_BAD_SHARE = 0.05
MIN_ROWS = 20  # with fewer rows read, a file is refused only when every row is bad
RAW_BYTES = 2048


@dataclass
class FileCount:
    """read = used + dropped. bad: those of the dropped rows that are themselves at fault."""

    read: int = 0
    used: int = 0
    bad: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    first: dict[str, RowError] = field(default_factory=dict)  # the first bad row of each reason

    def as_json(self) -> dict[str, Any]:
        return {"read": self.read, "used": self.used, "dropped": dict(self.dropped.most_common())}


class Account:
    """Counts rows through reading, splitting and tokenising; lists the dropped ones in `dropped.jsonl`.

    A row is `read`, then `use`d or `drop`ped; a used row may later be `withdraw`n (too long, also in test …). A
    row that a weight repeats counts once.
    """

    def __init__(self, on_bad_row: Literal["skip", "stop"] = "skip", folder: Path | None = None) -> None:
        self.on_bad_row = on_bad_row
        self.files: dict[str, FileCount] = {}
        self.notes: Counter[str] = Counter()  # what was done to rows that were kept: prompt_cut, answer_cut …
        self._copies: Counter[RowRef] = Counter()
        self._joined: dict[RowRef, tuple[RowRef, ...]] = {}
        self.path = folder / "dropped.jsonl" if folder is not None else None
        self._pending: list[str] = []
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def read(self, file: str) -> None:
        if file not in self.files:
            self.files[file] = FileCount()
        self.files[file].read += 1

    def use(self, file: str) -> None:
        self.files[file].used += 1

    def drop(self, error: RowError, raw: Mapping[str, Any] | None = None) -> None:
        """A row just read cannot be used. Raises DataError with on_bad_row = stop."""
        self._dropped(error, raw, bad=True)

    def repeat(self, ref: RowRef, times: int) -> None:
        """A row in use stands so many times more. It is still one row read and used; `notes` count the copies."""
        self._copies[ref] += times
        self.notes["repeated"] += times

    def join(self, ref: RowRef, others: Sequence[RowRef]) -> None:
        """Rows that have become one with the row `ref`: they stay in use as long as it does. `notes` count them."""
        self._joined[ref] = tuple(others)
        self.notes["joined"] += len(others)

    def withdraw(self, ref: RowRef, reason: str, message: str, *, bad: bool = False) -> None:
        """A row that was in use is taken out. bad: the row itself is at fault, so `on_bad_row` applies.

        Of a row that is repeated this takes out one copy; the row itself goes with the last, and with it those that
        were joined to it.
        """
        if self._copies[ref]:
            self._copies[ref] -= 1
            self.notes["repeated"] -= 1
            return
        self.files[ref.file].used -= 1
        self._dropped(RowError(reason, message, file=ref.file, line=ref.line), None, bad=bad)
        for other in self._joined.pop(ref, ()):
            self.notes["joined"] -= 1
            self.withdraw(other, reason, message, bad=bad)

    def _dropped(self, error: RowError, raw: Mapping[str, Any] | None, *, bad: bool) -> None:
        count = self.files[error.file]
        count.dropped[error.reason] += 1
        self._write(error, raw)
        if bad:
            count.bad += 1
            count.first.setdefault(error.reason, error)
            if self.on_bad_row == "stop":
                self.flush()
                fix = "correct the row, or set data.on_bad_row=skip"
                raise DataError(error.got, fix=f"{error.fix}; or {fix}" if error.fix else fix)

    def _write(self, error: RowError, raw: Mapping[str, Any] | None) -> None:
        if self.path is None:
            return
        text = error.raw if isinstance(error, UnreadableRow) else "" if raw is None else _raw(raw)
        where = {"file": error.file, "line": error.line}
        what = {"reason": error.reason, "message": error.got, "row": text}
        self._pending.append(json.dumps(where | what, ensure_ascii=False) + "\n")
        if len(self._pending) >= 1000:
            self.flush()

    def check(self, file: str) -> None:
        """After a stage is done with a file: raises DataError when too many of its rows are bad."""
        self.flush()
        count = self.files.get(file, FileCount())
        limit = MAX_BAD_SHARE * count.read if count.read >= MIN_ROWS else count.read - 1
        if count.bad > limit:
            reasons = [reason for reason, _ in count.dropped.most_common() if reason in count.first]
            top = ", ".join(f"{count.dropped[reason]:,} x {reason}" for reason in reasons[:5])
            first = count.first[reasons[0]]
            listed = f"; all are listed in {self.path}" if self.path else ""
            raise DataError(
                f"{file}: {count.bad:,} of {count.read:,} rows cannot be used: {top}; first: {first.got}",
                f"at most {MAX_BAD_SHARE:.0%} bad rows",
                (first.fix or "correct these rows, or leave them out") + listed,
            )

    def flush(self) -> None:
        """Writes what is still held to `dropped.jsonl`."""
        if self.path is not None and self._pending:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.writelines(self._pending)
            self._pending.clear()

    def summary(self) -> dict[str, Any]:
        """JSON-able: {files: {name: {read, used, dropped: {reason: n}}}, read, used, dropped, notes}."""
        self.flush()
        total = FileCount()
        for name, count in self.files.items():
            gone = count.dropped.total()
            if count.read != count.used + gone:
                raise AssertionError(f"{name}: {count.read} rows read, but {count.used} used, {gone} dropped")
            total.read += count.read
            total.used += count.used
            total.dropped += count.dropped
        files = {name: count.as_json() for name, count in self.files.items()}
        return {"files": files, **total.as_json(), "notes": dict(self.notes)}


def _raw(row: Mapping[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False, default=str)
    return text.encode("utf-8", errors="replace")[:RAW_BYTES].decode("utf-8", errors="ignore")
