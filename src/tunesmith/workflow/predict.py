"""A file of inputs in, a file of answers out: batched, streamed, every row accounted for."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

from tunesmith.data.columns import Mapping
from tunesmith.data.inputs import input_mapping, scored_mapping, to_prompt, to_scored
from tunesmith.data.readers import head_of, read_rows
from tunesmith.data.traffic import TrafficLog
from tunesmith.errors import ConfigError, DataError, RowError
from tunesmith.types import EventSink, Example, RowRef
from tunesmith.workflow.open import Opened, load, unanswered

MAX_NEW_TOKENS = 256
BATCH_SIZE = 32

Answered = tuple[int, Example | None, dict[str, Any]]
"""A row's line, what was asked, and the answer; nothing asked, and an error, of a row that cannot be used."""


def predict(
    model: str,
    source: Path,
    target: Path | None,
    *,
    batch_size: int | None = None,
    max_new_tokens: int | None = None,
    column: str | None = None,
    device: str = "auto",
    log: Path | None = None,
    sink: EventSink,
) -> None:
    """Write {"line", "answer", "ended"} for each row of `source`, or {"line", "error"} for one that cannot be used.

    Of a reward model {"line", "scores"}, one for each of the row's answers; of a model of steps {"line", "steps",
    "score"}, the last of the answer.

    column: the column of the input; else the columns are read as those of the training rows were. The target is
    written aside and renamed, so that a file with its name is whole. device: as `model.device`. log: a file to which
    each row and its answer are added, batch by batch, as rows to be read again (`data.traffic`).
    """
    opened = load(model, device=device)
    if log is not None:
        _check_log(opened, log, source, target)
    sink("note", text=opened.renderer.describe())
    limit = max_new_tokens or MAX_NEW_TOKENS
    done = bad = 0
    with _output(target) as out, TrafficLog(log) if log else nullcontext() as traffic:
        for chunk in _answers(opened, source, column, batch_size or BATCH_SIZE, limit):
            if traffic is not None:
                traffic.add(opened.logged(model, row, record, limit) for _, row, record in chunk if row)
            for line, _, record in chunk:
                out.write(json.dumps({"line": line, **record}, ensure_ascii=False) + "\n")
                done += 1
                bad += "error" in record
                sink("progress", name="predict", done=done, total=None)
        out.flush()
    added = f"; answers added to {log}" if log else ""
    text = f"{done:,} rows read = {done - bad:,} answered + {bad:,} not usable (see 'error'){added}"
    sink("done", text=text)


def _check_log(opened: Opened, log: Path, source: Path, target: Path | None) -> None:
    """Raises ConfigError where there is nothing to be logged, or the log would be read or written as another file."""
    if opened.rewards or opened.embeds:
        what = "scores answers" if opened.rewards else "embeds texts"
        got = f"--log with a model that {what}"
        raise ConfigError(
            got, "a model whose answers can be rows: one that writes, or says classes, numbers, spans"
        )
    if log.resolve() in {path.resolve() for path in (source, target) if path is not None}:
        raise ConfigError(f"{log} is the log and the rows or the answers as well", "a file of its own")


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
    opened: Opened, source: Path, column: str | None, batch_size: int, max_new_tokens: int
) -> Iterator[list[Answered]]:
    """In the order of the file, a batch of rows at a time."""
    answerer = opened.answerer(max_new_tokens, batch_size)
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
        asked = {example.ref.line: example for example in usable}
        yield [(line, asked.get(line), records[line]) for line, _ in chunk]


def _example(opened: Opened, mapping: Mapping, row: dict[str, Any], ref: RowRef) -> Example:
    """What a row asks; of a reward model a row whose answers are known to fit its encoder. Raises RowError."""
    if not opened.rewards:
        return unanswered(to_prompt(mapping, row, ref, opened.instruction))
    example = to_scored(mapping, row, ref)
    opened.token_rows([example])
    return example
