"""Whole runs on own answers to be killed: prepare, roll out, learn, prove and report, in the folder of a real run."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

import tunesmith
from tests.workflow.conftest import no_probe, settings, tiny_base, write_jsonl
from tunesmith.config.run import Run
from tunesmith.evaluate import plots
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.folder import RunFolder
from tunesmith.workflow import prepare
from tunesmith.workflow import train as main_job

ROLLOUTS = 5
STEPS_EACH = 4
"""Two passes of two optimizer steps."""
STEPS = ROLLOUTS * STEPS_EACH
TIMES = ("time", "seconds", "tokens_per_second", "memory_bytes")
"""What an event says of the clock and the machine."""


def given(folder: Path) -> Path:
    """A random model, and prompts, that all runs of a campaign share: beside the run's folder, made by the first."""
    home = folder.parent / "given"
    if not home.exists():
        aside = home.with_name(".given")
        shutil.rmtree(aside, ignore_errors=True)
        tiny_base(aside / "base")
        asked = [{"prompt": f"what is {n} and a {word}?"} for n in range(12) for word in ("dog", "pear")]
        write_jsonl(aside / "prompts.jsonl", asked)
        aside.rename(home)
    return home


def recipe(folder: Path, algorithm: str) -> Run:
    """An adaptive KL divergence (what a rollout leaves to the next), evaluations, best step, and checkpoints of which
    most fall inside a rollout."""
    home = given(folder)
    data = {"train": str(home / "prompts.jsonl"), "validation_fraction": 0.2, "test_fraction": 0.2}
    method = {
        "type": "policy",
        "algorithm": algorithm,
        "tuning": "full",
        "samples": 4,
        "max_new_tokens": 8,
        "passes": 2,
        "minibatches": 2,
        "kl": {"target": 0.05, "weight": 0.1},
        "rewards": [{"kind": "regex", "pattern": "[aeiou]", "count": True}],
    }
    train = {"max_steps": ROLLOUTS, "batch_size": 4, "eval_every": 10, "save_every": 7, "learning_rate": 3e-3}
    train["early_stopping"] = None
    tree = settings(home / "base", folder.parent, data, name=folder.name, train=train)
    return Run.model_validate({**tree, "method": method})


def train(folder: Path, algorithm: str) -> None:
    """Start or resume the run in `folder`, to its end; nothing is left to do of a finished one."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    main_job.probe = no_probe  # this is a forked child, which ends with its run
    prepare.physical_cores = lambda: 1
    plots.figures = lambda report: []
    if not RunFolder(folder).is_finished():
        tunesmith.train(recipe(folder, algorithm), resume=True)


def fingerprint(folder: Path) -> str:
    """Hash of the last checkpoint, the saved model, what every rollout, step and evaluation measured, and of the
    report; not of the clock and of the run's name."""
    home = RunFolder(folder)
    latest = Checkpoints(home.checkpoints, keep=2).load_latest()
    assert latest is not None
    step, snapshot, problems = latest
    assert step == STEPS
    assert not problems
    snapshot.state["progress"].pop("elapsed")
    report = json.loads((home.report / "metrics.json").read_text())
    for part in ("name", "created", "config", "cost"):
        report.pop(part)
    curves = {kind: [_measured(e) for e in home.curve(kind)] for kind in ("rollout", "step", "evaluation")}
    assert [e["rollout"] for e in curves["rollout"]] == list(range(ROLLOUTS))
    assert [e["step"] for e in curves["step"]] == list(range(1, STEPS + 1))
    digest = hashlib.sha256(json.dumps([snapshot.state, report, curves], sort_keys=True).encode())
    for file in sorted(home.model.glob("*.safetensors")):
        digest.update(file.name.encode() + file.read_bytes())
    for group, tensors in sorted(snapshot.groups.items()):
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{group}/{name}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    for file in ("report.html", "report.md"):
        assert (home.report / file).stat().st_size
    assert (home.model / "README.md").stat().st_size
    return digest.hexdigest()


def _measured(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in TIMES}


def moment(folder: Path) -> str:
    """What a run that was killed was doing."""
    home = RunFolder(folder)
    kinds = ("start", "plan", "phase", "rollout", "step", "note")
    events = home.read_events(*kinds)
    last = max((i for i, e in enumerate(events) if e["kind"] == "start"), default=-1)
    session = events[last + 1 :]
    if any(home.checkpoints.glob(".*")):
        return "writing a checkpoint"
    if any(e["kind"] == "phase" and e["name"] in ("save", "prove") for e in session):
        return "saving and proving"
    if not any(e["kind"] == "plan" for e in session):
        return "before training"
    steps = [e["step"] for e in session if e["kind"] == "step"]
    before = Checkpoints(home.checkpoints, keep=2).steps() or [0]
    done = steps[-1] if steps else before[-1]
    rolled = any(e["kind"] == "rollout" and e["step"] == done for e in session)
    return "writing answers" if done % STEPS_EACH == 0 and not rolled else "inside a pass"
