"""What training lowers: a file for each `method.type`, of its name, which puts its class into OBJECTIVES."""

from collections.abc import Callable
from typing import Any

from tunesmith.core.objective import Objective
from tunesmith.registry import Registry

OBJECTIVES: Registry[Callable[[Any], Objective]] = Registry("training method")
"""`method.type` -> what makes the objective of a resolved method."""
