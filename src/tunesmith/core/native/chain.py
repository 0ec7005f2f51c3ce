"""Operations on the same rows of bfloat16 as one call, by tiles (chain.cpp): what goes from one to the next stays in a
core's cache, and no core waits for another between them."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tunesmith.core.native.call import do, entry
from tunesmith.core.native.sums import Laid, Right, Scaled, bits

HIGH = 384
"""Rows of a block: what goes with them should fit a core's cache, yet all right factors pass it once a block."""
LEAST = 256
"""Rows for which a chain is worth it: with fewer it is better that each core reads a part of the right factors."""
LINE = 64
"""Bytes that lie between rows, so that they do not fall on the same places of the cache."""
PRODUCT, NORM, GATE = range(3)


class Own(NamedTuple):
    """Rows of a block that nobody reads after it: at and stride in bytes."""

    at: int
    stride: int

    def columns(self, first: int) -> Own:
        """From this one on."""
        return Own(self.at + 2 * first, self.stride)


Rows = Tensor | Own
"""(T, width), each row's elements side by side."""
Term = tuple[Rows, Right]


class Chain:
    """Steps on rows, in the order in which they are added; `run` computes them."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._room, self._count = 0, 0
        self._program: list[int] = []
        self._kept: list[object] = []

    def own(self, width: int) -> Own:
        """Room for what a step makes for others."""
        made = Own(self._room, (2 * width + LINE - 1) // LINE * LINE + LINE)
        self._room += (HIGH + 32) * made.stride
        return made

    def product(self, out: Rows, width: int, terms: Sequence[Term], past: Rows | None = None) -> None:
        """out = the sum of all left (T, K) @ right (K, width) + past (T, width)."""
        self._step(PRODUCT, width, (out, None, past), terms=terms)

    def norm(self, out: Rows, x: Rows, weight: Tensor, eps: float) -> None:
        """As in `ops.norm`."""
        self._step(NORM, len(weight), (out, x, None), weight, eps)

    def gate(self, out: Rows, width: int, gate: Rows, up: Rows) -> None:
        """silu(gate) * up; out may be either."""
        self._step(GATE, width, (out, gate, up))

    def _step(
        self,
        kind: int,
        width: int,
        places: tuple[Rows | None, ...],
        weight: Tensor | None = None,
        eps: float = 0.0,
        terms: Sequence[Term] = (),
    ) -> None:
        self._program += (kind, width, 0 if weight is None else weight.data_ptr(), bits(eps), len(terms))
        for rows in places:
            self._program += _place(rows)
        for left, right in terms:
            self._program += _place(left)
            if isinstance(right, Laid):
                self._program += (right.data.data_ptr(), 0, 0, right.shape[0], 0, 0)
            elif isinstance(right, Scaled):
                self._program += (
                    right.data.data_ptr(),
                    *right.data.stride(),
                    right.shape[0],
                    1,
                    bits(right.scale),
                )
            else:
                self._program += (right.data_ptr(), *right.stride(), right.shape[0], 0, 0)
        self._kept += (places, weight, terms)
        self._count += 1

    def run(self) -> None:
        """To be called once, when all has been said."""
        function = entry("chain", ctypes.c_void_p, *[ctypes.c_int64] * 4)
        program, threads = array("q", self._program), torch.get_num_threads()
        do(lambda: function(program.buffer_info()[0], self._count, self.rows, HIGH, self._room, threads))


def _place(rows: Rows | None) -> tuple[int, int, int]:
    if rows is None:
        return 0, 0, 0
    if isinstance(rows, Own):
        return *rows, 1
    return rows.data_ptr(), rows.stride(0) * 2, 0
