"""Rewards by a function of the user's own."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.config.rewards import FunctionReward
from tunesmith.errors import ConfigError, DataError, clipped, near_miss
from tunesmith.scoring.rewards.rows import Floats, prompt_text, row_of
from tunesmith.types import Example

Function = Callable[..., Any]


@dataclass(frozen=True)
class FunctionPart:
    """path: as the recipe names it, for errors."""

    path: str
    function: Function
    batched: bool

    def __call__(self, examples: Sequence[Example], answers: Sequence[str]) -> Floats:
        prompts, rows = [prompt_text(e) for e in examples], [row_of(e) for e in examples]
        if self.batched:
            return self._numbers(self._call(examples, answers, prompts, list(answers), rows), len(answers))
        found = [
            self._call(examples[i : i + 1], answers[i : i + 1], prompts[i], answers[i], rows[i])
            for i in range(len(answers))
        ]
        return self._numbers(found, len(answers))

    def _call(self, examples: Sequence[Example], answers: Sequence[str], *arguments: Any) -> Any:
        """Its result. An exception of any kind becomes a DataError that says where in the function, and on what."""
        try:
            return self.function(*arguments)
        except Exception as error:
            if len(examples) == 1:
                on = f"{examples[0].ref}, answer {clipped(answers[0])}"
            else:
                on = f"{len(examples)} answers, {examples[0].ref} to {examples[-1].ref}"
                on += f", the first {clipped(answers[0])}"
            raise DataError(
                f"reward function {self.path} failed at {place_of(self.function, error)} "
                f"with {type(error).__name__}: {error}; row {on}",
                "a number for every answer",
                "mend the function",
            ) from error

    def _numbers(self, found: Any, num: int) -> Floats:
        wanted = f"{num} numbers, one for each answer" if self.batched else "a number"
        try:
            values = np.asarray(found)
        except (TypeError, ValueError, RuntimeError):  # ragged lists; tensors that need a gradient
            values = np.asarray(None)
        if values.shape == (0,) == (num,):
            return np.zeros(0)
        if values.dtype.kind not in "biuf" or values.shape != (num,):
            got = clipped(repr(found))
            raise DataError(f"reward function {self.path} returned {got}", wanted, "mend the function")
        return values.astype(np.float64)


def place_of(function: Function, error: Exception) -> str:
    """The last line of the function's own file on the way to the error; its first line where it was never entered (a
    wrong number of arguments); the last line of all where it has no file (compiled code)."""
    frames = traceback.extract_tb(error.__traceback__)
    try:
        file, first = inspect.getsourcefile(function), inspect.getsourcelines(function)[1]
    except (TypeError, OSError):
        file, first = None, 0
    own = [f for f in frames if f.filename == file]
    if file and not own:
        return f"{file}:{first}"
    last = own[-1] if own else frames[-1]
    return f"{last.filename}:{last.lineno} ({last.line})"


def function_of(path: str, what: str) -> Function:
    """A function by its dotted path. Installed packages come first, then the working directory, which stays on the
    path so that the function's module may import its neighbours later. what: it is, for errors."""
    module_name, name = path.replace(":", ".").rsplit(".", 1)
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"the {what}'s module '{module_name}' can not be imported: {type(error).__name__}: {error}",
            f"a module in {os.getcwd()} or an installed package",
            "start the command in the folder that holds it, or correct the path",
        ) from error
    names = vars(module)
    if not callable(names.get(name)):
        known = [n for n, value in names.items() if callable(value) and not n.startswith("_")]
        raise ConfigError(f"{module_name} has no function '{name}'", near_miss(name, known))
    found: Function = names[name]
    return found


def function_part(spec: FunctionReward) -> FunctionPart:
    return FunctionPart(spec.path, function_of(spec.path, "reward function"), spec.batched)
