"""Calling a kernel with tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from tunesmith.core import native

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
Argument = Tensor | int | float | None


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels can compute with these: all on the CPU, of one type that the kernels have."""
    kinds = {(t.device.type, t.dtype) for t in tensors}
    return (
        len(kinds) == 1
        and tensors[0].dtype in DTYPES
        and tensors[0].device.type == "cpu"
        and (native.library() is not None)
    )


def ours(*tensors: Tensor) -> bool:
    """Whether layers of our own compute with these: by the kernels, or on a GPU by PyTorch's operators."""
    return takes(*tensors) or all(
        t.is_cuda and t.dtype in DTYPES and t.dtype == tensors[0].dtype for t in tensors
    )


def call(name: str, dtype: torch.dtype | None, *arguments: Argument) -> None:
    """Tensors go as addresses (of their first element), None as a null pointer, integers as int64, floats as float32;
    the thread count comes last, and is PyTorch's."""
    ready(name, dtype, *arguments)()


def ready(name: str, dtype: torch.dtype | None, *arguments: Argument) -> Callable[[], None]:
    """The call, to be made any number of times: with the same tensors, whatever they hold by then."""
    library = native.library()
    assert library is not None
    function = getattr(library, name if dtype is None else f"{name}_{DTYPES[dtype]}")
    function.restype = None
    numbers = (*[_c(a) for a in arguments], ctypes.c_int(torch.get_num_threads()))

    def made(kept: tuple[Argument, ...] = arguments) -> None:  # addresses alone would not keep tensors alive
        function(*numbers)

    return made


def _c(argument: Argument) -> object:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_int64(argument)
