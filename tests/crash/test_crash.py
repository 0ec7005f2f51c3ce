"""Rows 18 and 23: a run that dies anywhere ends as the run that did not. `make crash` does more of the same."""

from __future__ import annotations

import pytest

from tests.crash import harness


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    return folder, *harness.reference(folder)


def test_two_uninterrupted_runs_are_bit_identical(finished, tmp_path):
    _, expected, _ = finished
    assert harness.reference(tmp_path)[0] == expected


def test_random_kills_end_bit_identical(finished, tmp_path):
    _, expected, seconds = finished
    assert harness.random_kills(tmp_path, expected, seconds, runs=5, seed=0)["identical"] == 5


def test_every_crash_point_of_the_first_checkpoint_ends_bit_identical(finished, tmp_path):
    _, expected, _ = finished
    found = harness.crash_points(tmp_path, expected, last=7)
    assert found["identical"] == found["points"] == 21


def test_every_corruption_is_detected_and_named(finished):
    folder, _, _ = finished
    assert harness.corruptions(folder, 500, seed=0) == {"corruptions": 500, "detected": 500}
