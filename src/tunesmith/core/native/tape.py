"""Functions of autograd that follow one another, as one of them.

Autograd calls a function at a time, and whoever reads a gradient next may be anyone, so kernels can't wait
(`call.waiting`) from one to the next. A layer as one function is a single call on its way back, at whose end all of its
kernels run. What it computes, and in which order, is the same.

The functions are ours. Where PyTorch's operators take part, `call.now` is said before they read, which ends an attempt;
what they make of a state without that has no place, and the state, if nothing else reads it, is found to go nowhere.
That gradients are those of stock layers is checked for each architecture before any of this is used (models/fast.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunesmith.core.native.call import Interrupted, now, takes, uninterrupted, whole
from tunesmith.core.native.sums import is_watched, together

Gradients = list[Tensor | None]


def apply(function: Any, *arguments: Any) -> Any:
    """`function.apply`, or where functions are being taken together, the next one of these."""
    tape = _here.tape
    return function.apply(*arguments) if tape is None else tape.apply(function, arguments)


def as_one(layer: nn.Module, x: Tensor, run: Callable[[], Tensor]) -> Tensor:
    """run(), the layer's output of x, as one function of autograd. A layer in which anything but our own functions
    takes part runs as it is, now and from then on."""
    wanted = torch.is_grad_enabled() and _here.tape is None and layer not in _apart
    if not wanted or is_watched() or not takes(x):
        return run()
    state, tape = torch.get_rng_state(), Tape()
    try:
        _here.tape = tape
        with torch.no_grad(), uninterrupted():
            out = run()
        tape.end(out)
    except Interrupted:
        _apart.add(layer)
    finally:
        _here.tape = None
    if layer in _apart:
        torch.set_rng_state(state)  # the dropout that this first attempt has drawn
        return run()
    if tape.ends is None:
        return out
    return _AsOne.apply(tape, out, *(x for _, x in tape.outside.values()))  # type: ignore[no-untyped-call,no-any-return]


class _Here(threading.local):
    tape: Tape | None = None


_here = _Here()
_apart: WeakSet[nn.Module] = WeakSet()
_places = count()


class Context:
    """What a function has in place of autograd's."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Tensor | None, ...] = ()
        self.fills = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self.saved_tensors = tensors

    def set_materialize_grads(self, fills: bool) -> None:
        self.fills = fills


@dataclass(slots=True)
class Step:
    """inputs and outputs: the places of tensors that have a gradient; shapes: of the outputs; kept: how many
    tensors."""

    function: Any
    context: Context
    inputs: list[int | None]
    outputs: list[int]
    shapes: list[torch.Size]
    kept: int = 0


class Tape:
    """Which function made what of what. A tensor that one of them made has its place as an attribute: numbers grow, and
    those below `first` are of other tapes."""

    def __init__(self) -> None:
        self.first = next(_places)
        self.steps: list[Step] = []
        self.outside: dict[int, tuple[int, Tensor]] = {}
        """id -> place, and the tensor, which needs a gradient and was there before."""
        self.ends: tuple[list[int], int] | None = None
        """Places of what was outside, and of the output; None where it has no gradient."""

    def apply(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        inputs = [self._place(a) if isinstance(a, Tensor) else None for a in arguments]
        context = Context(tuple(place is not None for place in inputs))
        made = function.forward(context, *arguments)
        if any(context.needs_input_grad):
            outs = made if isinstance(made, tuple) else (made,)
            outputs = [next(_places) for _ in outs]
            for out, place in zip(outs, outputs, strict=True):
                out.place = place
            self.steps.append(Step(function, context, inputs, outputs, [out.shape for out in outs]))
        return made

    def _place(self, x: Tensor) -> int | None:
        place: int = getattr(x, "place", -1)
        if place >= self.first:
            return place
        if not x.requires_grad:
            return None
        return self.outside.setdefault(id(x), (next(_places), x))[0]

    def end(self, out: Tensor) -> None:
        """Raises Interrupted where what a function made has gone elsewhere than into the next ones or `out`."""
        made = {place for step in self.steps for place in step.outputs}
        read = {place for step in self.steps for place in step.inputs}
        last = self._place(out)
        if made - read - {last} or (made and last not in made):
            raise Interrupted
        if last is not None and made:
            self.ends = [place for place, _ in self.outside.values()], last

    def take(self) -> list[Tensor | None]:
        """All that the functions keep, to be kept by autograd in their place."""
        self.outside.clear()
        kept: list[Tensor | None] = []
        for step in self.steps:
            kept += step.context.saved_tensors
            step.kept, step.context.saved_tensors = len(step.context.saved_tensors), ()
        return kept

    def back(self, kept: tuple[Tensor | None, ...], grad: Tensor) -> Gradients:
        """Of what was outside."""
        assert self.ends is not None
        outside, out = self.ends
        grads, end = {out: grad}, len(kept)
        for step in reversed(self.steps):
            end, tensors = end - step.kept, kept[end - step.kept : end]
            given = [grads.pop(place, None) for place in step.outputs]
            if (like := next((g for g in given if g is not None), None)) is None:
                continue
            if step.context.fills:
                pairs = zip(given, step.shapes, strict=True)
                given = [like.new_zeros(shape) if g is None else g for g, shape in pairs]
            step.context.saved_tensors = tensors
            found = step.function.backward(step.context, *given)
            step.context.saved_tensors = ()
            for place, g in zip(step.inputs, found if isinstance(found, tuple) else (found,), strict=True):
                if place is not None and g is not None:
                    grads[place] = _sum(grads[place], g) if place in grads else g
        return [grads.get(place) for place in outside]


def _sum(one: Tensor, other: Tensor) -> Tensor:
    now()
    return one + other


class _AsOne(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tape: Tape, out: Tensor, *outside: Tensor) -> Tensor:
        ctx.save_for_backward(*tape.take())
        ctx.tape = tape
        return out.view_as(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with together(grad):
            return None, None, *ctx.tape.back(ctx.saved_tensors, whole(grad))
