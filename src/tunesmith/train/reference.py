"""Reference log-probabilities: what the model as the run starts says of every completion, computed once.

The model is the one that training begins with, so that a run on top of an adapter is held against that adapter. They
are computed before the first step, and kept in the run's folder: a resumed run has them from there, and the proof has
those of the test rows after the weights have moved.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunesmith import storage
from tunesmith.core.model import Model
from tunesmith.errors import RunError
from tunesmith.generate.batched import completion_sums
from tunesmith.objectives.completions import REFERENCE
from tunesmith.types import EventSink, TokenRow

FILE = "reference.npz"

Split = Mapping[str, Sequence[TokenRow]]


def with_reference(
    rows: Split, model: Model, folder: Path, budget: int, sink: EventSink
) -> dict[str, list[TokenRow]]:
    """The rows of each split with their reference, which `model`, before its first step, computes where the folder has
    none yet. budget: tokens at once."""
    path = folder / FILE
    if not path.exists():
        started = time.monotonic()
        found = {name: _sums(name, split, model, budget, sink) for name, split in rows.items()}
        _write(path, found)
        count, seconds = sum(len(sums) for sums in found.values()), time.monotonic() - started
        sink("reference", answers=count, seconds=seconds)
        sink(
            "note",
            text=f"the reference: log-probabilities of {count:,} answers under the model as it starts "
            f"({seconds:.0f} s)",
        )
    return {
        name: _given(split, sums, path)
        for (name, split), sums in zip(rows.items(), _read(path, rows), strict=True)
    }


def zero_reference(rows: Sequence[TokenRow]) -> list[TokenRow]:
    """For a trial step, whose loss nobody reads."""
    return [replace(row, given={**row.given, REFERENCE: np.zeros_like(row.given["scores"])}) for row in rows]


def _sums(
    name: str, rows: Sequence[TokenRow], model: Model, budget: int, sink: EventSink
) -> NDArray[np.float64]:
    def progress(done: int, total: int) -> None:
        sink("progress", name=f"reference of {name} rows", done=done, total=total)

    found = completion_sums(model, rows, budget, progress)
    return np.concatenate(found) if found else np.zeros(0)


def _write(path: Path, arrays: Mapping[str, NDArray[np.float64]]) -> None:
    data = BytesIO()
    np.savez(data, **arrays)  # type: ignore[arg-type]
    storage.write_whole(path, data.getvalue())


def _read(path: Path, rows: Split) -> list[NDArray[np.float64]]:
    with np.load(path, allow_pickle=False) as data:
        return [data[name] for name in rows]


def _given(rows: Sequence[TokenRow], sums: NDArray[np.float64], path: Path) -> list[TokenRow]:
    counts = [len(row.given["scores"]) for row in rows]
    if sum(counts) != len(sums):
        raise RunError(
            f"{path} is of {len(sums):,} answers, but the rows have {sum(counts):,}",
            "the rows that the run began with",
            "start the run anew with --force",
        )
    pieces = np.split(sums, np.cumsum(counts)[:-1]) if counts else []
    return [
        replace(row, given={**row.given, REFERENCE: piece}) for row, piece in zip(rows, pieces, strict=True)
    ]
