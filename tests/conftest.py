"""Offline, one thread (tiny models are faster on one), and a cache folder of the tests' own."""

from __future__ import annotations

import gc
import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
# Workers have that of the process that started them: the kernels are compiled once.
if "TUNESMITH_TESTS_CACHE" not in os.environ:
    os.environ["TUNESMITH_TESTS_CACHE"] = tempfile.mkdtemp(prefix="tunesmith-tests-")
os.environ["XDG_CACHE_HOME"] = os.environ["TUNESMITH_TESTS_CACHE"]

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread_and_default_algorithms():
    """A run sets threads and deterministic kernels for its process; each test starts from the same place and seed.

    A run also searches for garbage between models: what is there before a test is not looked at again, of which most
    is imported libraries (a third of a second each time).
    """
    gc.collect()
    gc.freeze()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
