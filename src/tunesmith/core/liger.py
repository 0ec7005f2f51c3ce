"""Parts of a layer on a GPU: by Liger's Triton kernels (arXiv:2410.10989) where they are installed (`pip install
'tunesmith[liger]'`), else by PyTorch's operators. Shapes: T tokens, H width."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

from torch import Tensor
from torch.nn import functional


@cache
def installed() -> bool:
    return find_spec("liger_kernel") is not None


@cache
def _kernels() -> Any:
    """Liger's functions, or None where there is no Liger."""
    if not installed():
        return None
    from liger_kernel import ops

    return ops


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (T, H) -> x / sqrt(mean(x^2) + eps) * weight, each row by itself (arXiv:1910.07467)."""
    if not x.is_cuda or _kernels() is None:
        return functional.rms_norm(x, weight.shape, weight, eps)
    # No offset on the weight, the mean in float32 as Llama's own norm has it, and not in place: x is read after it.
    return _kernels().LigerRMSNormFunction.apply(x, weight, eps, 0.0, "llama", False)  # type: ignore[no-any-return]


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (arXiv:2002.05202)."""
    if not gate.is_cuda or _kernels() is None:
        return functional.silu(gate) * up
    return _kernels().LigerSiLUMulFunction.apply(gate, up)  # type: ignore[no-any-return]
