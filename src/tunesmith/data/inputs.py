"""Rows to be answered: what their columns mean, as of training rows, but without answers. And rows whose answers are
to be scored: with answers, but without what people said of them (`scored_mapping`, `to_scored`)."""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from typing import Any

from tunesmith.config.run import DataConfig
from tunesmith.data.columns import SHAPES, SYNONYMS, TAGGED_WORDS, Mapping, Shape, columns_of
from tunesmith.data.detect import detect_input, detect_scored
from tunesmith.data.formats import to_prompt
from tunesmith.data.judgements import to_scored as answers_to_scored
from tunesmith.data.steps import to_unlabelled
from tunesmith.errors import DataError
from tunesmith.types import Example, RowRef

__all__ = ["input_mapping", "scored_mapping", "to_prompt", "to_scored"]


def input_mapping(
    rows: Sequence[AbstractMapping[str, Any]], trained: DataConfig, file: str, column: str | None = None
) -> Mapping:
    """The mapping for rows like these, as the rows were read that the model was trained on.

    trained: format and columns of the training rows. column: the one that holds the input, in place of those
    of `trained`; a system or tools column is still read. Raises DataError where there is no input, or more
    than one.
    """
    config = trained if column is None else _with_column(rows, trained, column)
    try:
        return detect_input(rows, config, file)
    except DataError as error:
        raise DataError(error.got, error.expected, "name the column of the input: --column NAME") from None


def scored_mapping(rows: Sequence[AbstractMapping[str, Any]], trained: DataConfig, file: str) -> Mapping:
    """The mapping for rows whose answers a reward model is to score; `to_scored` makes an Example of each, with every
    completion at score 0. Raises DataError where there is no answer, or no one way to find it."""
    return detect_scored(rows, trained, file)


def to_scored(mapping: Mapping, row: AbstractMapping[str, Any], ref: RowRef) -> Example:
    """A row whose answers, or whose answer's steps, are to be scored. Raises RowError."""
    make = to_unlabelled if mapping.kind == "stepwise" else answers_to_scored
    return make(mapping, row, ref)


def _with_column(rows: Sequence[AbstractMapping[str, Any]], trained: DataConfig, column: str) -> DataConfig:
    shape = _shape_of(rows, trained, column)
    seen = columns_of(rows)
    also = [part for part in shape.optional if part != "input"]
    kept = {part: name for part, name in trained.columns.items() if part in also and name in seen}
    return trained.model_copy(update={"format": shape.kind, "columns": {**kept, shape.asked[0]: column}})


def _shape_of(rows: Sequence[AbstractMapping[str, Any]], trained: DataConfig, column: str) -> Shape:
    """Of the rows, when this column is their input: its first value shows whether it is a conversation, or words."""
    shapes = {shape.kind: shape for shape in SHAPES}
    first = next((row[column] for row in rows if row.get(column) is not None), None)
    if isinstance(first, list):
        if trained.format == "tags":
            return TAGGED_WORDS
        return shapes["prompt" if trained.format == "prompt" else "messages"]
    holds_messages = trained.format == "messages" or column.strip().lower() in SYNONYMS["messages"]
    if holds_messages and isinstance(first, str) and first.lstrip().startswith("["):
        return shapes["messages"]
    return shapes["prompt" if trained.format in ("auto", "messages", "prompt") else "label"]
