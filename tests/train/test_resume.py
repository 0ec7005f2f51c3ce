"""Row 18: a run stopped after any step and resumed ends with the bits of the run that was not stopped."""

from __future__ import annotations

import pytest
import torch

from tests import fakes
from tunesmith.config.methods import SftConfig
from tunesmith.config.run import TrainConfig
from tunesmith.errors import RunError
from tunesmith.objectives.sft import Sft
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.engine import Engine, Watch
from tunesmith.train.optim import Optimizer
from tunesmith.train.source import StaticSource
from tunesmith.train.state import Progress, TrainState
from tunesmith.train.unfreeze import groups

STEPS = 8
# The best is early and later values lie between it and the first: a forgotten best would be replaced.
LOSSES = {0: 9.0, 2: 5.0, 4: 1.0, 6: 3.0, 8: 2.0}


class Seeds(Sft):
    """The supervised loss; notes the generator's seed and the rows of each step."""

    def __init__(self):
        super().__init__(SftConfig())
        self.seen: list[tuple[int, list[int]]] = []

    def loss(self, model, batch):
        self.seen.append((torch.initial_seed(), [ref.line for ref in batch.refs]))
        return super().loss(model, batch)


class Run:
    """One process of a run: starts, or goes on from the newest checkpoint."""

    def __init__(self, folder, config_hash="h", **settings):
        config = TrainConfig(
            learning_rate=1e-2,
            warmup_fraction=0.25,
            eval_every=2,
            save_every=3,
            early_stopping=None,
            **settings,
        )
        model = fakes.model("gpt2", dtype=torch.float32, resid_pdrop=0.2, embd_pdrop=0.2, attn_pdrop=0.2)
        self.rates: list[float] = []
        self.objective = Seeds()
        self.stop_at = -1
        self.engine = Engine(
            model=model,
            objective=self.objective,
            source=StaticSource(
                fakes.rows(12), 3, 24, seed=3, padded=False, share=config.neftune_alpha is None
            ),
            state=TrainState(
                Progress(micro_batch_tokens=10_000, threads=1),
                Optimizer(model.module, config, None, groups(model)),
                config_hash,
            ),
            config=config,
            seed=3,
            checkpoints=Checkpoints(folder, keep=2),
            sink=lambda kind, **f: self.rates.append(f["learning_rate"]) if kind == "step" else None,
            watch=Watch(lambda step: {"loss": LOSSES[step]}, "loss", higher=False),
            stop=lambda: "asked" if self.engine.state.progress.step == self.stop_at else "",
        )
        latest = self.engine.checkpoints.load_latest()
        if latest is not None:
            self.engine.state.restore(latest[1])

    def go(self, stop_at=-1):
        self.stop_at = stop_at
        self.engine.run()
        return self


def outcome(folder):
    step, snapshot, problems = Checkpoints(folder, keep=2).load_latest()
    assert not problems
    snapshot.state["progress"].pop("elapsed")
    return step, snapshot


# Twelve rows are four steps: the next group begins to train at steps 3 and 6.
EXTRAS = {"unfreeze_every": 0.75, "neftune_alpha": 5.0, "schedule": "wsd", "decay_fraction": 0.5}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    return Run(folder).go(), outcome(folder)


@pytest.fixture(scope="module")
def whole_with_extras(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("extras")
    return Run(folder, **EXTRAS).go(), outcome(folder)


@pytest.mark.parametrize("stop_at", range(1, STEPS))
def test_row_18_stopped_after_any_step_and_resumed(tmp_path, whole, stop_at):
    stopped_and_resumed(tmp_path, whole, stop_at)


@pytest.mark.parametrize("stop_at", range(1, STEPS))
def test_so_with_unfreezing_noise_and_another_schedule(tmp_path, whole_with_extras, stop_at):
    stopped_and_resumed(tmp_path, whole_with_extras, stop_at, **EXTRAS)


def test_the_extras_are_in_play(whole, whole_with_extras):
    _, (_, plain) = whole
    _, (_, snapshot) = whole_with_extras
    steps = {n: int(t) for n, t in snapshot.groups["optimizer"].items() if n.startswith("step.")}
    assert steps["step.transformer.h.1.mlp.c_fc.weight"] == STEPS
    assert steps["step.transformer.h.0.mlp.c_fc.weight"] == STEPS - 3
    assert steps["step.transformer.wte.weight"] == STEPS - 6
    assert not any(torch.equal(t, plain.groups["weights"][n]) for n, t in snapshot.groups["weights"].items())


def stopped_and_resumed(tmp_path, whole, stop_at, **settings):
    uninterrupted, (last, expected) = whole
    first = Run(tmp_path, **settings).go(stop_at)
    second = Run(tmp_path, **settings).go()
    step, snapshot = outcome(tmp_path)
    assert step == last == STEPS
    assert snapshot.state == expected.state
    for group, tensors in expected.groups.items():
        assert tensors.keys() == snapshot.groups[group].keys()
        assert all(torch.equal(snapshot.groups[group][name], t) for name, t in tensors.items())
    assert first.rates + second.rates == uninterrupted.rates
    assert first.objective.seen + second.objective.seen == uninterrupted.objective.seen
    kept = Checkpoints(tmp_path, keep=2).steps()
    assert (kept[0], kept[-1], len(kept)) == (4, STEPS, 3)  # the best and the newest two


def test_each_step_has_a_seed_of_its_own(whole):
    uninterrupted, _ = whole
    assert len({seed for seed, _ in uninterrupted.objective.seen}) == STEPS


def test_the_optimizers_moments_are_in_the_checkpoint(whole):
    _, (_, snapshot) = whole
    weights = set(snapshot.groups["weights"])
    assert set(snapshot.groups["optimizer"]) == {
        f"{kind}.{n}" for kind in ("exp_avg", "exp_avg_sq", "step") for n in weights
    }
    assert all(snapshot.groups["optimizer"][f"step.{n}"] == STEPS for n in weights)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    Run(tmp_path).go(stop_at=2)
    with pytest.raises(RunError, match="other settings, data or model files"):
        Run(tmp_path, config_hash="other")
