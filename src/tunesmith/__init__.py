"""Turn a general language model into a specialist on your own data, and prove that it got better.

    import tunesmith
    result = tunesmith.train(tunesmith.Run(data={"train": ["rows.jsonl"]}))

Everything is imported when it is first used, so `import tunesmith` costs next to nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.config.run import Run as Run
    from tunesmith.workflow.evaluate import compare as compare
    from tunesmith.workflow.evaluate import evaluate as evaluate
    from tunesmith.workflow.open import load as load
    from tunesmith.workflow.train import train as train

    __version__: str

# GNU OpenMP reads this when PyTorch is first imported. By default a thread that waits for another spins for
# milliseconds: beside any other busy process the two then take turns on one core, and work falls to a quarter and less.
# With tiles most waits are for what Python does between two kernels, some 0.1 ms: so long they spin.
os.environ.setdefault("GOMP_SPINCOUNT", "4000")

_PUBLIC = {
    "train": ("tunesmith.workflow.train", "train"),
    "evaluate": ("tunesmith.workflow.evaluate", "evaluate"),
    "compare": ("tunesmith.workflow.evaluate", "compare"),
    "load": ("tunesmith.workflow.open", "load"),
    "Run": ("tunesmith.config.run", "Run"),
}
__all__ = ["Run", "__version__", "compare", "evaluate", "load", "train"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tunesmith")
    if name in _PUBLIC:
        module, attribute = _PUBLIC[name]
        return vars(importlib.import_module(module))[attribute]
    raise AttributeError(f"module 'tunesmith' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Room(ModuleType):
    """A sub-package that shares its name with a public function, and can be called as that function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return __getattr__(self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """Python binds an imported sub-package over a function of the same name; `tunesmith.train` shall stay both."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _PUBLIC and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
