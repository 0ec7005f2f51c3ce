"""What ships inside the package: a small pre-trained model, sample tickets, a general text."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def base_model_path() -> Path:
    """The folder of `tunesmith/base-8m`."""
    return FOLDER / "base-8m"


def tickets(split: str) -> Path:
    """The sample tickets: `train`, `validation` or `test`."""
    return FOLDER / "tickets" / f"{split}.jsonl"


def general_text() -> Path:
    """Plain text of our own writing, for measuring what a model forgets."""
    return FOLDER / "general.txt"
