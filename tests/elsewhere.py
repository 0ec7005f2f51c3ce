"""A second device that is none: inside `elsewhere()` tensors can be on `cuda:0` on a machine without a GPU.

Such a tensor holds one of the CPU, on which every operation is computed; but for PyTorch it is another device's, so an
operation on tensors of both fails as it would on a GPU (a tensor without dimensions, and indices, may come from the
CPU). So what a test finds equal has been moved as a GPU needs it. CUDA's own kernels are not tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from transformers.models.auto.auto_factory import _BaseAutoModelClass

HERE = torch.device("cpu")
ELSEWHERE = torch.device("cuda:0")
STANDS_FOR_IT = torch.device("meta")
"""What PyTorch's own code, which knows no subclass, takes such a tensor to be on."""
MIXES = ("aten::_to_copy", "aten::copy_", "aten::index", "aten::_index_put", "aten::set_data")
CUDA = {
    "is_available": True,
    "device_count": 1,
    "get_device_capability": (7, 5),
    "is_bf16_supported": False,
    "mem_get_info": (1 << 33, 1 << 33),
    "memory_reserved": 1 << 20,
    "max_memory_reserved": 1 << 20,
    "synchronize": None,
}
"""Functions of `torch.cuda` and what they say here."""
OF_THE_ONE_HERE = (Tensor.tolist, Tensor.data_ptr, Tensor.untyped_storage)
_from_pretrained = _BaseAutoModelClass.from_pretrained.__func__
_DATA = Tensor.data
_paused = False


class Elsewhere(Tensor):
    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            layout=here.layout,
            device=STANDS_FOR_IT,
        )
        made.here = here
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: ELSEWHERE)

    def _become(self, other: Elsewhere) -> None:
        _DATA.__set__(self, other)
        self.here = other.here

    data = property(lambda self: self.detach(), _become)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def __repr__(self) -> str:
        return f"Elsewhere({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(function, args, kwargs or {})


def _compute(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, device = function.name(), kwargs.get("device")
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    any_elsewhere = any(isinstance(x, Elsewhere) for x in tensors)
    mixed = any(not isinstance(x, Elsewhere) and x.ndim for x in tensors)
    if any_elsewhere and mixed and not name.startswith(MIXES):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu")
    given = {k: v for k, v in kwargs.items() if k != "pin_memory"}
    if device is not None:
        given["device"] = HERE
    out = function(*tree_map(_here, args), **tree_map(_here, given))
    to_elsewhere = any_elsewhere if device is None else torch.device(device).type != "cpu"
    if name.startswith("aten::copy_"):
        to_elsewhere = isinstance(args[0], Elsewhere)
    if not to_elsewhere:
        return out
    out = tree_map(
        lambda x: Elsewhere(x) if isinstance(x, Tensor) and not isinstance(x, Elsewhere) else x, out
    )
    return return_and_correct_aliasing(function, args, kwargs, out) if any_elsewhere else out


def _here(x: Any) -> Any:
    return x.here if isinstance(x, Elsewhere) else x


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {})) if _paused else _compute(function, args, kwargs or {})


class _Arguments(TorchFunctionMode):
    """A device in a call is checked by PyTorch before an operation is found."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.device:
            return function(*args, **kwargs)
        if function in (torch.tensor, torch.as_tensor) and _named(kwargs.get("device")) is STANDS_FOR_IT:
            return function(*args, **{**kwargs, "device": HERE}).to(
                STANDS_FOR_IT
            )  # they tell no mode of the device
        if function in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[1], list):
            args = (
                args[0],
                torch.tensor(args[1]),
                *args[2:],
            )  # PyTorch would make one where it takes it to be
        if function in OF_THE_ONE_HERE and isinstance(args[0], Elsewhere):
            return function(args[0].here)
        return function(*map(_named, args), **{k: _named(v) for k, v in kwargs.items()})


def _named(value: Any) -> Any:
    is_device = isinstance(value, torch.device | str) and str(value).split(":")[0] == "cuda"
    return STANDS_FOR_IT if is_device else value


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Inside, the device that it gives can be named and moved to, and PyTorch says that there is one GPU."""
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # else tied weights would come apart
    try:
        with ExitStack() as stack:
            for name, answer in CUDA.items():
                stack.enter_context(patch(f"torch.cuda.{name}", lambda *_, answer=answer, **__: answer))
            stack.enter_context(patch("torch.cuda.get_rng_state", lambda device: torch.get_rng_state()))
            stack.enter_context(patch("torch.cuda.set_rng_state", lambda state, device: None))
            stack.enter_context(patch.object(_BaseAutoModelClass, "from_pretrained", classmethod(_loaded)))
            stack.enter_context(_Operations())
            stack.enter_context(_Arguments())
            yield ELSEWHERE
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)


def _loaded(kind: Any, *args: Any, **more: Any) -> Any:
    """transformers makes an empty model on PyTorch's `meta` device first."""
    global _paused
    before, _paused = _paused, True
    try:
        return _from_pretrained(kind, *args, **more)
    finally:
        _paused = before
