"""Rows 18 and 23: a run that dies anywhere ends as the run that did not. `make crash` does more of the same."""

from __future__ import annotations

import functools

import pytest

from tests.crash import harness


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(method) -> folder, fingerprint and seconds of a run that nothing killed. Others of the method go beside it, so
    that they have the same files as it."""

    @functools.cache
    def run(method):
        folder = tmp_path_factory.mktemp(method) / "whole"
        return folder, *harness.whole(folder, method)

    return run


@pytest.mark.parametrize("method", ["sft", "preference"])
def test_two_uninterrupted_runs_are_bit_identical(method, finished):
    folder, expected, _ = finished(method)
    assert harness.whole(folder.with_name("again"), method)[0] == expected


@pytest.mark.parametrize("method, runs", [("sft", 5), ("preference", 3), ("ppo", 1), ("grpo", 1)])
def test_random_kills_end_bit_identical(method, runs, finished):
    folder, expected, seconds = finished(method)
    assert harness.random_kills(folder.parent, method, expected, seconds, runs, seed=0)["identical"] == runs


def test_every_crash_point_of_the_first_checkpoint_ends_bit_identical(finished):
    folder, expected, _ = finished("sft")
    found = harness.crash_points(folder.parent, "sft", expected, last=7)
    assert found["identical"] == found["points"] == 21


def test_every_crash_point_while_the_reference_is_written_ends_bit_identical(finished):
    """The two operations that write it; a file that is half there is not taken for the reference."""
    folder, expected, _ = finished("preference")
    found = harness.crash_points(folder.parent, "preference", expected, last=2)
    assert found["identical"] == found["points"] == 6


def test_every_corruption_is_detected_and_named(finished):
    folder, _, _ = finished("sft")
    assert harness.corruptions(folder, 500, seed=0) == {"corruptions": 500, "detected": 500}
