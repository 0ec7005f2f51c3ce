"""Where a model computes: this machine's processor, or a CUDA GPU.

Batches, and what a model says of them, are on the CPU: `tunesmith.core.model.Model` takes them to its device and back,
so that nothing else has to know of one. Answers are small beside the work on them; logits stay where they are made.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import resource

import psutil
import torch

from tunesmith.config.machine import DEVICE, available_memory, cpu_has_bf16
from tunesmith.errors import ConfigError

CPU = torch.device("cpu")
KEPT = 8 * 2**20
PASS_TOKENS = {"cpu": 2048, "cuda": 4096}
"""Of a pass without gradient. On a CPU the tensors of more tokens would be larger than blocks that are kept, and of
fewer the products slower."""
APART = 2**18
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def choose(setting: str) -> torch.device:
    """The device of `model.device`. Raises ConfigError for one that is not here, or that no setting names."""
    if re.fullmatch(DEVICE, setting) is None:
        raise ConfigError(f"'{setting}' as a device", "auto, cpu, cuda or cuda:N", "name one of these")
    if setting == "auto":
        setting = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(setting)
    if device.type == "cpu":
        return CPU
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        built = torch.version.cuda or "none: this PyTorch is built for CPUs alone"
        raise ConfigError(
            f"model.device={setting}, but PyTorch sees {count} CUDA GPUs here (CUDA {built})",
            "cpu, or a GPU that `nvidia-smi` lists and a PyTorch that is built for CUDA",
            "set model.device=cpu, or install PyTorch for your CUDA version",
        )
    # Products that add in another order each time would make no two runs alike; read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda", device.index or 0)


def seed_each(seed: int, device: torch.device) -> None:
    """Of what is drawn on the CPU and on the device. `torch.manual_seed` also keeps a note, with where it was called
    from, for GPUs that nobody has used so far: 1.4 ms and some memory each time."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def has_bf16(device: torch.device) -> bool:
    """Whether it multiplies bfloat16 natively; emulated, it is slower than float32."""
    return cpu_has_bf16() if device.type == "cpu" else torch.cuda.is_bf16_supported(including_emulation=False)


def free_memory(device: torch.device) -> int:
    """Bytes that a run on it can still take."""
    return available_memory() if device.type == "cpu" else int(torch.cuda.mem_get_info(device)[0])


def used_memory(device: torch.device) -> int:
    """Bytes that this process holds of it."""
    return psutil.Process().memory_info().rss if device.type == "cpu" else torch.cuda.memory_reserved(device)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has taken of it at most."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(torch.cuda.max_memory_reserved(device))


def random_state(device: torch.device) -> list[torch.Tensor]:
    """Of the generators that a forward pass on it draws from."""
    states = [torch.get_rng_state()]
    return states if device.type == "cpu" else [*states, torch.cuda.get_rng_state(device)]


def set_random_state(device: torch.device, states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.cuda.set_rng_state(states[1], device)


def finish(device: torch.device) -> None:
    """Wait until it has done what was asked of it: its work goes on while Python does."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)


def pass_tokens(device: torch.device) -> int:
    return PASS_TOKENS[device.type]


def keep_freed_blocks() -> None:
    """Let the C library keep freed blocks of up to KEPT bytes for the next layer. By default it gives those over
    128 KiB back and takes them anew, a page at a time, which costs more than most kernels that fill them. Larger
    ones go back as before. What the user says of the library in the environment holds."""
    if platform.libc_ver()[0] != "glibc" or any(
        name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ
    ):
        return
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_THRESHOLD, KEPT)
    library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def zeros_apart(like: torch.Tensor) -> torch.Tensor:
    """Zeros like a tensor, for what stays: on a CPU pages of their own, which take memory once they are written, and no
    holes among blocks that come and go."""
    if like.nbytes < APART or not like.is_cpu:
        return torch.zeros_like(like)
    pages = mmap.mmap(-1, like.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=like.dtype).view(like.shape)


def give_back_freed_blocks() -> None:
    """What was kept, once nothing will ask for it soon."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
