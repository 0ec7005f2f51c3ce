"""A file of inputs in, a file of answers out: batched, streamed, every row accounted for."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tunesmith.data.columns import Mapping
from tunesmith.data.inputs import input_mapping, scored_mapping, to_prompt, to_scored
from tunesmith.data.readers import head_of, read_rows
from tunesmith.errors import DataError, RowError
from tunesmith.types import EventSink, Example, RowRef
from tunesmith.workflow.open import Opened, load, unanswered

MAX_NEW_TOKENS = 256
BATCH_SIZE = 32


def predict(
    model: str,
    source: Path,
    target: Path | None,
    *,
    batch_size: int | None = None,
    max_new_tokens: int | None = None,
    column: str | None = None,
    device: str = "auto",
    sink: EventSink,
) -> None:
    """Write {"line", "answer", "ended"} for each row of `source`, or {"line", "error"} for one that cannot be used.

    Of a reward model {"line", "scores"}, one for each of the row's answers; of a model of steps {"line", "steps",
    "score"}, the last of the answer.

    column: the column of the input; else the columns are read as those of the training rows were. The target is
    written aside and renamed, so that a file with its name is whole. device: as `model.device`.
    """
    opened = load(model, device=device)
    sink("note", text=opened.renderer.describe())
    done = bad = 0
    with _output(target) as out:
        for line, record in _answers(opened, source, column, batch_size or BATCH_SIZE, max_new_tokens):
            out.write(json.dumps({"line": line, **record}, ensure_ascii=False) + "\n")
            done += 1
            bad += "error" in record
            sink("progress", name="predict", done=done, total=None)
        out.flush()
    sink("done", text=f"{done:,} rows read = {done - bad:,} answered + {bad:,} not usable (see 'error')")


@contextmanager
def _output(target: Path | None) -> Iterator[TextIO]:
    if target is None:
        yield sys.stdout
        return
    aside = target.with_name(f".{target.name}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            yield file
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _answers(
    opened: Opened, source: Path, column: str | None, batch_size: int, max_new_tokens: int | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, answer or error) in the order of the file, a batch of rows at a time."""
    answerer = opened.answerer(max_new_tokens or MAX_NEW_TOKENS, batch_size)
    rows = iter(read_rows(source))
    head = head_of(rows)
    readable = [row for _, row in head if not isinstance(row, RowError)]
    if not readable:
        raise DataError(
            f"none of the first {len(head)} rows of {source} can be read", "a row with an input column"
        )
    if opened.rewards:
        mapping = scored_mapping(readable, opened.trained_on, str(source))
    else:
        mapping = input_mapping(readable, opened.trained_on, str(source), column)
    rows = itertools.chain(head, rows)
    while chunk := list(itertools.islice(rows, batch_size)):
        usable: list[Example] = []
        records: dict[int, dict[str, Any]] = {}
        for line, row in chunk:
            if isinstance(row, RowError):
                records[line] = {"error": str(row)}
                continue
            try:
                usable.append(_example(opened, mapping, row, RowRef(str(source), line)))
            except RowError as error:
                records[line] = {"error": str(error)}
        if usable:
            found = answerer.answer(usable)
            for index, example in enumerate(usable):
                records[example.ref.line] = opened.record(found, index)
        for line, _ in chunk:
            yield line, records[line]


def _example(opened: Opened, mapping: Mapping, row: dict[str, Any], ref: RowRef) -> Example:
    """What a row asks; of a reward model a row whose answers are known to fit its encoder. Raises RowError."""
    if not opened.rewards:
        return unanswered(to_prompt(mapping, row, ref, opened.instruction))
    example = to_scored(mapping, row, ref)
    opened.token_rows([example])
    return example
