"""AdamW with bfloat16 moments: an exact master, moves as float32 would, resumes with its bits, 6 bytes a weight."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tunesmith.config.run import TrainConfig
from tunesmith.core.native.adamw import Update, adamw
from tunesmith.core.native.call import takes
from tunesmith.core.native.ops import embed
from tunesmith.errors import CheckpointError, ConfigError
from tunesmith.train.checkpoint import Checkpoints, Snapshot
from tunesmith.train.lean import hashed, joined, plain, rounded, split
from tunesmith.train.optim import Optimizer


def linear(dtype: torch.dtype = torch.bfloat16) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(40, 30).to(dtype)


def lean(layer: nn.Module, **settings) -> Optimizer:
    return Optimizer(layer, TrainConfig(optimizer_state="bfloat16", **settings))


def value(optimizer: Optimizer, name: str) -> torch.Tensor:
    """What the weight and its rest stand for."""
    one = optimizer.lean[name]
    return joined(one.weight.detach(), one.state["rest"]).double()


@pytest.mark.parametrize("rate", [1e-3, 1e-5, 1e-6])
def test_a_hundred_steps_move_the_weights_as_float32_would(rate):
    """A bfloat16 near 0.1 has steps of 5e-4: alone it would not move."""
    torch.manual_seed(1)
    gradients = [torch.randn(30, 40) + 0.3 for _ in range(100)]
    low, high = linear(), linear().float()
    start = high.weight.detach().double().clone()
    optimizer = lean(low, max_grad_norm=None, weight_decay=0.0)
    plain = torch.optim.AdamW([high.weight], lr=rate, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
    for gradient in gradients:
        (low.weight * gradient.bfloat16()).sum().backward()
        optimizer.step(rate, optimizer.grad_norm().item())
        high.weight.grad = gradient.bfloat16().float()
        plain.step()
    moved, expected = value(optimizer, "weight") - start, high.weight.detach().double() - start
    assert torch.nn.functional.cosine_similarity(moved.flatten(), expected.flatten(), dim=0) >= 0.999
    assert moved.mean().item() == pytest.approx(expected.mean().item(), rel=0.01)
    assert torch.equal(low.weight.detach(), value(optimizer, "weight").bfloat16())
    # Moments of 8 bits move a weight a little otherwise; the master adds nothing to that.
    assert (moved - expected).abs().max().item() <= 0.02 * expected.abs().max().item()


def test_rounding_is_exact_in_the_mean_and_leaves_what_fits():
    steps = torch.tensor([1.0, -1.0, 0.0, 3.5, -(2.0**-40), float("inf")])
    assert torch.equal(rounded(steps, torch.full((6,), 0xFFFF)).float(), steps)
    x = torch.full((200_000,), 1 + 0.3 * 2**-7)
    found = rounded(x, hashed(len(x), 12345) & 0xFFFF).double()
    assert set(found.unique().tolist()) == {1.0, 1 + 2**-7}
    assert ((found - 1) * 2**7).mean().item() == pytest.approx(0.3, abs=4 * (0.21 / 200_000) ** 0.5)


def test_hashes_of_neighbours_and_of_steps_are_unlike():
    one, other = hashed(100_000, 1), hashed(100_000, 1 + 0x9E3779B1)
    for x, y in ((one[1:], one[:-1]), (one, other), (one >> 16, one & 0xFFFF)):
        assert abs(torch.corrcoef(torch.stack([x.double(), y.double()]))[0, 1].item()) < 0.02
    assert one.unique().numel() > 99_990


NUMBERS = st.floats(width=32, allow_nan=False, min_value=-(2.0**126), max_value=2.0**126)


@given(st.lists(NUMBERS, min_size=1, max_size=64))
def test_a_master_is_a_bfloat16_and_the_bits_that_it_lacks(numbers):
    x = torch.tensor(numbers, dtype=torch.float32)
    weight, rest = split(x)
    assert torch.equal(joined(weight, rest), x)
    assert ((weight.double() - x.double()).abs() <= (x.bfloat16().double() - x.double()).abs()).all()


def test_the_master_loses_nothing():
    """Moments of one gradient again and again, a power of two, are rounded alike each time or not at all: what is left
    is a float32's own last bit."""
    low, high = linear(), linear().float()
    optimizer = lean(low, max_grad_norm=None, weight_decay=0.0, betas=(0.5, 0.75))
    reference = torch.optim.AdamW([high.weight], lr=3e-4, betas=(0.5, 0.75), weight_decay=0.0)
    for _ in range(3):
        (low.weight * 0.5).sum().backward()
        optimizer.step(3e-4, optimizer.grad_norm().item())
        high.weight.grad = torch.full((30, 40), 0.5)
        reference.step()
    assert torch.allclose(value(optimizer, "weight"), high.weight.detach().double(), rtol=3e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("count", [9001, 16, 5])
def test_the_kernel_is_the_formula(dtype, count):
    torch.manual_seed(2)
    weight, first, second = (torch.randn(count).bfloat16() for _ in range(3))
    rest = torch.randint(-(2**15), 2**15, (count,)).to(torch.int16)
    tensors = [weight, first, 0.1 + second.abs(), torch.tensor(6.0), rest]
    if not takes(weight):
        pytest.skip("no compiler")
    grad = torch.randn(count).to(dtype)
    ours, formula = ([t.clone() for t in tensors] for _ in range(2))
    adamw([Update(ours[0], grad, *ours[1:], 0.5, 1e-2, 0.1, 77)], (0.9, 0.99), 1e-8)
    plain(Update(formula[0], grad, *formula[1:], 0.5, 1e-2, 0.1, 77), (0.9, 0.99), 1e-8)
    for one, other in zip(ours[1:4], formula[1:4], strict=True):
        # The last bit of a float32 sum may differ: it moves one stochastic rounding in a hundred.
        assert (one == other).float().mean() > 0.98
    masters = [joined(w, rest).double() for w, *_, rest in (ours, formula)]
    assert torch.allclose(*masters, rtol=1e-6, atol=1e-8)


def test_rows_of_an_embedding_without_gradient_stay_as_they_are():
    weight = torch.randn(9, 40).bfloat16()
    if not takes(weight):
        pytest.skip("no compiler")
    optimizer = lean(
        layer := nn.Embedding(9, 40, _weight=weight.clone()), weight_decay=0.0, max_grad_norm=None
    )
    rows = torch.tensor([2, 5])
    for _ in range(2):
        layer.weight.grad = None
        embed(rows, layer.weight, None).float().sum().backward()
        assert optimizer.gradients["weight"].is_sparse
        optimizer.step(1e-2, optimizer.grad_norm().item())
        rows = rows[:1]
    moved = (layer.weight.detach() != weight).any(1).nonzero().flatten()
    assert moved.tolist() == [2, 5]
    state = optimizer.lean["weight"].state
    assert state["exp_avg"].ne(0).any(1).nonzero().flatten().tolist() == [2, 5]
    # The one without a second gradient goes on by its moments.
    assert (state["exp_avg"][5].double() / state["exp_avg"][2].double()).mean().item() == pytest.approx(
        0.9 / 1.9, rel=0.02
    )


def test_a_checkpoint_of_another_kind_is_refused():
    optimizer = lean(layer := linear())
    (layer.weight.sum() + layer.bias.sum()).backward()
    optimizer.step(1e-3, 1.0)
    moments = {k.replace("rest", "error"): v for k, v in optimizer.moments().items()}
    with pytest.raises(CheckpointError, match=r"(?s)error.*rest"):
        optimizer.restore(optimizer.weights(), moments)


def test_gradients_of_many_micro_batches_are_summed_in_float32():
    layer = linear()
    optimizer = lean(layer)
    layer.bias.sum().backward()
    assert optimizer.gradients["bias"].dtype == torch.bfloat16
    for _ in range(256):
        (layer.bias * 2**-9).sum().backward()
    assert optimizer.gradients["bias"][0].item() == 1.5
    assert layer.bias.grad is None
    assert optimizer.grad_norm().item() == pytest.approx(1.5 * 30**0.5)


def test_a_resumed_run_has_the_same_bits(tmp_path):
    torch.manual_seed(3)
    inputs = [torch.randn(8, 40).bfloat16() for _ in range(6)]

    def go(layer, optimizer, batches):
        for x in batches:
            (layer(x) ** 2).sum().backward()
            optimizer.step(1e-3, optimizer.grad_norm().item())

    straight, first, second = linear(), linear(), linear()
    one = lean(straight)
    go(straight, one, inputs)
    half = lean(first)
    go(first, half, inputs[:3])
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(3, Snapshot({"weights": half.weights(), "optimizer": half.moments()}, {}), best=None)
    groups = checkpoints.load(3).groups
    assert groups["weights"]["weight"].dtype == torch.bfloat16
    rest = lean(second)
    rest.restore(groups["weights"], groups["optimizer"])
    go(second, rest, inputs[3:])
    for name, weight in one.weights().items():
        assert torch.equal(weight, rest.weights()[name])
        assert all(torch.equal(p, rest.lean[name].state[kind]) for kind, p in one.lean[name].state.items())


def test_it_keeps_six_bytes_a_weight_and_the_norms_of_a_model_in_float32():
    layer = nn.Sequential(linear(), nn.LayerNorm(30))
    layer.append(nn.Linear(30, 2, dtype=torch.float32))
    optimizer = lean(layer)
    (layer[0](torch.ones(1, 40, dtype=torch.bfloat16)).sum()).backward()
    optimizer.step(1e-3, 1.0)
    assert optimizer.lean.keys() == {"0.weight", "0.bias"}
    state = optimizer.lean["0.weight"].state
    assert sum(part.nbytes for part in state.values()) == 6 * 1200 + 4
    assert optimizer.weights().keys() == dict(layer.named_parameters()).keys()


def test_decay_clipping_and_a_rate_of_its_own_are_adamws():
    layer = linear()
    before = layer.weight.detach().double()
    optimizer = Optimizer(
        layer, TrainConfig(optimizer_state="bfloat16", weight_decay=0.1, max_grad_norm=0.5), {"weight": 0.5}
    )
    (layer.weight * 0).sum().backward()
    optimizer.step(0.5, 7.0)
    assert torch.allclose(value(optimizer, "weight"), before * (1 - 0.25 * 0.1), rtol=1e-6)
    layer.bias.sum().backward()
    norm = optimizer.grad_norm().item()
    optimizer.step(0.0, norm)
    assert optimizer.lean["bias"].state["exp_avg"][0].item() == pytest.approx(0.1 * 0.5 / norm, rel=2**-8)


def test_where_nothing_trained_is_in_bfloat16_it_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer_state=bfloat16.*nothing that is trained"):
        lean(linear(torch.float32))
