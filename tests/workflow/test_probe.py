"""Before step 1 a child process runs the largest micro-batch; one that does not fit is halved, and said."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests import fakes
from tests.workflow.conftest import settings
from tunesmith.cli import work
from tunesmith.config.run import Run
from tunesmith.errors import ConfigError, ResourceError
from tunesmith.train import probe, trial
from tunesmith.train.folder import RunFolder
from tunesmith.train.source import StaticSource
from tunesmith.types import TokenRow, silent

GB = 10**9


def needs(
    bytes_per_token: int, monkeypatch: pytest.MonkeyPatch, available: int, died: int | None = None
) -> None:
    """A child that takes so much for each token; `died`: what it ends with where that is over `available`."""

    def child(run: Run, rows: list[TokenRow], size: int, *_: Any) -> dict[str, float] | int:
        peak = size * bytes_per_token
        if died is not None and peak > available:
            return died
        return {"seconds_per_token": 1e-4, "peak_bytes": float(peak)}

    monkeypatch.setattr(probe, "_run_child", child)
    monkeypatch.setattr(probe.devices, "free_memory", lambda device: available)


@pytest.mark.parametrize("died", [None, -signal.SIGKILL, -signal.SIGABRT, 1])
def test_a_micro_batch_that_does_not_fit_is_halved_until_it_does(died, monkeypatch):
    needs(1_000_000, monkeypatch, 1_200_000_000, died)
    found = probe.probe(Run(), fakes.rows(10))
    assert found.tried == (2048, 1024)
    assert found.micro_batch_tokens == 1024
    assert found.peak_bytes == 1_024_000_000
    assert found.available_bytes == 1_200_000_000


def test_a_tenth_of_the_memory_is_left_free(monkeypatch):
    needs(1000, monkeypatch, 1000 * 2048 * 10 // 9 - 1000)
    assert probe.probe(Run(), fakes.rows(10)).tried == (2048, 1024)


def where_layers_keep(monkeypatch: pytest.MonkeyPatch, bytes_per_token: int, saved: int) -> None:
    """A child that takes so much for each token, or `saved` with activation checkpointing; 1 GB is free."""

    def child(run: Run, rows: list[TokenRow], size: int, *_: Any) -> dict[str, float]:
        needed = size * (saved if run.train.activation_checkpointing else bytes_per_token)
        return {"seconds_per_token": 1e-4, "peak_bytes": float(needed)}

    monkeypatch.setattr(probe, "_run_child", child)
    monkeypatch.setattr(probe.devices, "free_memory", lambda device: GB)


def test_where_one_row_alone_does_not_fit_its_layers_run_again(monkeypatch):
    rows = fakes.rows(10)
    longest = max(r.num_tokens for r in rows)
    where_layers_keep(monkeypatch, 100_000_000, 1_000_000)
    found = probe.probe(Run(), rows)
    assert found.activation_checkpointing
    assert found.tried[-2:] == (longest, longest)
    assert found.micro_batch_tokens == longest
    where_layers_keep(monkeypatch, 1_000_000, 1)
    assert not probe.probe(Run(), rows).activation_checkpointing, "a smaller micro-batch comes first"


def test_what_the_recipe_says_of_activation_checkpointing_holds(monkeypatch):
    where_layers_keep(monkeypatch, 100_000_000, 1_000_000)
    with pytest.raises(ResourceError) as caught:
        probe.probe(Run.model_validate({"train": {"activation_checkpointing": False}}), fakes.rows(10))
    assert "train.activation_checkpointing=false" in caught.value.fix
    found = probe.probe(Run.model_validate({"train": {"activation_checkpointing": True}}), fakes.rows(10))
    assert (found.activation_checkpointing, found.tried) == (True, (2048, 1024, 512))


def test_layers_that_run_again_are_said_recorded_and_change_nothing(base, labels, tmp_path, monkeypatch):
    losses = []
    for name, bytes_per_token in (("plain", 1), ("again", 10**9)):
        where_layers_keep(monkeypatch, bytes_per_token, 1)
        said: list[str] = []

        def sink(kind: str, /, **fields: Any) -> None:
            said.append(f"{kind}: {fields.get('text')}")  # noqa: B023

        tree = settings(base, tmp_path, {"train": str(labels)}, train={"max_steps": 2}) | {"name": name}
        tree["train"]["micro_batch_tokens"] = 1  # a row at a time either way: sums in the same order
        result = tunesmith.train(Run.model_validate(tree), sink=sink)
        losses.append([e["loss"] for e in RunFolder(result.folder).read_events("step")])
        warned = [t for t in said if "activation checkpointing is used" in t]
        assert len(warned) == (name == "again")
        recorded = f"activation_checkpointing: {str(name == 'again').lower()}"
        assert recorded in (result.folder / "config.yaml").read_text()
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("died", "words"),
    [(None, "it takes 1.8 GB"), (-signal.SIGKILL, r"died \(signal 9\)")],
    ids=["large", "killed"],
)
def test_where_one_row_alone_does_not_fit_the_error_says_what_to_do(died, words, monkeypatch):
    needs(100_000_000, monkeypatch, GB, died)
    rows = fakes.rows(10)
    longest = max(r.num_tokens for r in rows)
    with pytest.raises(ResourceError, match=words) as caught:
        probe.probe(Run(), rows)
    assert f"micro-batch of {longest} tokens" in caught.value.got
    assert "data.max_length" in caught.value.fix
    assert "tuning=lora" in caught.value.fix
    assert caught.value.exit_code == 7


def test_the_size_that_the_recipe_asks_for_is_tried_first_but_never_less_than_a_row(monkeypatch):
    needs(1, monkeypatch, GB)
    run = Run.model_validate({"train": {"micro_batch_tokens": 4}})
    rows = fakes.rows(10)
    assert probe.probe(run, rows).tried == (max(r.num_tokens for r in rows),)


def largest_of(rows: list[TokenRow], size: int, count: int) -> list[list[TokenRow]]:
    """Of steps that are more than one micro-batch."""
    run = Run.model_validate({"train": {"batch_size": count, "epochs": 1}})
    steps = [[rows[i] for i in step] for step in probe.heaviest(run, rows, size)]
    return probe.largest(steps, size, padded=False, share=True)


def test_the_worst_micro_batches_are_the_longest_and_the_most_supervised_rows():
    rows = [fakes.row(list(range(3, 13)), 9), fakes.row([3, 4, 5, 6], 1), fakes.row(list(range(3, 9)), 5)]
    assert largest_of(rows, 10, 4) == [[rows[0]], [rows[2], rows[1]]]


def test_what_the_longest_rows_already_show_is_not_tried_again():
    rows = [fakes.row(list(range(3, 13)), 5), fakes.row([3, 4, 5, 6], 1), fakes.row(list(range(3, 9)), 5)]
    assert largest_of(rows, 10, 4) == [[rows[0]]]


@pytest.mark.parametrize("order", ["shuffled", "given"])
def test_where_steps_are_one_micro_batch_each_the_run_s_own_are_tried(order):
    """That of most tokens and that which supervises most, of all epochs, also where the last has fewer rows."""
    rng = np.random.default_rng(0)
    rows = [fakes.row([3] * int(n), int(n) - int(rng.integers(1, n))) for n in rng.integers(2, 40, 25)]
    run = Run.model_validate({"train": {"batch_size": 4, "epochs": 2.5, "order": order}, "seed": 5})
    source = StaticSource(rows, 4, 62, 5, padded=False, shuffled=order == "shuffled")
    steps = [source.indices(step) for step in range(16)]
    found = probe.heaviest(run, rows, 160)
    for chosen, amount in zip(found, (lambda r: r.num_tokens, lambda r: r.num_supervised), strict=True):
        sums = [sum(amount(rows[i]) for i in step) for step in steps]
        assert chosen == steps[sums.index(max(sums))]
    most = max(sum(rows[i].num_tokens for i in step) for step in steps)
    longest = sorted(range(25), key=lambda i: -rows[i].num_tokens)[:4]
    assert sum(rows[i].num_tokens for i in longest) > most, "or nothing is shown"
    assert probe.heaviest(run, rows, most)[0] == found[0]
    assert probe.heaviest(run, rows, most - 1)[0] == longest


def test_of_answers_yet_to_be_written_the_longest_are_tried():
    rows = [fakes.row([3] * n, n - 1) for n in (5, 9, 7, 2)]
    method = {"type": "policy", "algorithm": "grpo", "rewards": [{"kind": "verifier", "check": "number"}]}
    run = Run.model_validate({"method": method, "train": {"batch_size": 2, "epochs": 1}})
    assert probe.heaviest(run, rows, 4096)[0] == [1, 2]


def test_a_micro_batch_is_as_large_as_those_that_will_be_trained_on():
    """What rows begin with alike counts once where the layout shares it, and in each row where it is padded."""
    rows = [fakes.row([*range(3, 13), 20 + i], 10, i) for i in range(6)]
    size = {"padded": 33, "alone": 33, "shared": 14}
    assert [len(b) for b in probe.largest([rows, rows], size["padded"], padded=True, share=True)] == [3]
    assert [len(b) for b in probe.largest([rows, rows], size["alone"], padded=False, share=False)] == [3]
    assert [len(b) for b in probe.largest([rows, rows], size["shared"], padded=False, share=True)] == [4]


def test_rows_reach_the_child_as_they_are(tmp_path):
    rows = fakes.rows(7)
    probe._write_rows(tmp_path / "rows.npz", rows)
    for read, row in zip(probe._read_rows(tmp_path / "rows.npz"), rows, strict=True):
        for one, other in zip(read.segments, row.segments, strict=True):
            assert one.ids.tolist() == other.ids.tolist()
            assert one.weights.tolist() == other.weights.tolist()
            assert one.parent == other.parent


def test_a_halved_micro_batch_is_said_and_used(base, labels, tmp_path, monkeypatch):
    needs(1_000_000, monkeypatch, 600_000_000)
    said: list[str] = []

    def sink(kind: str, /, **fields: Any) -> None:
        said.append(f"{kind}: {fields.get('text')}")

    tree = settings(base, tmp_path, {"train": str(labels)}, train={"max_steps": 1})
    tree["train"]["micro_batch_tokens"] = None
    result = tunesmith.train(Run.model_validate(tree), sink=sink)
    assert any(t.startswith("warning: a micro-batch of 2,048 tokens does not fit; 512 does") for t in said)
    assert "micro_batch_tokens: 512" in (result.folder / "config.yaml").read_text()


def prepared_rows(run: Run, folder: Path) -> Any:
    from tunesmith.workflow.prepare import prepare

    return prepare(run, folder, lambda kind, /, **fields: None)


def test_what_is_wrong_with_the_recipe_is_said_as_such_and_not_as_a_crash(base, labels, tmp_path):
    tree = settings(base, tmp_path, {"train": str(labels)}, method={"freeze": {"layers": 3}})
    prepared = prepared_rows(Run.model_validate(tree), tmp_path)
    waiting = trial.start()
    with pytest.raises(ConfigError, match=r"freeze\.layers=3") as caught:
        probe.probe(prepared.run, prepared.rows["train"], waiting)
    assert waiting.returncode == 0, "the child that waited is the one that was asked"
    assert "at most the model's 2 layers" in caught.value.expected


def test_a_child_that_really_is_killed_counts_as_too_large(monkeypatch):
    def killed() -> trial.Child:
        child = start()
        child.kill()
        return child

    start = trial.start
    monkeypatch.setattr(probe, "start", killed)
    with pytest.raises(ResourceError, match=r"signal 9"):
        probe.probe(Run.model_validate({"train": {"batch_size": 3, "epochs": 1}}), fakes.rows(3))


def test_a_child_that_nobody_asks_ends_with_what_it_stood_by_for():
    with pytest.raises(ConfigError), trial.standing_by() as child:
        raise ConfigError("a recipe that is wrong", "another")
    assert child.returncode == -signal.SIGKILL


def test_a_command_asks_the_child_that_it_started_first(base, labels, tmp_path, monkeypatch):
    """And starts no other; what it finds is the plan."""
    started: list[trial.Child] = []
    real = trial.start

    def start() -> trial.Child:
        started.append(real())
        return started[-1]

    monkeypatch.setattr(trial, "start", start)
    monkeypatch.setattr(probe, "start", start)
    run = Run.model_validate(settings(base, tmp_path, {"train": str(labels)}))
    how = {"sink": silent, "max_minutes": None, "seeds": 1, "resume": None, "profile": False}
    result = work.train(run, dry_run=True, **how)
    assert result.plan["tokens_per_second"] > 0
    assert [child.returncode for child in started] == [0]
