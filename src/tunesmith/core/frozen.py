"""States above the frozen layers, computed once for each row and kept in a file: the layers below need not run again.

Where the lowest layers are frozen and nothing in them is random, what leaves them is a function of a row's tokens
alone. Later passes over the rows then cost what the trained layers cost: 6N(1 - f) operations a token in place of
2N + 4N(1 - f), of N weights of which a share f is frozen.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.batch import Batch
from tunesmith.core.native.call import now
from tunesmith.types import TokenRow


class _Reached(Exception):
    """Ends a forward pass above the frozen layers."""

    def __init__(self, states: Tensor) -> None:
        self.states = states


class FrozenStates:
    """Rows' states (tokens, H) by content, in a file under `folder` that has no name and vanishes with the process.

    layers: the frozen ones, from the lowest. While `on` they answer with what was kept, if they are told to.
    """

    def __init__(self, layers: Sequence[nn.Module], folder: Path) -> None:
        self.layers, self.folder = layers, folder
        self.reads = 0
        """Batches that were answered from the file."""
        self._file = -1
        self._places: dict[bytes, int] = {}
        self.size = 0
        """Bytes in the file."""
        self._shape: tuple[int, torch.dtype] | None = None
        self._given: Tensor | None = None
        self._stops = False

    @contextmanager
    def on(self) -> Iterator[None]:
        """Inside, there is a file, and the layers' `forward` passes through here."""
        own = [(layer, layer.__dict__.get("forward")) for layer in self.layers]
        for layer in self.layers:
            layer.forward = partial(self._through, layer is self.layers[-1], layer.forward)
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                self._file = file.fileno()
                yield
        finally:
            for layer, forward in own:
                if forward is None:
                    del layer.forward
                else:
                    layer.forward = forward

    def _through(
        self, last: bool, forward: Callable[..., Any], hidden_states: Tensor, *args: Any, **more: Any
    ) -> Any:
        if self._given is not None:
            return self._given if last else hidden_states
        out = forward(hidden_states, *args, **more)
        if last and self._stops:
            now()
            raise _Reached(out)
        return out

    @contextmanager
    def giving(self, states: Tensor | None) -> Iterator[None]:
        """Inside, the frozen layers answer with states (1, T, H); None: they run."""
        self._given = states
        try:
            yield
        finally:
            self._given = None

    def computed(self, forward: Callable[[], Any], num_tokens: int) -> Tensor:
        """(T, H): what leaves the frozen layers in a forward pass, which goes no further."""
        self._stops = True
        try:
            with torch.no_grad():
                forward()
        except _Reached as reached:
            return reached.states[0, :num_tokens]
        finally:
            self._stops = False
        raise AssertionError("the frozen layers were not reached")

    def keep(self, batch: Batch, states: Tensor) -> None:
        """states (T, H) of a batch in which no row shares its beginning."""
        self._shape = (states.shape[1], states.dtype)
        for row, piece in zip(batch.rows, states.split([r.num_tokens for r in batch.rows]), strict=True):
            self._places[_key(row)] = self.size
            self.size += os.pwrite(self._file, _bytes(piece.contiguous()), self.size)

    def of(self, batch: Batch, length: int) -> Tensor | None:
        """(1, length, H), zeros behind the batch's tokens; None where a row of it was not kept."""
        places = [self._places.get(_key(row)) for row in batch.rows]
        if self._shape is None or None in places:
            return None
        width, dtype = self._shape
        out = torch.zeros(length, width, dtype=dtype)
        start = 0
        for row, place in zip(batch.rows, places, strict=True):
            assert place is not None
            # What rows begin with alike stands there once, before the first.
            skipped = batch.shared if start else 0
            stop = start + row.num_tokens - skipped
            at = place + skipped * width * dtype.itemsize
            read = os.preadv(self._file, [_bytes(out[start:stop])], at)
            assert read == (stop - start) * width * dtype.itemsize, "the file holds every row whole"
            start = stop
        self.reads += 1
        return out[None]


def _key(row: TokenRow) -> bytes:
    """Of what decides a row's states: its tokens, where it branches, and where its second text begins."""
    found = hashlib.blake2b(digest_size=16)
    for segment in row.segments:
        found.update(f"{len(segment.ids)} {segment.parent} {row.second};".encode())
        found.update(segment.ids.tobytes())
    return found.digest()


def _bytes(x: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return x.view(torch.uint8).numpy().data
