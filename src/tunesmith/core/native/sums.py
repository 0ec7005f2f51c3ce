"""Sums of matrix products: in bfloat16 by a processor's tiles where it has them (tiles.cpp), else by PyTorch.

PyTorch's library gives a product of few columns to one core alone and prepares code for each new shape; tiles compute
any shapes on all cores, add up all terms in float32, and round once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from tunesmith.core import native
from tunesmith.core.native.call import call


class Laid(NamedTuple):
    """A copy of a right factor (K, N) as tiles read it: for many products with few rows, where laying it out anew would
    take as long as they do."""

    data: Tensor
    shape: tuple[int, int]


Pair = tuple[Tensor, Tensor | Laid]
Shape = tuple[int, int, int, int]
"""(batch, rows, inner, columns) of a product."""


class Sum(NamedTuple):
    """out (M, N), to be filled: left (M, K) @ right (K, N) of all terms, + past (M, N) where there is one. Of each
    factor rows or columns lie together. after: it reads what the sums before it write. Or all of them (B, ., .)."""

    out: Tensor
    terms: Sequence[Pair]
    past: Tensor | None = None
    after: bool = False


_seen: list[list[Shape]] = []


def fill(*sums: Sum) -> None:
    """Compute each; all factors are of one type and in one place. An out of float32 takes terms of any type."""
    ready(*sums)()
    if _seen and tiles(*_lying(sums)):
        tell(*[_shape(*term) for one in sums for term in one.terms])


def ready(*sums: Sum) -> Callable[[], None]:
    """The same, to be computed any number of times: with the same tensors, whatever they hold by then."""
    if not tiles(*_lying(sums)):

        def by_torch() -> None:
            for one in sums:
                _by_torch(one)

        return by_torch
    program: list[int] = []
    for out, terms, past, after in sums:
        rows, columns = out.shape[-2:]
        behind = (0, 0, 0) if past is None else (past.data_ptr(), past.stride(-2), _next(past))
        program += (rows, columns, out.shape[0] if out.dim() == 3 else 1)
        program += (
            out.data_ptr(),
            *out.stride()[-2:],
            _next(out),
            out.dtype == torch.float32,
            *behind,
            after,
        )
        program.append(len(terms))
        for left, right in terms:
            program += (left.data_ptr(), *left.stride()[-2:], _next(left))
            if isinstance(right, Laid):
                program += (right.data.data_ptr(), 0, 0, 0, left.shape[-1])
            else:
                program += (right.data_ptr(), *right.stride()[-2:], _next(right), left.shape[-1])
    library = native.library()
    assert library is not None
    function, numbers = library.sums_of_products, (ctypes.c_int64 * len(program))(*program)
    count, threads = ctypes.c_int64(len(sums)), ctypes.c_int(torch.get_num_threads())

    def by_tiles(kept: tuple[Sum, ...] = sums) -> None:  # addresses alone would not keep tensors alive
        function(numbers, count, threads)

    return by_tiles


def lay_out(right: Tensor) -> Laid | None:
    """right (K, N) in bfloat16, of which rows or columns lie together; None where it has to be read as it is."""
    inner, columns = right.shape
    if not tiles(right) or inner % 32 or columns % 32:
        return None
    laid = Laid(right.new_empty(inner * columns), (inner, columns))
    call("lay_out", None, right, *right.stride(), inner, columns, laid.data)
    return laid


def _lying(sums: Sequence[Sum]) -> list[Tensor]:
    """All that is read, but for copies."""
    read = [factor for one in sums for term in one.terms for factor in term]
    return [x for x in (*read, *(one.past for one in sums)) if isinstance(x, Tensor)]


def product(left: Tensor, right: Tensor) -> Tensor:
    """left (M, K) @ right (K, N), or (B, ., .)."""
    out = left.new_empty(*left.shape[:-1], right.shape[-1])
    fill(Sum(out, [(left, right)]))
    return out


def _next(x: Tensor) -> int:
    return x.stride(0) if x.dim() == 3 else 0


def _shape(left: Tensor, right: Tensor | Laid) -> Shape:
    return (left.shape[0] if left.dim() == 3 else 1, *left.shape[-2:], right.shape[-1])


def tiles(*tensors: Tensor) -> bool:
    """Whether tiles compute with these."""
    return all(t.dtype == torch.bfloat16 and t.device.type == "cpu" for t in tensors) and _has_tiles()


def tell(*products: Shape) -> None:
    """Of products that tiles have computed."""
    for shapes in _seen:
        shapes += products


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
    out, terms, past, _ = one
    (left, right), *rest = [(a, b) for a, b in terms if isinstance(b, Tensor)]
    assert 1 + len(rest) == len(terms), "what was laid out is for tiles"
    if out.dtype != left.dtype:
        out.copy_(left @ right)
        for left, right in rest:
            out += left @ right
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
