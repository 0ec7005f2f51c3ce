"""Kill a real training process and look at what is left.

A fork server: this process has imported torch but computed nothing, so that a child starts in milliseconds. A
child trains a tiny model with evaluations, best step and checkpoints, by one of `METHODS`: on rows of its own through
the real engine, or on its own answers as a whole run (`jobs`).
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests import fakes
from tests.crash import jobs
from tunesmith import storage
from tunesmith.config.fields import keys
from tunesmith.config.judged import PreferenceConfig
from tunesmith.config.methods import SftConfig
from tunesmith.config.run import EarlyStopping, TrainConfig
from tunesmith.core.model import Model
from tunesmith.core.objective import Objective
from tunesmith.errors import CheckpointError
from tunesmith.generate.batched import nll
from tunesmith.objectives.preference import Preference
from tunesmith.objectives.sft import Sft
from tunesmith.train import reference as kept_reference
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.engine import Engine, Watch
from tunesmith.train.optim import Optimizer
from tunesmith.train.source import StaticSource
from tunesmith.train.state import Progress, TrainState
from tunesmith.types import TokenRow, silent
from tunesmith.workflow.judging import judge_of

STEPS = 12
CRASHED = 77
BUDGET = 40
"""Tokens at once."""


@dataclass(frozen=True)
class Work:
    """loss: of held-out rows."""

    model: Model
    objective: Objective
    rows: Sequence[TokenRow]
    loss: Callable[[], float]


def sft(folder: Path) -> Work:
    """With dropout, whose state must come back too."""
    model, held_out = _model(attention_dropout=0.2), fakes.rows(4, seed=2)

    def loss() -> float:
        totals, weights = nll(model, held_out, 200)
        return float(totals.sum() / weights.sum())

    return Work(model, Sft(SftConfig()), fakes.rows(STEPS * 2, seed=1), loss)


def preference(folder: Path) -> Work:
    """DPO on trees of two or three completions; the reference is computed at the start and kept in the folder."""
    model, config = _model(), PreferenceConfig()
    config = config.model_copy(update={name: value for name, (value, _) in config.choices().items()})
    rows = {"train": fakes.judged_rows(STEPS * 2, 1, most=3), "test": fakes.judged_rows(4, 2, most=3)}
    folder.mkdir(parents=True, exist_ok=True)
    rows = kept_reference.with_reference(rows, model, folder, BUDGET, silent)
    judge = judge_of(config, model, rows["test"])
    return Work(model, Preference(config), rows["train"], lambda: judge.mean_loss(rows["test"]))


def _model(**more: Any) -> Model:
    return Model(fakes.module("llama", dtype=torch.bfloat16, **more), "layout", 2)


def by_rows(make: Callable[[Path], Work], folder: Path) -> None:
    """Start or resume the training in `folder`, to its end. make: the model as it starts, and what it trains on."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    work = make(folder)
    config = TrainConfig(
        learning_rate=1e-2,
        warmup_fraction=0.1,
        epochs=2,
        batch_size=4,
        eval_every=3,
        save_every=2,
        early_stopping=EarlyStopping(patience=50),
        threads=1,
    )
    progress = Progress(micro_batch_tokens=BUDGET, threads=1)
    state = TrainState(progress, Optimizer(work.model.module, config), "fixed")
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    latest = checkpoints.load_latest()
    if latest is not None:
        state.restore(latest[1])
    Engine(
        model=work.model,
        objective=work.objective,
        source=StaticSource(work.rows, 4, 2 * len(work.rows), seed=7, padded=False),
        state=state,
        config=config,
        seed=7,
        checkpoints=checkpoints,
        sink=lambda kind, **fields: None,
        watch=Watch(lambda step: {"loss": work.loss()}, "loss", higher=False),
        stop=lambda: "",
    ).run()


def of_checkpoint(folder: Path) -> str:
    """Hash of everything the newest checkpoint holds, bit for bit, but the seconds it took; and of the reference."""
    latest = Checkpoints(folder / "checkpoints", keep=2).load_latest()
    assert latest is not None
    step, snapshot, problems = latest
    assert step == STEPS
    assert not problems
    snapshot.state["progress"].pop("elapsed")
    digest = hashlib.sha256(json.dumps(snapshot.state, sort_keys=True).encode())
    if (file := folder / kept_reference.FILE).exists():
        digest.update(file.read_bytes())
    for group in sorted(snapshot.groups):
        for name in sorted(snapshot.groups[group]):
            digest.update(f"{group}/{name}".encode())
            digest.update(snapshot.groups[group][name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Method:
    """train: start or resume the run in a folder, to its end. fingerprint: what must not depend on interruptions.
    moment: what a run that was killed was doing."""

    train: Callable[[Path], None]
    fingerprint: Callable[[Path], str]
    moment: Callable[[Path], str] | None = None


METHODS: dict[str, Method] = {
    "sft": Method(partial(by_rows, sft), of_checkpoint),
    "preference": Method(partial(by_rows, preference), of_checkpoint),
    **{
        name: Method(partial(jobs.train, algorithm=name), jobs.fingerprint, jobs.moment)
        for name in ("ppo", "grpo")
    },
}


def in_child(work: Callable[[], None], kill_after: float | None = None) -> int:
    """Fork, work, and return the exit status (negative: the signal); SIGKILL after so many seconds."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole(folder: Path, method: str) -> tuple[str, float]:
    """(fingerprint, seconds) of an uninterrupted run."""
    keys()  # what every child would work out anew, without a thread
    gc.freeze()
    started = time.monotonic()
    assert in_child(lambda: METHODS[method].train(folder)) == 0
    return METHODS[method].fingerprint(folder), time.monotonic() - started


def random_kills(
    folder: Path, method: str, expected: str, seconds: float, runs: int, seed: int
) -> dict[str, Any]:
    """Runs that are killed one to three times at random moments and then finished; all must end as `expected`."""
    rng, of = random.Random(seed), METHODS[method]
    moments: Counter[str] = Counter()
    for run in range(runs):
        home = folder / f"kill-{run}"
        for _ in range(rng.randint(1, 3)):
            if in_child(partial(of.train, home), rng.uniform(0, seconds)) == -signal.SIGKILL:
                moments[of.moment(home) if of.moment is not None else "at any moment"] += 1
        assert in_child(partial(of.train, home)) == 0
        assert of.fingerprint(home) == expected, f"run {run} of seed {seed} ended otherwise"
        shutil.rmtree(home)
    found = {"runs": runs, "kills": moments.total(), "identical": runs}
    return found if of.moment is None else {**found, "killed while": dict(moments.most_common())}


class Die:
    """Makes the process die at the k-th storage operation: before it, after it, or half-way through."""

    OPERATIONS = ("write_parts", "sync_folder", "rename", "rmtree")

    def __init__(self, at: int, when: str) -> None:
        self.at, self.when, self.count = at, when, 0

    def install(self) -> None:
        for name in self.OPERATIONS[:-1]:
            setattr(storage, name, self._wrap(name, getattr(storage, name)))
        shutil.rmtree = self._wrap("rmtree", shutil.rmtree)

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(path: Path, *args: Any, **kwargs: Any) -> None:
            self.count += 1
            here = self.count == self.at
            if here and self.when == "before":
                os._exit(CRASHED)
            if here and self.when == "half":
                if name.startswith("write"):
                    real(path, *args)
                    os.truncate(path, path.stat().st_size // 2)
                elif name == "rmtree" and path.exists():
                    for file in sorted(path.iterdir())[: len(list(path.iterdir())) // 2]:
                        file.unlink()
                os._exit(CRASHED)
            real(path, *args, **kwargs)
            if here:
                os._exit(CRASHED)

        return operation


def crash_points(folder: Path, method: str, expected: str, last: int | None = None) -> dict[str, int]:
    """Die at every storage operation of a run (or the first `last`); each must finish as `expected` afterwards."""
    total, at, of = 0, 0, METHODS[method]
    while last is None or at < last:
        at += 1
        for when in ("before", "half", "after"):
            home = folder / f"point-{at}-{when}"

            def doomed(home: Path = home, at: int = at, when: str = when) -> None:
                Die(at, when).install()
                of.train(home)

            status = in_child(doomed)
            if status == 0:  # the run has fewer operations
                return {"points": total, "identical": total}
            assert status == CRASHED
            assert in_child(partial(of.train, home)) == 0
            assert of.fingerprint(home) == expected, f"died {when} operation {at}: ended otherwise"
            shutil.rmtree(home)
            total += 1
    return {"points": total, "identical": total}


def corruptions(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Damage the newest checkpoint in `count` random ways, one at a time; each must be detected and named."""
    rng = random.Random(seed)
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    home = checkpoints.path(checkpoints.steps()[-1])
    files = sorted(home.iterdir())
    detected = 0
    for _ in range(count):
        file = rng.choice(files)
        whole = file.read_bytes()
        kind = rng.choice(("flip", "flip", "truncate", "extend", "zero", "delete"))
        at = rng.randrange(len(whole))
        if kind == "flip":
            damaged = whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :]
        elif kind == "truncate":
            damaged = whole[:at]
        elif kind == "extend":
            damaged = whole + rng.randbytes(rng.randint(1, 64))
        else:
            end = min(len(whole), at + rng.randint(1, 512))
            damaged = whole[:at] + bytes(b ^ 0xFF for b in whole[at:end]) + whole[end:]
        file.unlink() if kind == "delete" else file.write_bytes(damaged)
        try:
            checkpoints.load(checkpoints.steps()[-1])
        except CheckpointError as error:
            detected += file.name in str(error) or "manifest" in str(error)
        file.write_bytes(whole)
    checkpoints.load(checkpoints.steps()[-1])
    return {"corruptions": count, "detected": detected}
