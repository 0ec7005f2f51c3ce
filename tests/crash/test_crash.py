"""Rows 18 and 23: a run that dies anywhere ends as the run that did not. `make crash` does more of the same."""

from __future__ import annotations

import functools

import pytest

from tests.crash import harness


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(method) -> folder, fingerprint and seconds of a run that nothing killed."""

    @functools.cache
    def run(method):
        folder = tmp_path_factory.mktemp(method)
        return folder, *harness.whole(folder, method)

    return run


@pytest.mark.parametrize("method", harness.METHODS)
def test_two_uninterrupted_runs_are_bit_identical(method, finished, tmp_path):
    _, expected, _ = finished(method)
    assert harness.whole(tmp_path, method)[0] == expected


@pytest.mark.parametrize("method, runs", [("sft", 5), ("preference", 3)])
def test_random_kills_end_bit_identical(method, runs, finished, tmp_path):
    _, expected, seconds = finished(method)
    assert harness.random_kills(tmp_path, method, expected, seconds, runs, seed=0)["identical"] == runs


def test_every_crash_point_of_the_first_checkpoint_ends_bit_identical(finished, tmp_path):
    _, expected, _ = finished("sft")
    found = harness.crash_points(tmp_path, "sft", expected, last=7)
    assert found["identical"] == found["points"] == 21


def test_every_crash_point_while_the_reference_is_written_ends_bit_identical(finished, tmp_path):
    """The two operations that write it; a file that is half there is not taken for the reference."""
    _, expected, _ = finished("preference")
    found = harness.crash_points(tmp_path, "preference", expected, last=2)
    assert found["identical"] == found["points"] == 6


def test_every_corruption_is_detected_and_named(finished):
    folder, _, _ = finished("sft")
    assert harness.corruptions(folder, 500, seed=0) == {"corruptions": 500, "detected": 500}
