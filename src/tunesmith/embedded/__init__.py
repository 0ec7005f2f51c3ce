"""What is shipped with the package: a base model, sample tickets and replies, and a sample of general text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_HERE = Path(__file__).parent

BASE_MODEL = "tunesmith/base-8m"
"""The name under which recipes ask for the embedded model."""


def base_model_path() -> Path:
    """Folder of the embedded model, in the layout of the Hugging Face hub."""
    return _HERE / "base-8m"


def tickets(split: Literal["train", "validation", "test"]) -> Path:
    """Sample support tickets, one JSON object a line; the folder's README says what a row holds."""
    return _HERE / "tickets" / f"{split}.jsonl"


def replies() -> Path:
    """Sample support replies, a chosen and a rejected one a line; the folder's README says how they differ."""
    return _HERE / "replies" / "pairs.jsonl"


def general_text() -> Path:
    """General text whose perplexity shows what tuning made the model forget."""
    return _HERE / "general.txt"
