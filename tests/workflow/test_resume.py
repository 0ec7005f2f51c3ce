"""A run that is stopped, killed or moved goes on as if nothing had been; a folder is never shared or overwritten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import tunesmith
from tests.workflow.conftest import label_rows, make_quick, read_jsonl, settings, tiny_base, write_jsonl
from tunesmith.cli.main import main
from tunesmith.config.run import Run
from tunesmith.errors import ConfigError, Interrupted, RunError
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.folder import RunFolder
from tunesmith.types import EventSink
from tunesmith.workflow.finish import Result
from tunesmith.workflow.train import resume


class Crash(Exception):
    """Stands for the process's death: nothing of the run catches it."""


def at(kind: str, do: Any, **wanted: Any) -> EventSink:
    """A sink that acts when an event of this kind, with these fields, comes by."""

    def sink(event: str, /, **fields: Any) -> None:
        if event == kind and wanted.items() <= fields.items():
            do()

    return sink


def crash() -> None:
    raise Crash


def send(number: int) -> Any:
    return lambda: os.kill(os.getpid(), number)


def recipe(base: Path, labels: Path, output: Path, **more: Any) -> dict[str, Any]:
    """20 steps with dropout, evaluations at 5, 10, ... and a checkpoint every third step."""
    train = {"max_steps": 20, "eval_every": 5, "save_every": 3, **more.pop("train", {})}
    model = {"dropout": 0.1, **more.pop("model", {})}
    return settings(base, output, {"train": str(labels)}, model=model, train=train, **more)


def run(tree: dict[str, Any], **how: Any) -> Result:
    return tunesmith.train(Run.model_validate(tree), **how)


def ending(folder: Path, asks: bool = True) -> dict[str, Any]:
    """All that must not depend on interruptions: the last checkpoint, the saved model, answers and scores. asks: the
    model is one that answers."""
    latest = Checkpoints(folder / "checkpoints", 2).load_latest()
    assert latest is not None
    step, snapshot, problems = latest
    assert not problems
    snapshot.state["progress"].pop("elapsed")
    report = json.loads((folder / "report" / "metrics.json").read_text())
    kept = (
        "systems",
        "comparisons",
        "flips",
        "good",
        "bad",
        "suspects",
        "fit",
        "classes",
        "reasons",
        "written",
        "wins",
    )
    return {
        "step": step,
        "state": snapshot.state,
        "tensors": {f"{g}/{n}": t for g, named in snapshot.groups.items() for n, t in named.items()},
        "saved": {p.name: p.read_bytes() for p in (folder / "model").glob("*.safetensors")},
        "report": {key: report[key] for key in kept},
        "curves": {key: report["curves"][key] for key in ("train_loss", "validation_loss", "grad_norm")},
        "rows": {key: report["data"][key] for key in ("read", "used", "dropped", "splits")},
        "answers": list(
            tunesmith.load(folder, threads=1).predict(["a dog is here", "iron", "?"], max_new_tokens=6)
        )
        if asks
        else [],
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    tensors, others = found.pop("tensors"), dict(expected)
    reference = others.pop("tensors")
    assert tensors.keys() == reference.keys()
    for name, tensor in reference.items():
        assert torch.equal(tensors[name], tensor), name
    assert found == others


@pytest.fixture(scope="module")
def uninterrupted(base, labels, tmp_path_factory):
    """tuning -> the ending of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("uninterrupted")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        for tuning in ("full", "lora"):
            tree = recipe(base, labels, output, name=tuning, method={"tuning": tuning})
            found[tuning] = ending(run(tree).folder)
    return found


# -- in this process -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("tuning", "step"), [("full", 20), ("lora", 7)])
def test_a_stopped_run_ends_bit_for_bit_as_one_that_was_not(
    tuning, step, base, labels, uninterrupted, tmp_path
):
    tree = recipe(base, labels, tmp_path, method={"tuning": tuning})
    with pytest.raises(Interrupted) as caught:
        run(tree, sink=at("step", send(signal.SIGTERM), step=step))
    assert caught.value.exit_code == 143
    assert f"after step {step}; a checkpoint is saved" in caught.value.got
    assert f"tunesmith resume {tmp_path / 'tiny'}" in caught.value.fix
    resume(tmp_path / "tiny")
    assert_same(ending(tmp_path / "tiny"), uninterrupted[tuning])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "sink",
    [
        at("plan", crash),
        at("step", crash, step=17),
        at("phase", crash, name="prove"),
    ],
    ids=["before step 1", "step 17", "before the proof"],
)
def test_a_run_that_died_goes_on_from_its_last_checkpoint(sink, base, labels, uninterrupted, tmp_path):
    with pytest.raises(Crash):
        run(recipe(base, labels, tmp_path), sink=sink)
    resume(tmp_path / "tiny")
    assert_same(ending(tmp_path / "tiny"), uninterrupted["full"])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("write", ["storage.rename", "workflow.finish.write_card", "evaluate.report.to_html"])
def test_a_file_that_was_being_written_is_not_taken_for_a_whole_one(
    write, base, labels, uninterrupted, tmp_path, monkeypatch
):
    """The run dies while it writes config.yaml, the model's card or the report: it has not begun, or not finished."""
    tree, folder = recipe(base, labels, tmp_path), RunFolder(tmp_path / "tiny")
    with monkeypatch.context() as patch:
        patch.setattr(f"tunesmith.{write}", lambda *given: crash())
        with pytest.raises(Crash):
            run(tree)
    assert folder.is_started() == (write != "storage.rename")
    assert not folder.is_finished()
    run(tree, resume=True)
    assert_same(ending(folder.path), uninterrupted["full"])
    assert all((folder.report / name).is_file() for name in ("report.html", "report.md"))
    assert (folder.model / "README.md").is_file()


@pytest.mark.usefixtures("quick")
def test_ctrl_c_stops_with_130_and_the_handlers_before_come_back(base, labels, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="Ctrl-C") as caught:
        run(recipe(base, labels, tmp_path), sink=at("step", send(signal.SIGINT), step=2))
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("quick")
def test_a_second_ctrl_c_stops_at_once(base, labels, tmp_path):
    def twice() -> None:
        send(signal.SIGINT)()
        send(signal.SIGINT)()

    with pytest.raises(KeyboardInterrupt):
        run(recipe(base, labels, tmp_path), sink=at("step", twice, step=2))


@pytest.mark.usefixtures("quick")
def test_a_time_limit_stops_saves_and_still_reports_on_the_best_step(base, labels, tmp_path):
    tree = recipe(base, labels, tmp_path, train={"eval_every": 1})
    result = run(tree, max_minutes=1e-6)
    assert result.report.fit.last_step == result.report.fit.best_step == 1
    assert {"base", "tuned"} <= {s.name for s in result.report.systems}
    notes = [e["text"] for e in read_jsonl(result.folder / "events.jsonl") if e["kind"] == "note"]
    assert any("time limit" in text for text in notes)
    with pytest.raises(RunError, match="is finished"):
        resume(result.folder)


@pytest.mark.usefixtures("quick")
def test_the_micro_batch_of_the_first_start_is_kept(base, labels, uninterrupted, tmp_path):
    """The order of sums depends on it, so a resume takes it from the state, whatever the file says."""
    with pytest.raises(Interrupted):
        run(recipe(base, labels, tmp_path), sink=at("step", send(signal.SIGTERM), step=4))
    config = tmp_path / "tiny" / "config.yaml"
    text = config.read_text()
    assert "micro_batch_tokens: 512" in text
    config.write_text(text.replace("micro_batch_tokens: 512", "micro_batch_tokens: 64"))
    resume(tmp_path / "tiny")
    assert_same(ending(tmp_path / "tiny"), uninterrupted["full"])


@pytest.mark.usefixtures("quick")
def test_rows_longer_than_every_training_row_stay_in_after_a_resume(base, tmp_path):
    long = [{**r, "text": r["text"] + " and so on" * 8} for r in label_rows(12, seed=5)]
    data = {
        "train": str(write_jsonl(tmp_path / "train.jsonl", label_rows(40))),
        "validation": str(write_jsonl(tmp_path / "validation.jsonl", long[:6])),
        "test": str(write_jsonl(tmp_path / "test.jsonl", long[6:])),
    }
    tree = settings(base, tmp_path, data)
    expected = ending(run({**tree, "name": "whole"}).folder)
    with pytest.raises(Interrupted):
        run(tree, sink=at("step", send(signal.SIGTERM), step=2))
    resume(tmp_path / "tiny")
    assert_same(ending(tmp_path / "tiny"), expected)
    assert expected["rows"]["dropped"] == {}


@pytest.mark.usefixtures("quick")
def test_a_run_can_be_renamed_and_resumed_from_inside_its_folder(
    base, labels, uninterrupted, tmp_path, monkeypatch
):
    with pytest.raises(Interrupted):
        run(recipe(base, labels, tmp_path), sink=at("step", send(signal.SIGTERM), step=4))
    with pytest.raises(ConfigError, match="the run's folder: name"):
        resume((tmp_path / "tiny").rename(tmp_path / "Not A Name"))
    moved = (tmp_path / "Not A Name").rename(tmp_path / "another-name")
    monkeypatch.chdir(moved)
    resume(Path())
    assert_same(ending(moved), uninterrupted["full"])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("what", ["data", "base", "settings"])
def test_a_resume_is_refused_where_what_decides_the_numbers_has_changed(what, base, tmp_path):
    own = tiny_base(tmp_path / "base") if what == "base" else base
    rows = write_jsonl(tmp_path / "rows.jsonl", label_rows(40))
    tree = settings(own, tmp_path, {"train": str(rows)})
    with pytest.raises(Interrupted):
        run(tree, sink=at("step", send(signal.SIGTERM), step=2))
    if what == "data":
        write_jsonl(rows, label_rows(41))
    elif what == "base":
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(own)
        model.model.norm.weight.data[0] += 1
        model.save_pretrained(own)
    else:
        config = tmp_path / "tiny" / "config.yaml"
        config.write_text(config.read_text().replace("weight_decay: 0.01", "weight_decay: 0.02"))
    reason = f"{rows} has changed" if what == "data" else "other settings, data or model files"
    with pytest.raises(RunError, match=reason) as caught:
        resume(tmp_path / "tiny")
    assert caught.value.exit_code == 5
    assert "start a new run" in caught.value.fix


def test_what_is_no_run_cannot_be_resumed(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        resume(tmp_path)


# -- whose folder it is ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_folder_that_holds_a_run_is_refused_continued_or_replaced(base, labels, uninterrupted, tmp_path):
    tree = recipe(base, labels, tmp_path)
    with pytest.raises(Interrupted):
        run(tree, sink=at("step", send(signal.SIGTERM), step=4))
    with pytest.raises(RunError, match="a run that has begun") as caught:
        run(tree)
    assert "--resume" in caught.value.fix
    assert "--force" in caught.value.fix
    run(tree, resume=True)
    assert_same(ending(tmp_path / "tiny"), uninterrupted["full"])
    for how, message in ((None, "holds a finished run"), (True, "is finished")):
        with pytest.raises(RunError, match=message):
            run(tree, resume=how)
    again = run({**tree, "train": {**tree["train"], "max_steps": 2}}, resume=False)
    assert again.report.fit.last_step == 2
    assert Checkpoints(again.folder / "checkpoints", 2).steps() == [0, 2]
    assert [e["step"] for e in read_jsonl(again.folder / "events.jsonl") if e["kind"] == "step"] == [1, 2]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", [None, True, False])
def test_a_folder_with_other_peoples_files_is_left_alone(how, base, labels, tmp_path):
    (tmp_path / "tiny" / "model").mkdir(parents=True)
    mine = tmp_path / "tiny" / "model" / "years-of-work.txt"
    mine.write_text("precious")
    with pytest.raises(RunError, match="no run"):
        run(recipe(base, labels, tmp_path), resume=how)
    assert mine.read_text() == "precious"
    assert [p.name for p in (tmp_path / "tiny").iterdir()] == ["model"]


@pytest.mark.usefixtures("quick")
def test_a_run_in_a_thread_needs_no_signals(base, labels, tmp_path):
    results: list[Result] = []
    tree = recipe(base, labels, tmp_path, train={"max_steps": 2})
    worker = threading.Thread(target=lambda: results.append(run(tree)))
    worker.start()
    worker.join()
    assert results[0].report is not None


# -- the real command, in a process of its own -----------------------------------------------------------


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tunesmith.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    while not any(e["step"] >= step for e in RunFolder(folder).read_events("step")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_sigterm_ends_the_command_with_143_and_resume_ends_as_if_it_had_not(
    base, labels, tmp_path, capsys, monkeypatch
):
    tree = recipe(base, labels, tmp_path, train={"max_steps": 80, "eval_every": 40, "save_every": 20})
    tree["train"] |= {"early_stopping": None, "eval_generate": 0}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tree))
    folder = tmp_path / "tiny"

    process = command("train", str(file))
    wait_for_step(folder, 1, process)
    with pytest.raises(SystemExit) as caught:  # a second start, while the first runs
        main(["train", str(file), "--quiet"])
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert caught.value.code == 5
    assert f"in use by process {process.pid}" in capsys.readouterr().err
    assert process.returncode == 143, err
    assert "stopped by SIGTERM" in err
    assert f"tunesmith resume {folder}" in err
    steps = Checkpoints(folder / "checkpoints", 2).steps()
    assert steps
    assert steps[-1] < 80

    process = command("resume", str(folder), "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["report"]["fit"]["last_step"] == 80
    assert f"resumed after step {steps[-1]}" in err
    (plan,) = RunFolder(folder).read_events("estimate")  # of the probe's real child
    assert 10**8 < plan["peak_memory_bytes"] < 2 * 10**9 < plan["available_memory_bytes"]
    assert 10 < plan["tokens_per_second"] < 10**7

    make_quick(monkeypatch)
    assert_same(ending(folder), ending(run({**tree, "name": "whole"}).folder))
