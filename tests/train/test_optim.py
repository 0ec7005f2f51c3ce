"""Row 17: master weights move; the update is that of a float32 AdamW; clipping and the schedule are the formulas."""

from __future__ import annotations

import math

import psutil
import pytest
import torch
from torch import nn

from tunesmith.config.run import TrainConfig
from tunesmith.core import native
from tunesmith.core.device import zeros_apart
from tunesmith.core.native.ops import embed
from tunesmith.train import optim
from tunesmith.train.optim import Optimizer, learning_rate


def linear(dtype: torch.dtype) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(40, 30).to(dtype)


def test_row_17_a_hundred_tiny_steps_move_the_masters_as_float32_would():
    """lr 1e-6: bfloat16 weights alone would hardly move (their step near 0.1 is 5e-4)."""
    torch.manual_seed(1)
    gradients = [torch.randn(30, 40) for _ in range(100)]
    low, high = linear(torch.bfloat16), linear(torch.bfloat16).float()
    start = high.weight.detach().clone()
    config = TrainConfig(max_grad_norm=None, weight_decay=0.0)
    optimizer = Optimizer(low, config)
    plain = torch.optim.AdamW([high.weight], lr=1e-6, betas=config.betas, eps=config.eps, weight_decay=0.0)
    for gradient in gradients:
        low.weight.grad = None
        (low.weight * gradient.bfloat16()).sum().backward()
        optimizer.step(1e-6, optimizer.grad_norm().item())
        high.weight.grad = gradient.bfloat16().float()
        plain.step()
    moved = optimizer.masters["weight"] - start
    expected = high.weight.detach() - start
    assert (moved != 0).float().mean() >= 0.99
    assert torch.nn.functional.cosine_similarity(moved.flatten(), expected.flatten(), dim=0) >= 0.999
    assert torch.equal(low.weight.detach(), optimizer.masters["weight"].bfloat16())


def test_gradients_of_many_micro_batches_are_summed_in_float32():
    """1 + 256 * 2^-9 is 1.5 in float32; in bfloat16 each addition would be rounded away."""
    layer = linear(torch.bfloat16)
    optimizer = Optimizer(layer, TrainConfig())
    (layer.bias.sum()).backward()
    for _ in range(256):
        (layer.bias * 2**-9).sum().backward()
    assert optimizer.gradients["bias"][0].item() == 1.5
    assert layer.bias.grad is None


def test_the_gradient_is_scaled_down_to_the_greatest_norm():
    layer = linear(torch.float64)
    optimizer = Optimizer(layer, TrainConfig(max_grad_norm=0.5))
    layer.weight.grad = torch.full((30, 40), 2.0, dtype=torch.float64)
    layer.bias.grad = torch.full((30,), -1.0, dtype=torch.float64)
    norm = optimizer.grad_norm().item()
    assert norm == pytest.approx(math.sqrt(1200 * 4 + 30), rel=1e-12)
    seen = {}
    optimizer.adamw.step = lambda: seen.update(g=layer.weight.grad.clone())
    optimizer.step(1e-3, norm)
    assert seen["g"][0, 0].item() == pytest.approx(2.0 * 0.5 / norm, rel=1e-12)


def test_weight_decay_is_for_matrices_only():
    layer = linear(torch.float64)
    before = {n: p.detach().clone() for n, p in layer.named_parameters()}
    optimizer = Optimizer(layer, TrainConfig(weight_decay=0.1))
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(0.5, 0.0)
    assert torch.allclose(layer.weight, before["weight"] * (1 - 0.5 * 0.1), rtol=1e-12)
    assert torch.equal(layer.bias, before["bias"])


def test_restored_moments_continue_bit_identically():
    a, b = linear(torch.bfloat16), linear(torch.bfloat16)
    one, two = Optimizer(a, TrainConfig()), Optimizer(b, TrainConfig())
    for _ in range(3):
        (a(torch.ones(40, dtype=torch.bfloat16)) ** 2).sum().backward()
        one.step(1e-3, one.grad_norm().item())
    two.restore(one.weights(), one.moments())
    for layer, optimizer in ((a, one), (b, two)):
        (layer(torch.ones(40, dtype=torch.bfloat16)) ** 2).sum().backward()
        optimizer.step(1e-3, optimizer.grad_norm().item())
    assert all(torch.equal(one.masters[n], two.masters[n]) for n in one.masters)


def test_what_a_checkpoint_gets_is_no_copy():
    """A copy of masters and moments would double a run's memory each time that it is saved."""
    layer = linear(torch.bfloat16)
    optimizer = Optimizer(layer, TrainConfig())
    (layer(torch.ones(40, dtype=torch.bfloat16)) ** 2).sum().backward()
    optimizer.step(1e-3, 1.0)
    moments = optimizer.moments()
    for name, master in optimizer.masters.items():
        assert optimizer.weights()[name].data_ptr() == master.data_ptr()
        assert moments[f"exp_avg.{name}"].data_ptr() == optimizer.adamw.state[master]["exp_avg"].data_ptr()


@pytest.mark.skipif(native.library() is None, reason=native.why_not())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_gradient_of_some_rows_is_that_of_all_where_the_others_are_zero(dtype, decay, passes):
    """Rows with and without a gradient now, with and without one before; to the bit."""
    torch.manual_seed(0)
    first = nn.Embedding(64, 40).to(dtype)
    second = nn.Embedding(64, 40).to(dtype)
    second.load_state_dict(first.state_dict())
    config = TrainConfig(weight_decay=decay, max_grad_norm=0.5)
    some, whole = Optimizer(first, config), Optimizer(second, config)
    for ids in ([3, 5, 3], [5, 8, 60], [1]):
        for _ in range(passes):
            for layer in (first, second):
                rows = embed(torch.tensor(ids), layer.weight, None)
                if layer is second:
                    rows = rows.detach().requires_grad_()
                rows.square().sum().backward()
                if layer is second:
                    dense = torch.zeros_like(layer.weight, dtype=torch.float32)
                    dense.index_add_(0, torch.tensor(ids), rows.grad.float())
                    (layer.weight * dense.to(dtype)).sum().backward()
        norms = [optimizer.grad_norm().item() for optimizer in (some, whole)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-6)
        for optimizer in (some, whole):
            optimizer.step(1e-2, norms[0])
    assert torch.equal(some.weights()["weight"], whole.weights()["weight"])
    assert all(torch.equal(part, whole.moments()[name]) for name, part in some.moments().items())
    assert torch.equal(first.weight, second.weight)


class Mixed(nn.Module):
    """Weights of both types, some with a gradient of some rows, some with none in some steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.low, self.high = nn.Embedding(64, 40).bfloat16(), nn.Embedding(9, 700)
        self.weights = nn.ParameterList(
            [torch.randn(shape) for shape in [(3,), (70, 80), (4096,), (1,), (16, 9)]]
        )
        self.halves = nn.ParameterList([torch.randn(shape).bfloat16() for shape in [(130, 90), (5,)]])

    def loss(self, step: int) -> torch.Tensor:
        read = [embed(torch.tensor([step, 3, 5]), layer.weight, None) for layer in (self.low, self.high)]
        dense = [w for i, w in enumerate([*self.weights, *self.halves]) if (i + step) % 3]
        return sum((w.float() ** 2).sum() + w.float().sum() for w in [*read, *dense])


@pytest.mark.skipif(native.library() is None, reason=native.why_not())
def test_one_call_for_all_parameters_steps_them_as_pytorch_does(monkeypatch):
    """Of its own step each: those that had no gradient at first are behind."""
    ours, theirs = Mixed(), Mixed()
    config = TrainConfig(max_grad_norm=0.5, weight_decay=0.1)
    factors = {name: 0.5 for name, _ in ours.named_parameters() if name.startswith("weights")}
    called, other = Optimizer(ours, config, factors), Optimizer(theirs, config, factors)
    for step in range(4):
        norms = []
        for module, optimizer, takes in ((ours, called, optim.takes_each), (theirs, other, lambda *_: False)):
            module.loss(step).backward()
            with monkeypatch.context() as patched:
                patched.setattr(optim, "takes_each", takes)
                norms.append(optimizer.grad_norm().item())
                optimizer.step(1e-2, norms[-1])
        assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    moments, wanted = called.moments(), other.moments()
    assert {moments[name].item() for name in moments if name.startswith("step.")} == {2, 3, 4}
    for name, weight in called.weights().items():
        assert torch.allclose(weight, other.weights()[name], rtol=1e-4, atol=1e-5), name
        assert moments[f"step.{name}"] == wanted[f"step.{name}"]
        assert torch.equal(called.parameters[name], weight.to(called.parameters[name].dtype))
    assert all(p.grad is None for p in ours.parameters())


def test_moments_lie_in_pages_that_are_taken_when_they_are_written():
    """Of 128 MiB a row is written; the rest of an embedding that is never read takes no memory."""
    before = psutil.Process().memory_info().rss
    found = zeros_apart(torch.empty(2**25))
    found[7] = 1
    assert found.sum() == 1
    assert psutil.Process().memory_info().rss - before < 2**25


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_schedule_is_the_formula(schedule):
    config = TrainConfig(learning_rate=2e-3, warmup_fraction=0.1, schedule=schedule, final_lr_fraction=0.1)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([2e-3 * (i + 1) / 11 for i in range(10)])
    assert rates[10] == pytest.approx(2e-3)
    share = 89 / 90
    last = {
        "cosine": 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)),
        "linear": 0.1 + 0.9 * (1 - share),
        "constant": 1.0,
    }
    assert rates[99] == pytest.approx(2e-3 * last[schedule])


def test_wsd_is_flat_until_its_last_steps_and_then_falls_as_one_minus_the_root():
    config = TrainConfig(
        learning_rate=2e-3, warmup_fraction=0.1, schedule="wsd", decay_fraction=0.3, final_lr_fraction=0.05
    )
    rates = [learning_rate(step, 100, config) for step in range(100)]
    expected = [(i + 1) / 11 for i in range(10)] + [1.0] * 60
    expected += [0.05 + 0.95 * (1 - (i / 30) ** 0.5) for i in range(30)]
    assert rates == pytest.approx([2e-3 * share for share in expected])


def test_inverse_sqrt_falls_from_the_peak_at_the_end_of_the_warm_up():
    config = TrainConfig(learning_rate=2e-3, warmup_fraction=0.1, schedule="inverse_sqrt")
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([2e-3 * (i + 1) / 11 for i in range(10)])
    assert rates[10:] == pytest.approx([2e-3 * (10 / i) ** 0.5 for i in range(10, 100)])


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"decay_fraction": 0.3}, "decay_fraction is set but schedule is cosine; write schedule: wsd"),
        (
            {"schedule": "constant", "final_lr_fraction": 0.0},
            "final_lr_fraction is set but schedule is constant",
        ),
        (
            {"schedule": "inverse_sqrt", "final_lr_fraction": 0.0},
            "final_lr_fraction is set but schedule is inv",
        ),
        ({"schedule": "wsd", "warmup_fraction": 0.5, "decay_fraction": 0.6}, "more than the whole run"),
    ],
)
def test_a_setting_that_the_schedule_does_not_have_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        TrainConfig(**settings)


def test_a_short_run_of_wsd_warms_up_before_it_falls():
    config = TrainConfig(
        learning_rate=1.0, warmup_fraction=0.5, schedule="wsd", decay_fraction=0.5, final_lr_fraction=0.0
    )
    rates = [learning_rate(step, 3, config) for step in range(3)]  # two steps of each would be four
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0])
