"""Checkpoints: what is kept, what is best, what a full disk does."""

from __future__ import annotations

import errno
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith import storage
from tunesmith.errors import CheckpointError, ResourceError
from tunesmith.train.checkpoint import Checkpoints, Snapshot, is_better, retained

SNAPSHOT = Snapshot({"weights": {"w": torch.arange(6.0)}, "optimizer": {"m": torch.ones(2)}}, {"step": 1})


def test_what_is_saved_is_what_is_loaded(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    path = checkpoints.save(200, SNAPSHOT, best=None)
    assert path.name == "step-000200"
    assert sorted(p.name for p in path.iterdir()) == [
        "manifest.json",
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    loaded = checkpoints.load(200)
    assert torch.equal(loaded.groups["weights"]["w"], torch.arange(6.0))
    assert loaded.state == {"step": 1}


def test_tensors_of_any_shape_come_back_with_their_bits(tmp_path):
    tensors = {"none": torch.tensor(2.5), "empty": torch.zeros(0, 3), "double": torch.rand(3, 5).double()}
    tensors |= {"single": torch.rand(2, 3, 4), "nan": torch.tensor([math.nan, -math.inf])}
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, Snapshot({"weights": tensors}, {}), best=None)
    loaded = checkpoints.load(1).groups["weights"]
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name].nan_to_num(7), tensor.nan_to_num(7)), name


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(st.one_of(st.floats(-2, 2), st.just(math.nan), st.sampled_from([0.0, 1.0])), max_size=40),
    st.booleans(),
    st.integers(1, 4),
    st.integers(0, 39),
)
def test_row_23_the_best_is_the_arg_best_and_is_never_deleted(values, higher, keep, resume_at):
    """Random metric sequences with NaN and ties, resumed once, against a model written here."""
    best_step: int | None = None
    best_value: float | None = None
    on_disk: set[int] = set()
    step = 0
    while step < len(values):
        if step == resume_at:  # a resume reads the best from the state; nothing else is remembered
            best_step, best_value = json.loads(json.dumps([best_step, best_value]))
            resume_at = -1
        value = values[step]
        if is_better(value, best_value, higher):
            best_step, best_value = step, value
        on_disk = retained({*on_disk, step}, best_step, keep)
        finite = [(v if higher else -v, -i) for i, v in enumerate(values[: step + 1]) if math.isfinite(v)]
        expected = -max(finite)[1] if finite else None
        assert best_step == expected
        assert expected is None or expected in on_disk
        assert on_disk >= set(range(max(0, step + 1 - keep), step + 1))
        assert len(on_disk) <= keep + 1
        step += 1


def test_min_delta_is_what_an_improvement_must_exceed():
    assert is_better(0.89, 1.0, higher=False, min_delta=0.1)
    assert not is_better(0.91, 1.0, higher=False, min_delta=0.1)
    assert not is_better(1.0, 1.0, higher=True)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, SNAPSHOT, best=None)
    file = checkpoints.path(3) / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    step, _, problems = checkpoints.load_latest()
    assert step == 2
    assert "step-000003/optimizer.safetensors is damaged" in problems[0]
    for other in (1, 2):
        (checkpoints.path(other) / "state.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint of this run is whole"):
        checkpoints.load_latest()


@pytest.mark.parametrize("operation", ["need_space", "write_parts"])
def test_a_full_disk_says_how_much_is_needed_and_leaves_the_last_checkpoint(tmp_path, operation, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, SNAPSHOT, best=None)

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    if operation == "write_parts":
        monkeypatch.setattr(storage, "write_parts", full)
    else:
        usage = storage.shutil.disk_usage(tmp_path)._replace(free=10)
        monkeypatch.setattr(storage.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ResourceError, match=r"MB for the next checkpoint"):
        checkpoints.save(2, SNAPSHOT, best=None)
    monkeypatch.undo()
    assert checkpoints.load_latest()[0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]
    assert checkpoints.save(2, SNAPSHOT, best=None).exists()


def test_nothing_is_written_but_safetensors_and_json(tmp_path):
    path = Checkpoints(tmp_path, keep=2).save(1, SNAPSHOT, best=None)
    for file in path.iterdir():
        data = file.read_bytes()
        assert file.suffix in (".json", ".safetensors")
        assert not data.startswith((b"\x80", b"PK"))
