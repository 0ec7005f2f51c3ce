"""What linear layers read, made of what is kept: a norm and a gated unit are computed again on the way back.

That is in the pass that computes their gradients anyway, and leaves a layer without a third of what it would keep.
Shapes: T tokens, H width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from tunesmith.core.native.ops import gated, gated_back, norm, norm_back, rms_norm, swiglu

Gradients = tuple[Tensor | None, ...]


class Kind(Protocol):
    """Holds no tensors: those that are kept end with the step backwards that reads them."""

    @property
    def passes(self) -> bool:
        """Whether the first of what it is made of goes past the layers that read it."""
        ...

    def by_autograd(self, *of: Tensor) -> list[Tensor]:
        """What is read, (T, H), and what goes past it."""
        ...

    def made(self, *of: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What is read, of contiguous tensors that the kernels take; and what it is made of again."""
        ...

    def back(
        self, grad: Tensor | None, passed: Tensor | None, trained: bool, *kept: Tensor
    ) -> tuple[Tensor, Gradients]:
        """What is read, again; and the gradients of what it is made of. grad: its own, which is written over; None
        where none is asked for. passed: of what goes past it. trained: whether a norm's weight is."""
        ...


class Source(NamedTuple):
    kind: Kind
    of: tuple[Tensor, ...]
    """What it is made of."""


class Plain:
    passes = False

    def by_autograd(self, *of: Tensor) -> list[Tensor]:
        return list(of)

    def made(self, *of: Tensor) -> tuple[Tensor, list[Tensor]]:
        return of[0], list(of)

    def back(
        self, grad: Tensor | None, passed: Tensor | None, trained: bool, *kept: Tensor
    ) -> tuple[Tensor, Gradients]:
        return kept[0], (grad,)


class Passed(Plain):
    """x, which also goes past: the product that gives its gradient adds what that one has."""

    passes = True

    def by_autograd(self, *of: Tensor) -> list[Tensor]:
        return [of[0], of[0]]


@dataclass(frozen=True)
class Normed:
    """Of x and the norm's weight; x itself goes past."""

    eps: float
    passes = True

    def by_autograd(self, *of: Tensor) -> list[Tensor]:
        x, weight = of
        return list(rms_norm(x, weight, self.eps))

    def made(self, *of: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, weight = of
        out, rstd = norm(x, weight, self.eps)
        return out, [x, weight, rstd]

    def back(
        self, grad: Tensor | None, passed: Tensor | None, trained: bool, *kept: Tensor
    ) -> tuple[Tensor, Gradients]:
        x, weight, rstd = kept
        if grad is None:
            return norm(x, weight, self.eps)[0], (None, None)
        return grad, norm_back(grad, x, weight, rstd, passed, trained)


class Gated:
    """silu(gate) * up, of both."""

    passes = False

    def by_autograd(self, *of: Tensor) -> list[Tensor]:
        return [swiglu(*of)]

    def made(self, *of: Tensor) -> tuple[Tensor, list[Tensor]]:
        return gated(*of), list(of)

    def back(
        self, grad: Tensor | None, passed: Tensor | None, trained: bool, *kept: Tensor
    ) -> tuple[Tensor, Gradients]:
        if grad is None:
            return gated(*kept), (None, None)
        return grad, gated_back(grad, *kept)
