"""Sums of matrix products: in bfloat16 by a processor's tiles where it has them (tiles.cpp), else by PyTorch.

PyTorch's library gives a product of few columns to one core alone and prepares code for each new shape; tiles compute
any shapes on all cores, add up all terms in float32, and round once.
"""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from tunesmith.core import native
from tunesmith.core.native.call import call, do, entry, waiting


class Laid(NamedTuple):
    """A copy of a right factor (K, N) as tiles read it: for many products with few rows, where laying it out anew would
    take as long as they do."""

    data: Tensor
    shape: tuple[int, int]


class Scaled(NamedTuple):
    """A right factor (K, N) in float32: `scale` times what it says, rounded to the left one's type as it is read."""

    data: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> torch.Size:
        return self.data.shape

    def t(self) -> Scaled:
        return Scaled(self.data.t(), self.scale)


Right = Tensor | Laid | Scaled
Pair = tuple[Tensor, Right]
Shape = tuple[int, int, int, int]
"""(batch, rows, inner, columns) of a product."""


class Sum(NamedTuple):
    """out (M, N), to be filled: scale * (left (M, K) @ right (K, N) of all terms), + past (M, N) where there is one.
    Of each factor rows or columns lie together. after: it reads what the sums before it write. Or all of them have a
    dimension more, (B, ., .)."""

    out: Tensor
    terms: Sequence[Pair]
    past: Tensor | None = None
    after: bool = False
    scale: float = 1.0


_seen: list[list[Shape]] = []


def fill(*sums: Sum) -> None:
    """Compute each; all factors are of one type and in one place. An out of float32 takes terms of any type."""
    do(ready(*sums))
    if _seen and _in_tiles(sums):
        tell(*[_shape(*term) for one in sums for term in one.terms])


def ready(*sums: Sum) -> Callable[[], None]:
    """The same, to be computed any number of times: with the same tensors, whatever they hold by then."""
    if not _in_tiles(sums):

        def by_torch() -> None:
            for one in sums:
                _by_torch(one)

        return by_torch
    program: list[int] = []
    for out, terms, past, after, scale in sums:
        rows, columns = out.shape[-2:]
        behind = (0, 0, 0) if past is None else (past.data_ptr(), past.stride(-2), _next(past))
        program += (rows, columns, len(out) if out.dim() == 3 else 1)
        program += (*_place(out), out.dtype is torch.float32, *behind, after, bits(scale), len(terms))
        for left, right in terms:
            program += _place(left)
            if isinstance(right, Tensor):
                program += (*_place(right), left.shape[-1], 0, 0)
            elif isinstance(right, Laid):
                program += (right.data.data_ptr(), 0, 0, 0, left.shape[-1], 0, 0)
            else:
                program += (*_place(right.data), left.shape[-1], 1, bits(right.scale))
    function = entry("sums_of_products", ctypes.c_void_p, ctypes.c_int64)
    numbers, count, threads = array("q", program), len(sums), torch.get_num_threads()

    def by_tiles(kept: tuple[Sum, ...] = sums) -> None:  # addresses alone would not keep tensors alive
        function(numbers.buffer_info()[0], count, threads)

    return by_tiles


def lay_out(right: Tensor) -> Laid | None:
    """right (K, N) in bfloat16, of which rows or columns lie together; None where it has to be read as it is."""
    inner, columns = right.shape
    if not tiles(right) or inner % 32 or columns % 32:
        return None
    laid = Laid(right.new_empty(inner * columns), (inner, columns))
    call("lay_out", None, right, *right.stride(), inner, columns, laid.data)
    return laid


def _in_tiles(sums: Sequence[Sum]) -> bool:
    """Whether tiles compute with all that is read as it is. Asked for each product: loops are faster than `all`."""
    if not _has_tiles():
        return False
    for one in sums:
        for term in (*one.terms, (one.past,)):
            for x in term:
                if isinstance(x, Tensor) and not (x.dtype is torch.bfloat16 and x.is_cpu):
                    return False
    return True


def _place(x: Tensor) -> tuple[int, ...]:
    """Where it begins, and from one row, column and matrix to the next."""
    stride = x.stride()
    return (x.data_ptr(), *stride, 0) if len(stride) == 2 else (x.data_ptr(), *stride[1:], stride[0])


@lru_cache
def bits(x: float) -> int:
    """Of a float32, as a number."""
    return int.from_bytes(struct.pack("<f", x), "little", signed=True)


def product(left: Tensor, right: Tensor) -> Tensor:
    """left (M, K) @ right (K, N), or (B, ., .)."""
    out = left.new_empty(*left.shape[:-1], right.shape[-1])
    fill(Sum(out, [(left, right)]))
    return out


def _next(x: Tensor) -> int:
    return x.stride(0) if x.dim() == 3 else 0


def _shape(left: Tensor, right: Right) -> Shape:
    return (left.shape[0] if left.dim() == 3 else 1, *left.shape[-2:], right.shape[-1])


def tiles(*tensors: Tensor) -> bool:
    """Whether tiles compute with these."""
    return _has_tiles() and all(t.dtype is torch.bfloat16 and t.is_cpu for t in tensors)


def tell(*products: Shape) -> None:
    """Of products that tiles have computed."""
    for shapes in _seen:
        shapes += products


def is_watched() -> bool:
    return bool(_seen)


@contextmanager
def together(x: Tensor) -> Iterator[None]:
    """Inside, kernels wait for the end where tiles compute with x, and nothing but kernels may read what they make (see
    `call.now`): between two kernels, which leave nothing else in the caches, Python takes twice as long as it does by
    itself. Under a profiler each runs at once, within the function that asks for it."""
    with nullcontext() if is_watched() or not tiles(x) else waiting():
        yield


@contextmanager
def watched() -> Iterator[list[Shape]]:
    """Of each product that tiles compute inside: a profiler does not see them."""
    shapes: list[Shape] = []
    _seen.append(shapes)
    try:
        yield shapes
    finally:
        _seen.remove(shapes)


@cache
def _has_tiles() -> bool:
    library = native.library()
    return library is not None and bool(library.has_tiles())


def _by_torch(one: Sum) -> None:
    out, _, past, _, scale = one
    (left, right), *rest = [(a, _plain(b, a.dtype)) for a, b in one.terms]
    if out.dtype != left.dtype or scale != 1:
        total = (left @ right).to(out.dtype)
        for left, right in rest:
            total += left @ right
        out.copy_(total * scale)
        if past is not None:
            out += past
        return
    if past is not None and out.dim() == 2:
        torch.addmm(past, left, right, out=out)
    else:
        torch.matmul(left, right, out=out)
        if past is not None:
            out += past
    for left, right in rest:
        if out.dim() == 3:
            out.baddbmm_(left, right)
        else:
            out.addmm_(left, right)


def _plain(right: Right, dtype: torch.dtype) -> Tensor:
    assert not isinstance(right, Laid), "what was laid out is for tiles"
    return right if isinstance(right, Tensor) else (right.data * right.scale).to(dtype)
