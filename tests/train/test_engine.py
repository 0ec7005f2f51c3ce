"""The loop: sums over terms, early stops, non-finite numbers, signals, and the order of the rows."""

from __future__ import annotations

import math

import pytest
import torch

from tests import fakes
from tunesmith.config.methods import SftConfig
from tunesmith.config.run import EarlyStopping, TrainConfig
from tunesmith.core.batch import Batch
from tunesmith.core.objective import LossOutput
from tunesmith.errors import NonFiniteError
from tunesmith.objectives.sft import Sft
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.engine import Engine, Watch
from tunesmith.train.optim import Optimizer
from tunesmith.train.profile import Profile
from tunesmith.train.source import Ahead, StaticSource, rows_taken
from tunesmith.train.state import Progress, TrainState


def engine(
    tmp_path,
    *,
    rows=None,
    objective=None,
    watch=None,
    stop=lambda: "",
    budget=60,
    sink=None,
    model=None,
    **settings,
):
    config = TrainConfig(
        **{
            "learning_rate": 1e-2,
            "warmup_fraction": 0.0,
            "eval_every": 1,
            "save_every": 100,
            "max_grad_norm": None,
            "early_stopping": None,
            **settings,
        }
    )
    model = model or fakes.model("llama", dtype=torch.float32)
    state = TrainState(Progress(micro_batch_tokens=budget, threads=1), Optimizer(model.module, config), "h")
    return Engine(
        model=model,
        objective=objective or Sft(SftConfig()),
        source=StaticSource(rows or fakes.rows(8), 4, 2 * len(rows or fakes.rows(8)), seed=3, padded=False),
        state=state,
        config=config,
        seed=3,
        checkpoints=Checkpoints(tmp_path / "checkpoints", keep=2),
        sink=sink or (lambda kind, **fields: None),
        watch=watch,
        stop=stop,
    )


class TwoTerms:
    """The supervised sum twice, over different weights: what preference + supervised will be."""

    def __init__(self):
        self.sft = Sft(SftConfig())

    def weights(self, batch):
        return {"a": batch.weights.sum(), "b": torch.tensor(float(batch.num_rows))}

    def loss(self, model, batch):
        total = self.sft.loss(model, batch).terms["sft"]
        return LossOutput({"a": total, "b": 0.5 * total})


@pytest.mark.parametrize("budget", [20, 60, 1000])
def test_each_term_is_divided_once_by_its_own_weight(tmp_path, budget):
    """Whatever the micro-batches, the step is that of the whole batch."""
    weights = {}
    for name, size in (("split", budget), ("whole", 10_000)):
        loop = engine(tmp_path / name, objective=TwoTerms(), budget=size)
        loop.train_step(1e-2)
        weights[name] = loop.state.optimizer.weights()
    for key, value in weights["whole"].items():
        assert torch.allclose(weights["split"][key], value, atol=1e-6)


@pytest.mark.parametrize("path, budget", [("layout", 60), ("padded", 60), ("padded", 10_000)])
def test_neftune_does_not_depend_on_the_micro_batches_or_the_path(tmp_path, path, budget):
    """Rows that begin alike: with noise of their own they are computed apart."""
    rows = fakes.rows(8, begin=9)
    weights = {}
    for name, size, way, alpha in (
        ("split", budget, path, 5.0),
        ("whole", 10_000, "layout", 5.0),
        ("quiet", 10_000, "layout", None),
    ):
        loop = engine(tmp_path / name, rows=rows, budget=size, neftune_alpha=alpha, eps=1.0)
        loop.source.share = alpha is None
        if name == "split":  # in another order too
            loop.source.micro_batches = lambda step, size, given=loop.source.micro_batches: given(step, size)[
                ::-1
            ]
        loop.model = fakes.model("llama", way, loop.model.module)
        loop.train_step(1e-2)
        assert loop.model.noise is None
        weights[name] = loop.state.optimizer.weights()
    # With an eps this large AdamW's first step grows with the gradient, and does not magnify its rounding.
    gap = {n: max((w[k] - weights["whole"][k]).abs().max().item() for k in w) for n, w in weights.items()}
    assert gap["split"] < 3e-7 < 1e-5 < gap["quiet"], "one or two roundings of float32"


def test_evaluation_sees_no_noise(tmp_path):
    batch = Batch.from_rows(fakes.rows(3))
    seen = []

    def evaluate(step):
        assert loop.model.noise is None
        seen.append(torch.equal(loop.model.logits(batch), loop.model.logits(batch)))
        return {"loss": 1.0}

    loop = engine(tmp_path, watch=Watch(evaluate, "loss", False), neftune_alpha=5.0)
    loop.source.share = False
    loop.run()
    assert seen == [True] * 5


def test_what_the_rows_of_a_step_begin_with_counts_once_in_each_micro_batch():
    rows = [fakes.row([*range(3, 43), 50 + i], 40, i) for i in range(6)]  # 40 of 41 tokens alike

    def batches(**how):
        source = StaticSource(rows, 6, 6, seed=0, shuffled=False, **{"padded": False, **how})
        return source.micro_batches(0, 43)

    assert [b.num_rows for b in batches()] == [3, 3]
    assert [b.layout.num_tokens for b in batches()] == [43, 43]
    for how in ({"share": False}, {"padded": True}):
        assert [b.num_rows for b in batches(**how)] == [1] * 6


def test_the_last_step_of_a_run_may_be_short():
    source = StaticSource(fakes.rows(10), 4, 10, seed=0, padded=False)
    assert source.total_steps == 3
    assert [len(source.indices(s)) for s in range(3)] == [4, 4, 2]
    assert sorted(i for s in range(3) for i in source.indices(s)) == list(range(10))


def test_max_steps_or_else_epochs_say_how_many_rows_are_taken():
    assert rows_taken(TrainConfig(batch_size=4, epochs=2.5), 10) == 25
    assert rows_taken(TrainConfig(batch_size=4, epochs=0.01), 10) == 1
    assert rows_taken(TrainConfig(batch_size=4, max_steps=7), 10) == 28


def test_every_epoch_sees_each_row_once_in_an_order_of_its_own():
    source = StaticSource(fakes.rows(10), 5, 30, seed=0, padded=False)
    epochs = [[*source.indices(2 * e), *source.indices(2 * e + 1)] for e in range(3)]
    assert all(sorted(e) == list(range(10)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = StaticSource(fakes.rows(10), 5, 30, seed=0, padded=False)
    assert again.indices(4) == source.indices(4)  # a function of the step alone
    other = StaticSource(fakes.rows(10), 5, 30, seed=1, padded=False)
    assert other.indices(0) != source.indices(0)


def test_a_curriculum_keeps_the_given_order_in_every_epoch():
    source = StaticSource(fakes.rows(6), 4, 12, seed=0, padded=False, shuffled=False)
    assert [source.indices(s) for s in range(3)] == [[0, 1, 2, 3], [4, 5, 0, 1], [2, 3, 4, 5]]


def test_batches_that_are_made_ahead_are_the_same():
    source = StaticSource(fakes.rows(10), 4, 26, seed=0, padded=False)
    wanted = [[b.refs for b in source.micro_batches(s, 40)] for s in range(source.total_steps)]
    ahead = Ahead(StaticSource(fakes.rows(10), 4, 26, seed=0, padded=False))
    assert ahead.total_steps == len(wanted)
    assert [[b.refs for b in ahead.micro_batches(s, 40)] for s in range(len(wanted))] == wanted
    assert [b.refs for b in ahead.micro_batches(2, 40)] == wanted[2]  # not the one it expected
    assert [b.refs for b in ahead.micro_batches(3, 10_000)] == [
        b.refs for b in source.micro_batches(3, 10_000)
    ]
    assert ahead.epoch(3) == source.epoch(3)


class Poisoned(Sft):
    """The supervised loss, but not finite on one row."""

    def __init__(self, line, value=math.nan, in_gradient=False):
        super().__init__(SftConfig())
        self.line, self.value, self.in_gradient = line, value, in_gradient

    def loss(self, model, batch):
        out = super().loss(model, batch)
        if any(ref.line == self.line for ref in batch.refs):
            total = out.terms["sft"]
            bad = total * self.value
            if self.in_gradient:  # finite value, infinite slope
                bad = total + torch.sqrt((total - total.detach()).abs())
            out.terms["sft"] = bad
        return out


@pytest.mark.parametrize("in_gradient", [False, True], ids=["loss", "gradient"])
def test_row_24_a_non_finite_number_stops_before_the_step_and_names_the_row(tmp_path, in_gradient):
    events = []
    loop = engine(
        tmp_path,
        objective=Poisoned(6, in_gradient=in_gradient),
        save_every=1,
        sink=lambda kind, **fields: events.append((kind, fields)),
    )
    with pytest.raises(NonFiniteError, match=r"fake\.jsonl:6") as caught:
        loop.run()
    assert "gradient" in str(caught.value) if in_gradient else "loss" in str(caught.value)
    assert "fake.jsonl:5" not in str(caught.value)
    assert all(torch.isfinite(w).all() for w in loop.state.optimizer.weights().values())
    saved = loop.checkpoints.load_latest()
    if saved is not None:
        assert all(torch.isfinite(t).all() for g in saved[1].groups.values() for t in g.values())
        ours = loop.state.optimizer.weights()
        assert all(torch.equal(ours[n], w) for n, w in saved[1].groups["weights"].items())
    assert events[-1][0] == "non_finite"
    assert events[-1][1]["rows"] == ["fake.jsonl:6"]


def test_early_stopping_keeps_the_best_step_on_disk(tmp_path):
    losses = iter([4.0, 3.0, 2.0, 1.0, 2.0, 2.0, math.nan, 1.0, 1.0, 1.0])
    loop = engine(
        tmp_path,
        rows=fakes.rows(40),
        watch=Watch(lambda step: {"loss": next(losses)}, "loss", higher=False),
        early_stopping=EarlyStopping(patience=4),
        save_every=1,
    )
    loop.run()
    progress = loop.state.progress
    assert (progress.best_step, progress.best_value, progress.step) == (3, 1.0, 7)
    assert "best was step 3" in progress.stopped
    assert loop.checkpoints.steps() == [3, 6, 7]


def test_the_base_itself_is_a_candidate_for_the_best_step(tmp_path):
    losses = iter([1.0, 3.0, 2.0, 1.0, 4.0])
    loop = engine(
        tmp_path, watch=Watch(lambda step: {"loss": next(losses)}, "loss", higher=False), save_every=1
    )
    before = {n: w.clone() for n, w in loop.state.optimizer.weights().items()}
    loop.run()
    assert loop.state.progress.best_step == 0
    kept = loop.checkpoints.load(0).groups["weights"]
    assert all(torch.equal(before[n], kept[n]) for n in before)
    assert not all(torch.equal(before[n], w) for n, w in loop.state.optimizer.weights().items())


def test_a_metric_of_which_more_is_better(tmp_path):
    values = iter([0.0, 0.1, 0.5, 0.4, 0.5])
    loop = engine(tmp_path, watch=Watch(lambda step: {"accuracy": next(values)}, "accuracy", higher=True))
    loop.run()
    assert loop.state.progress.best_step == 2


def test_a_reason_to_stop_saves_and_returns(tmp_path):
    loop = engine(
        tmp_path, rows=fakes.rows(40), stop=lambda: "SIGTERM" if loop.state.progress.step == 3 else ""
    )
    loop.run()
    assert loop.state.progress.step == 3
    assert loop.checkpoints.steps() == [3]
    assert not loop.state.progress.stopped  # a resume goes on


def test_row_12_evaluation_leaves_the_model_training(tmp_path):
    seen = []
    loop = engine(tmp_path, watch=Watch(lambda step: (seen.append(step), {"loss": 1.0})[1], "loss", False))
    loop.run()
    assert loop.model.module.training
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("last", "measured"), [(2, None), (4, 1)])
def test_a_profile_ends_with_the_run(tmp_path, last, measured):
    """A run that stops while steps are measured tells what it has; no profiler is left running."""
    told = []
    running = engine(
        tmp_path,
        rows=fakes.rows(40),
        sink=lambda kind, **fields: told.append((kind, fields)),
        stop=lambda: "asked to" if running.state.progress.step == last else "",
    )
    running.profile = Profile(running.model, running.source.total_steps)
    running.run()
    assert running.state.progress.step == last
    assert not torch.autograd._profiler_enabled()
    profiles = [fields["steps"] for kind, fields in told if kind == "profile"]
    notes = [fields["text"] for kind, fields in told if kind == "note"]
    assert profiles == ([] if measured is None else [measured])
    assert ("no profile: the run ended before a step was measured" in notes) == (measured is None)


def test_a_profile_ends_with_a_run_that_fails(tmp_path):
    running = engine(tmp_path, rows=fakes.rows(40), learning_rate=1e30)
    running.profile = Profile(running.model, 2)
    with pytest.raises(NonFiniteError):
        running.run()
    assert not torch.autograd._profiler_enabled()
