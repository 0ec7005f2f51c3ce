"""The weights that a run starts with, beside those that it trains: the reference of what the model writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class StartWeights:
    """A copy of the trained parameters, and of nothing else: of an adapter it is small. Taken before the first step,
    also where a run is resumed; so an adapter that is trained further is held against itself as it was. besides: the
    beginning of the names of what the policy does not compute with."""

    def __init__(self, module: nn.Module, besides: str | None = None) -> None:
        self._kept: list[tuple[nn.Parameter, Tensor]] = [
            (parameter, parameter.detach().clone())
            for name, parameter in module.named_parameters()
            if parameter.requires_grad and not (besides is not None and name.startswith(besides))
        ]

    @property
    def num_bytes(self) -> int:
        return sum(kept.nbytes for _, kept in self._kept)

    @contextmanager
    def back(self) -> Iterator[None]:
        """Inside, the model is the one that the run started with."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for at, (parameter, kept) in enumerate(self._kept):
            self._kept[at] = (parameter, parameter.data)
            parameter.data = kept
