"""The events of a run folder: one strict JSON object a line, whatever the numbers are."""

from __future__ import annotations

import json
import math

from tunesmith.train.folder import RunFolder


def refuse(name):
    raise AssertionError(f"{name} is not JSON")


def test_a_number_that_is_not_finite_is_strict_json_and_comes_back(tmp_path):
    folder = RunFolder(tmp_path)
    metrics = {"loss": math.nan, "accuracy": 0.5, "ratios": [math.inf, (1.0, -math.inf)]}
    folder.emit("evaluation", step=1, metrics=metrics)
    folder.emit("evaluation", step=2, metrics={"loss": 1.5, "accuracy": math.inf})
    lines = [json.loads(line, parse_constant=refuse) for line in folder.events.read_text().splitlines()]
    assert lines[0]["metrics"] == {"loss": "NaN", "accuracy": 0.5, "ratios": ["Infinity", [1.0, "-Infinity"]]}
    first, second = folder.curve("evaluation")
    assert math.isnan(first["metrics"]["loss"])
    assert second["metrics"] == {"loss": 1.5, "accuracy": math.inf}


def test_a_text_stays_a_text(tmp_path):
    folder = RunFolder(tmp_path)
    folder.emit("note", text="NaN")
    assert folder.read_events("note")[0]["text"] == "NaN"


def test_an_event_that_a_crash_cut_off_takes_no_other_with_it(tmp_path):
    folder = RunFolder(tmp_path)
    folder.emit("step", step=1)
    with folder.events.open("a") as file:
        file.write('{"kind": "step", "st')
    folder.emit("step", step=2)
    folder.emit("step", step=3)
    assert [event["step"] for event in folder.read_events("step")] == [1, 2, 3]
