"""Mistyped labels become the right one, classes that only look alike stay apart."""

from __future__ import annotations

import pytest

from tunesmith.desk.labels import mistyped


@pytest.mark.parametrize(
    "counts, table",
    [
        (
            {"billing": 90, "Billing": 5, "billing ": 2, "BILLING": 1},
            dict.fromkeys(("Billing", "billing ", "BILLING"), "billing"),
        ),
        ({"card_arrival": 30, "card arrival": 30}, {"card_arrival": "card arrival"}),
        (
            {"hardware": 50, "hardwae": 2, "hradware": 1, "hardwware": 1},
            dict.fromkeys(("hardwae", "hradware", "hardwware"), "hardware"),
        ),
        ({"hardware": 50, "hardwar3": 1}, {}),
        ({"tier1": 500, "tier2": 3}, {}),
        ({"refund": 50, "refuns": 6}, {}),
        ({"car": 500, "cat": 1}, {}),
        ({"hardware": 100, "Hardwae": 2, "hardwae": 1}, dict.fromkeys(("Hardwae", "hardwae"), "hardware")),
    ],
)
def test_which_label_is_meant(counts: dict[str, int], table: dict[str, str]) -> None:
    assert mistyped(counts) == table
