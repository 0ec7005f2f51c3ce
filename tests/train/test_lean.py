"""AdamW with bfloat16 state: moves as float32 would, sums exactly, resumes with its bits, takes 6 bytes a weight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tunesmith.config.run import TrainConfig
from tunesmith.core.native.call import call, takes
from tunesmith.errors import ConfigError
from tunesmith.train.checkpoint import Checkpoints, Snapshot
from tunesmith.train.lean import PARTS, _plain, hashed, rounded
from tunesmith.train.optim import Optimizer


def linear(dtype: torch.dtype = torch.bfloat16) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(40, 30).to(dtype)


def lean(layer: nn.Module, **settings) -> Optimizer:
    return Optimizer(layer, TrainConfig(optimizer_state="bfloat16", **settings))


def value(optimizer: Optimizer, name: str) -> torch.Tensor:
    """What the weight and its rest stand for."""
    one = optimizer.lean[name]
    return one.weight.detach().double() + one.state["error"].double()


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_kernel_is_the_formula(dtype):
    torch.manual_seed(2)
    tensors = [torch.randn(9001).bfloat16() for _ in range(4)]
    tensors[1] *= 1e-3
    tensors[3] = tensors[3].abs()
    if not takes(*tensors):
        pytest.skip("no compiler")
    grad = torch.randn(9001).to(dtype)
    ours, plain = ([t.clone() for t in tensors] for _ in range(2))
    factors, corrections = (0.5, 1e-2, 0.9, 0.99, 1e-8, 0.1), (0.4, 0.2)
    call("adamw_lean", dtype, *ours, grad, len(grad), *factors, *corrections, 77)
    _plain(tuple(plain), grad, factors, corrections, 77)
    for name, one, other in zip(("weight", *PARTS), ours, plain, strict=False):
        # The last bit of a float32 sum may differ: it moves one stochastic rounding in a hundred.
        assert (one == other).float().mean() > 0.98, name
    assert torch.allclose(
        ours[0].double() + ours[1].double(), plain[0].double() + plain[1].double(), rtol=1e-4
    )


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
    assert torch.allclose(value(optimizer, "weight"), before * (1 - 0.25 * 0.1), rtol=2**-14)
    layer.bias.sum().backward()
    norm = optimizer.grad_norm().item()
    optimizer.step(0.0, norm)
    assert optimizer.lean["bias"].state["exp_avg"][0].item() == pytest.approx(0.1 * 0.5 / norm, rel=2**-8)


def test_where_nothing_trained_is_in_bfloat16_it_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer_state=bfloat16.*nothing that is trained"):
        lean(linear(torch.float32))
