"""Where the time of a training step goes: some steps under PyTorch's profiler, its events sorted into parts.

An event's own time counts for the part of its outermost ancestor that has one, so that a product inside attention is
attention; the parts of a rollout count for themselves. The limit is the speed of the step's largest product alone,
measured right after: the fraction says how much of it the steps' products reached over the steps' whole time. On a GPU
the time is the GPU's own; what it waited for is in none of the parts.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, record_function

from tunesmith.core.device import finish
from tunesmith.core.model import Model
from tunesmith.core.native.sums import Shape, Sum, fill, watched
from tunesmith.train.spent import WORDS

FIRST, COUNT = 3, 5
"""Steps before, which warm up, and steps that are measured: at most so many."""
STEP = "tunesmith: step"
PARTS = {
    "tunesmith: data": "data",
    "tunesmith: optimizer": "optimizer",
    "_Attend": "attention",
    "_AttendTiles": "attention",
    "AttendShort": "attention",
    "aten::_flash_attention_forward": "attention",
    "aten::_flash_attention_backward": "attention",
    "aten::scaled_dot_product_attention": "attention",
    "ScaledDotProductFlashAttentionForCpuBackward0": "attention",
    "aten::bmm": "attention",
    "BmmBackward0": "attention",
    "aten::softmax": "attention",
    "SoftmaxBackward0": "attention",
    "_LinearCrossEntropy": "head and loss",
    "_LinearLosses": "head and loss",
    "_CrossEntropy": "head and loss",
    "_Linears": "linear layers",
    "aten::linear": "linear layers",
    "aten::mm": "linear layers",
    "aten::addmm": "linear layers",
    "MmBackward0": "linear layers",
    "AddmmBackward0": "linear layers",
}
"""An event's name (of an autograd function, with or without `Backward`) -> its part; all else is `other`."""
ROLLOUT = {f"tunesmith: {part}": words for part, words in WORDS.items()}
PRODUCTS = {"aten::mm": 0, "aten::bmm": 0, "aten::addmm": 1, "aten::addmm_": 1, "aten::baddbmm": 1}
"""Matrix products -> the place of their first factor among their inputs."""


class Profile:
    """`step` goes around every step of a run, of which `steps` are left; after the last measured one, or when the run
    ends, `found` says what was found."""

    def __init__(self, model: Model, steps: int) -> None:
        self.model = model
        self.found: dict[str, Any] | None = None
        self._first = max(0, min(FIRST, steps - 1))
        self._taken = 0
        self._seconds: list[float] = []
        self._products: list[Shape] = []
        self._profiler: Any = None

    @contextmanager
    def step(self) -> Iterator[None]:
        if self._taken == self._first:
            self._start()
        started = time.perf_counter()
        with record_function(STEP), watched() as products:
            yield
            finish(self.model.device)
        if self._profiler is not None:
            self._products += products
        self._seconds.append(time.perf_counter() - started)
        self._taken += 1
        if self._taken == self._first + COUNT:
            self.end()

    def _start(self) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its messages are not for whoever trains
        activities = [ProfilerActivity.CPU]
        if self.model.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities, record_shapes=True)
        self._profiler.start()

    def end(self) -> None:
        """No step is measured after this; a profiler that is left running ends the process with a fault."""
        if self._profiler is None:
            return
        self._profiler.stop()
        if measured := self._seconds[self._first :]:
            largest = max(self.model.module.parameters(), key=lambda p: p.numel())
            self.found = summary(list(self._profiler.events()), measured, largest, self._products)
        self._profiler = None


def summary(
    events: list[Any], measured: Sequence[float], like: Tensor, unseen: Sequence[Shape] = ()
) -> dict[str, Any]:
    """measured: seconds of each step. unseen: products that are no events.

    parts: part -> seconds, the longest first, together the events' own time. flops:
    of the matrix products, twice the multiplications. limit: their speed alone, per second, in numbers and on the
    device of `like`; fraction of it that the steps reached."""
    parts: dict[str, float] = {}
    events = [
        event for event in events if _within_step(event)
    ]  # evaluations between steps are none of theirs
    for event in events:
        name = part_of(event)
        own = event.self_device_time_total if like.is_cuda else event.self_cpu_time_total
        parts[name] = parts.get(name, 0.0) + own / 1e6
    products = [*unseen, *(p for p in map(product, events) if p is not None)]
    limit, seconds = _limit(products, like), sum(measured)
    flops = sum(map(_flops, products))
    return {
        "steps": len(measured),
        "seconds": seconds,
        "parts": dict(sorted(parts.items(), key=lambda item: -item[1])),
        "flops": flops,
        "limit": limit,
        "fraction": flops / limit / seconds if limit else math.nan,
    }


def part_of(event: Any) -> str:
    found, above = "other", event
    while above is not None:
        if above.name in ROLLOUT:
            return ROLLOUT[above.name]
        name = above.name.removesuffix("Backward")
        found = PARTS.get(above.name, PARTS.get(name, found))
        above = above.cpu_parent
    return found


def _within_step(event: Any) -> bool:
    while event is not None and event.name != STEP:
        event = event.cpu_parent
    return event is not None


def product(event: Any) -> Shape | None:
    """(batch, rows, inner, columns) of a matrix product."""
    if event.name not in PRODUCTS:
        return None
    at = PRODUCTS[event.name]
    left, right = event.input_shapes[at], event.input_shapes[at + 1]
    return (left[0] if len(left) == 3 else 1, left[-2], left[-1], right[-1])


def _flops(shape: Shape) -> float:
    return 2.0 * math.prod(shape)


def _limit(products: list[Shape], like: Tensor) -> float:
    """Operations a second of the shape on which most operations are spent, run by itself."""
    totals: dict[Shape, float] = {}
    for shape in products:
        if shape[0] == 1:
            totals[shape] = totals.get(shape, 0.0) + _flops(shape)
    if not totals:
        return 0.0
    shape = max(totals, key=lambda s: totals[s])
    a, b = (torch.randn(rows, shape[2]).to(like) for rows in (shape[1], shape[3]))
    out = a.new_empty(shape[1], shape[3])
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        fill(Sum(out, [(a, b.t())]))
        finish(like.device)
        seconds.append(time.perf_counter() - started)
    return _flops(shape) / statistics.median(seconds[2:])
