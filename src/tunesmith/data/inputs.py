"""Rows to be answered: what their columns mean, as of training rows, but without answers."""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from typing import Any

from tunesmith.config.run import DataConfig
from tunesmith.data.columns import OPTIONAL, SYNONYMS, Kind, Mapping, columns_of, detect_input
from tunesmith.data.formats import to_prompt
from tunesmith.errors import DataError

__all__ = ["input_mapping", "to_prompt"]


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


def _with_column(rows: Sequence[AbstractMapping[str, Any]], trained: DataConfig, column: str) -> DataConfig:
    kind = _kind_of(rows, trained, column)
    part = {"messages": "messages", "prompt": "prompt", "label": "text"}[kind]
    seen = columns_of(rows)
    kept = {p: c for p, c in trained.columns.items() if p in OPTIONAL[kind] and p != "input" and c in seen}
    return DataConfig(format=kind, columns={**kept, part: column})


def _kind_of(rows: Sequence[AbstractMapping[str, Any]], trained: DataConfig, column: str) -> Kind:
    """Of the rows, when this column is their input: its first value shows whether it is a conversation."""
    first = next((row[column] for row in rows if row.get(column) is not None), None)
    if isinstance(first, list):
        return "prompt" if trained.format == "prompt" else "messages"
    holds_messages = trained.format == "messages" or column.strip().lower() in SYNONYMS["messages"]
    if holds_messages and isinstance(first, str) and first.lstrip().startswith("["):
        return "messages"
    return "label" if trained.format in ("label", "text") else "prompt"
