"""Rows of classes as pairs: what pairs cannot say is refused."""

from __future__ import annotations

import pytest

from tunesmith.data.account import Account
from tunesmith.data.class_pairs import class_pairs
from tunesmith.errors import DataError
from tunesmith.types import Example, Message, RowRef


def test_a_weight_of_a_row_is_refused() -> None:
    turns = (Message("user", "T"), Message("assistant", "x", 2.0))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: a weight of the row"):
        class_pairs([Example(RowRef("rows.jsonl", 1), turns, label="x")], 0, Account())
