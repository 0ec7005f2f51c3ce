"""What an audit of rows for bias can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesmith.config.desk import DeskData
from tunesmith.config.section import Positive, Section


class Audit(Section):
    """Which rows, which groups of people, and by which model answers are compared."""

    output: str | None = None
    """Folder of the report (audit.json, audit.md). Null: none is written."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of everything that is drawn."""

    data: DeskData = DeskData()
    """Where the rows come from."""

    groups: list[str] = []
    """Columns that name a group of each row, beside the dimensions of word lists."""

    lists: str | None = None
    """A YAML file of word lists: dimension -> group -> words; beside those that come with the package."""

    model: str | None = None
    """A run or model with a class for each text: its answers are held against the labels by group, and against its
    answers to the same texts about other groups. Null: neither."""

    swaps: Positive = 200
    """Rows of each pair of groups whose words are changed for one another, a seeded choice."""

    toxic_words: str | None = None
    """A file of words, one a line: rows with one of them are counted by group. Null: none."""

    toxic_model: str | None = None
    """A run or model that classifies texts; those with the class `toxic_label` are counted by group. Null: none."""

    toxic_label: str = "toxic"
    """The class of `toxic_model` that counts."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of intervals; gaps between groups share what is left over among all of them (Bonferroni)."""

    bootstrap: Positive = 500
    """Resamples for the intervals of subgroup metrics."""
