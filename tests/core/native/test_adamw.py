"""AdamW and the norm over many tensors at once: each against PyTorch's formula, and to the bit as alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.core.native.formulas import DTYPES, near, needs_library
from tunesmith.core.native.adamw import Update, adamw, square_sum

pytestmark = needs_library
BETAS, EPS = (0.8, 0.95), 1e-6


def update(weight: Tensor, gradient: Tensor, *factors: float, low: bool = False, done: int = 0) -> Update:
    """Its first step; `low`: of a weight in bfloat16."""
    copy = weight.bfloat16() if low else None
    moments = (torch.zeros_like(weight), torch.zeros_like(weight), torch.tensor(float(done)))
    return Update(weight, gradient, *moments, copy, *factors)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_equals_pytorchs(decay: float) -> None:
    weight = torch.randn(9001)
    exact = weight.double().requires_grad_()
    reference = torch.optim.AdamW([exact], lr=1e-2, betas=BETAS, eps=EPS, weight_decay=decay)
    ours = update(weight, torch.zeros(9001), 0.5, 1e-2, decay, low=True)
    for _ in range(5):
        grad = torch.randn(9001)
        exact.grad = 0.5 * grad.double()
        reference.step()
        adamw([ours._replace(gradient=grad)], BETAS, EPS)
    near(weight, exact.detach())
    assert ours.done == 5
    assert ours.beside is not None
    assert torch.equal(ours.beside, weight.bfloat16())


def some_rows(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    ids = torch.arange(rows)[torch.rand(rows) < 0.3]
    values = torch.randn(len(ids), width, dtype=dtype)
    return torch.sparse_coo_tensor(ids[None], values, (rows, width), is_coalesced=True, check_invariants=True)


def of_many_kinds() -> list[Update]:
    """Larger and smaller than a part that a thread takes; some began later than others."""
    torch.manual_seed(0)
    shapes = [(16, 576), (1,), (4096,), (4097,), (3, 7), (1,), (200, 99), (5, 4096)]
    found = []
    for i, shape in enumerate(shapes * 2):
        gradient = torch.randn(shape, dtype=DTYPES[i % 3 == 0])
        found.append(
            update(torch.randn(shape), gradient, 1 / (i + 1), 1e-3 * i, 0.1 * (i % 2), low=i % 4 < 2, done=i)
        )
    for i, shape in enumerate([(70, 33), (9, 5000)] * 2):
        gradient = some_rows(*shape, DTYPES[i // 2])
        found.append(update(torch.randn(shape), gradient, 0.5, 1e-2, 0.1 * (i % 2), low=i % 2 == 0))
    turned = torch.randn(60, 50).t()
    return [*found, update(torch.randn(50, 60), turned, 0.5, 1e-2, 0.0)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_tensors_step_as_each_alone_whatever_the_number_of_threads(threads: int) -> None:
    together, alone, dense = of_many_kinds(), of_many_kinds(), of_many_kinds()
    exact = [one.weight.double() for one in alone]
    before = torch.get_num_threads()
    for _ in range(3):
        for one in alone:
            adamw([one], BETAS, EPS)
        adamw([one._replace(gradient=one.gradient.to_dense()) for one in dense], BETAS, EPS)
        torch.set_num_threads(threads)
        try:
            adamw(together, BETAS, EPS)
        finally:
            torch.set_num_threads(before)
    for one, other, third, weight in zip(together, alone, dense, exact, strict=True):
        for name in ("weight", "first", "second", "done", "beside"):
            mine = getattr(one, name)
            assert mine is None or torch.equal(mine, getattr(other, name))
            assert mine is None or torch.equal(mine, getattr(third, name))
        assert one.beside is None or torch.equal(one.beside, one.weight.bfloat16())
        near(one.weight, formula(weight, one, 3))


def formula(weight: Tensor, one: Update, steps: int) -> Tensor:
    """arXiv:1711.05101, algorithm 2, in float64, of the same gradient in each step."""
    gradient = one.gradient.to_dense().double() * one.clip
    first, second, begun = torch.zeros_like(gradient), torch.zeros_like(gradient), int(one.done) - steps
    for step in range(begun + 1, begun + steps + 1):
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient.square()
        share = first / (1 - BETAS[0] ** step) / ((second / (1 - BETAS[1] ** step)).sqrt() + EPS)
        weight = weight * (1 - one.rate * one.decay) - one.rate * share
    return weight


def test_rounding_to_bfloat16_is_pytorchs() -> None:
    values = torch.randn(5000) * 10.0 ** torch.randint(-30, 30, (5000,))
    weight, copy = torch.cat([values, torch.tensor([0.0, -0.0])]), torch.zeros(5002, dtype=torch.bfloat16)
    one = update(weight, torch.zeros(5002), 1.0, 0.0, 0.0)._replace(beside=copy)
    adamw([one], BETAS, EPS)
    assert torch.equal(copy, weight.bfloat16())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 4096, 9001])
def test_sums_of_squares(dtype: torch.dtype, size: int) -> None:
    x = torch.randn(size).to(dtype)
    assert square_sum([x]).item() == pytest.approx(x.double().square().sum().item(), rel=1e-6)


def test_the_sum_of_squares_of_many_tensors_is_the_same_for_any_number_of_threads() -> None:
    tensors = [one.gradient.to_dense() for one in of_many_kinds()]
    wanted, before, found = (
        sum(x.double().square().sum().item() for x in tensors),
        torch.get_num_threads(),
        set(),
    )
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.add(square_sum(tensors).item())
    torch.set_num_threads(before)
    assert len(found) == 1
    assert found.pop() == pytest.approx(wanted, rel=1e-6)
    assert square_sum([]).item() == 0
