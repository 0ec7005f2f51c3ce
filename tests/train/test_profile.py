"""Where the time of steps goes: every event counted once, products counted by their shapes."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, record_function

from tunesmith.train.profile import STEP, part_of, product, summary


def events(work: object) -> list[object]:
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        torch.ones(9, 9) @ torch.ones(9, 9)  # an evaluation, say
        with record_function(STEP):
            work()  # type: ignore[operator]
    return list(found.events())


def test_products_are_counted_by_their_shapes() -> None:
    a, b = torch.randn(5, 7), torch.randn(7, 11)
    batch = torch.randn(3, 5, 7)

    def work() -> None:
        a @ b
        torch.addmm(torch.zeros(5, 11), a, b)
        torch.zeros(5, 11).addmm_(a, b)
        batch @ batch.transpose(1, 2)

    found = [p for p in map(product, events(work)) if p is not None]
    assert found == [(1, 9, 9, 9)] + [(1, 5, 7, 11)] * 3 + [(3, 5, 7, 5)]
    told = summary(events(work), [1.5, 0.5], torch.ones(1))
    assert told["flops"] == 2 * (3 * 5 * 7 * 11 + 3 * 5 * 7 * 5)
    assert told["fraction"] == pytest.approx(told["flops"] / told["limit"] / 2.0)
    more = summary(events(work), [1.5, 0.5], torch.ones(1), [(1, 2, 3, 4)])
    assert more["flops"] == told["flops"] + 2 * 2 * 3 * 4


def test_an_event_counts_for_its_outermost_part_and_for_no_other() -> None:
    x = torch.randn(40, 40, requires_grad=True)

    def work() -> None:
        with record_function("tunesmith: optimizer"):
            x.detach() @ x.detach()
        (x @ x).exp().sum().backward()

    found = events(work)
    parts = {(e.name, part_of(e)) for e in found}  # type: ignore[attr-defined]
    assert ("aten::mm", "optimizer") in parts
    assert ("aten::mm", "linear layers") in parts
    assert ("aten::exp", "other") in parts
    told = summary(found, [1.0], torch.ones(1))
    (step,) = [e for e in found if e.name == STEP]  # type: ignore[attr-defined]
    assert sum(told["parts"].values()) == pytest.approx(step.cpu_time_total / 1e6)  # type: ignore[attr-defined]
