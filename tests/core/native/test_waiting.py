"""Kernels that wait for others: in their order, and before anything else reads what they make."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from tests.core.native.formulas import near, needs_library, needs_tiles
from tunesmith.core.native import sums
from tunesmith.core.native.call import now, takes, waiting
from tunesmith.core.native.ops import dropped
from tunesmith.core.native.sums import Sum, fill, together

pytestmark = needs_library


def asked(x: Tensor) -> Tensor:
    """x without its elements' values until the kernel has run."""
    out = torch.full_like(x, -1)
    return dropped(x, 1, 0.0, out)


def test_calls_wait_for_the_end_and_keep_their_order() -> None:
    x = torch.ones(5)
    with waiting():
        first = asked(x)
        second = asked(first)
        assert first.tolist() == second.tolist() == [-1] * 5
        with waiting():  # the outer one counts
            third = asked(second)
        assert third.tolist() == [-1] * 5
    assert first.tolist() == second.tolist() == third.tolist() == [1] * 5
    assert asked(x).tolist() == [1] * 5


def test_now_makes_what_waits_once() -> None:
    x = torch.ones(5)
    with waiting():
        found = asked(x)
        now()
        assert found.tolist() == [1] * 5
        found.fill_(7)
    assert found.tolist() == [7] * 5
    now()


def test_what_waits_holds_its_tensors() -> None:
    with waiting():
        found = asked(torch.ones(1000))
        others = [torch.zeros(1000) for _ in range(20)]
    assert found.tolist() == [1] * 1000
    assert len(others) == 20


def test_an_error_drops_what_waits() -> None:
    x, found = torch.ones(5), torch.zeros(5)

    def broken() -> None:
        nonlocal found
        with waiting():
            found = asked(x)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        broken()
    assert found.tolist() == [-1] * 5
    assert asked(x).tolist() == [1] * 5


def test_where_pytorch_follows_nothing_waits() -> None:
    with waiting():
        found = asked(torch.ones(5))
        assert takes(found)
        assert found.tolist() == [-1] * 5
        assert not takes(found.double())
        assert found.tolist() == [1] * 5


def test_another_thread_does_not_wait() -> None:
    found: list[list[float]] = []
    with waiting():
        other = threading.Thread(target=lambda: found.append(asked(torch.ones(2)).tolist()))
        other.start()
        other.join()
    assert found == [[1, 1]]


@needs_tiles
def test_together_is_for_tiles_without_a_profiler() -> None:
    x = torch.randn(64, 32).bfloat16()
    out = torch.zeros(64, 64, dtype=torch.bfloat16)
    with together(x):
        fill(Sum(out, [(x, x.t())]))
        assert not out.any()
    near(out, x.double() @ x.double().t())
    for of, watched in ((x.float(), nullcontext()), (x, sums.watched())):
        made = torch.zeros(64, 64, dtype=of.dtype)
        with watched, together(of):
            fill(Sum(made, [(of, of.t())]))
            assert made.any()
