"""Calling a kernel with tensors."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tunesmith.core import native

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
Argument = Tensor | int | float | None


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels can compute with these: all on the CPU, of one type that the kernels have. If not, what waits
    is made, since PyTorch's operators follow."""
    dtype = tensors[0].dtype
    if (
        dtype in DTYPES
        and all(t.is_cpu and t.dtype is dtype for t in tensors)
        and native.library() is not None
    ):
        return True
    now()
    return False


def takes_each(*tensors: Tensor) -> bool:
    """The same for kernels that read each tensor's type."""
    return all(t.is_cpu and t.dtype in DTYPES for t in tensors) and native.library() is not None


def ours(*tensors: Tensor) -> bool:
    """Whether layers of our own compute with these: by the kernels, or on a GPU by PyTorch's operators."""
    return takes(*tensors) or all(
        t.is_cuda and t.dtype in DTYPES and t.dtype == tensors[0].dtype for t in tensors
    )


def whole(x: Tensor) -> Tensor:
    """x, contiguous; a copy where it is not."""
    if x.is_contiguous():
        return x
    now()
    return x.contiguous()


def call(name: str, dtype: torch.dtype | None, *arguments: Argument) -> None:
    """Tensors go as addresses (of their first element), None as a null pointer, integers as int64, floats as float32;
    the thread count comes last, and is PyTorch's. Each place takes one kind, that of the first call."""
    do(ready(name, dtype, *arguments))


def do(made: Callable[[], None]) -> None:
    """At once, or where calls wait, after those before it."""
    if _waiting.calls is None:
        made()
    else:
        _waiting.calls.append(made)


class _Waiting(threading.local):
    calls: list[Callable[[], None]] | None = None
    uninterrupted = False


_waiting = _Waiting()


MOST = 16
"""Calls that wait: what they read and write is kept as long."""


@contextmanager
def waiting() -> Iterator[None]:
    """Inside, calls wait until `now`, or the end, and are then made in their order; at the end of one inside another,
    only where there are MOST."""
    if _waiting.calls is not None:
        yield
        if len(_waiting.calls) >= MOST:
            now()
        return
    _waiting.calls = []
    try:
        yield
        now()
    finally:
        _waiting.calls = None


class Interrupted(Exception):
    """PyTorch's operators would have to read what a kernel makes."""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, `now` raises Interrupted."""
    _waiting.uninterrupted = True
    try:
        yield
    finally:
        _waiting.uninterrupted = False


def now() -> None:
    """Makes the calls that wait: what follows reads what they make."""
    if _waiting.uninterrupted:
        raise Interrupted
    if calls := _waiting.calls:
        for made in calls:
            made()
        calls.clear()


def ready(name: str, dtype: torch.dtype | None, *arguments: Argument) -> Callable[[], None]:
    """The call, to be made any number of times: with the same tensors, whatever they hold by then."""
    name = name if dtype is None else f"{name}_{DTYPES[dtype]}"
    function = _functions.get(name) or entry(name, *map(_kind, arguments))
    numbers = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    threads = torch.get_num_threads()

    def made(kept: tuple[Argument, ...] = arguments) -> None:  # addresses alone would not keep tensors alive
        function(*numbers, threads)

    return made


def entry(name: str, *kinds: type, result: type | None = None) -> Callable[..., Any]:
    """The library's function of this name: what it takes before the thread count, and what it returns."""
    if name not in _functions:
        library = native.library()
        assert library is not None
        function = getattr(library, name)
        function.restype, function.argtypes = result, (*kinds, ctypes.c_int)
        _functions[name] = function
    return _functions[name]


_functions: dict[str, Callable[..., Any]] = {}


def _kind(argument: Argument) -> type:
    if argument is None or isinstance(argument, Tensor):
        return ctypes.c_void_p
    return ctypes.c_float if isinstance(argument, float) else ctypes.c_int64
