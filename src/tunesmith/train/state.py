"""All that a resume needs, in one object.

There is no random-number state in it: every step seeds its generator from (seed, step), and the order of the rows
is a function of (seed, epoch), so neither can be lost. There is no scheduler state: the rate is a function of the step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import Tensor

from tunesmith.errors import RunError
from tunesmith.train.checkpoint import Snapshot
from tunesmith.train.optim import Optimizer


@dataclass
class Progress:
    """Counters of a run. `step` is the number of optimizer steps taken; it is also the data position.

    best_step, best_value: the step whose validation was best so far. bad_evaluations: evaluations since.
    micro_batch_tokens: what the memory probe allowed; part of the state because the sums' order depends on it.
    threads: CPU threads, for the same reason. elapsed: seconds of training; the only field that a resume may change.
    """

    step: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    rows: int = 0
    best_step: int | None = None
    best_value: float | None = None
    bad_evaluations: int = 0
    stopped: str = ""
    micro_batch_tokens: int = 0
    threads: int = 0
    elapsed: float = 0.0


class Stateful(Protocol):
    """What a source of rows has beside the step that decides its rows: those that the model wrote itself."""

    def tensors(self) -> dict[str, Tensor]: ...

    def numbers(self) -> dict[str, Any]:
        """As JSON holds them."""
        ...

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None: ...


@dataclass
class TrainState:
    """Progress, the trained weights and the optimizer's moments; what the source of the rows holds, where it does.

    config_hash: of the settings that decide the numbers.
    """

    progress: Progress
    optimizer: Optimizer
    config_hash: str
    source: Stateful | None = None

    def snapshot(self) -> Snapshot:
        groups = {"weights": self.optimizer.weights(), "optimizer": self.optimizer.moments()}
        state = {"progress": asdict(self.progress), "config_hash": self.config_hash}
        if self.source is not None:
            groups["source"], state["source"] = self.source.tensors(), self.source.numbers()
        return Snapshot(groups, state)

    def restore(self, snapshot: Snapshot) -> None:
        state: dict[str, Any] = snapshot.state
        if state["config_hash"] != self.config_hash:
            raise RunError(
                "the checkpoint was made with other settings, data or model files",
                f"config hash {self.config_hash[:12]}…, got {state['config_hash'][:12]}…",
                "resume with the run's own config.yaml and unchanged data, or start a new run",
            )
        self.progress = Progress(**state["progress"])
        self.optimizer.restore(snapshot.groups["weights"], snapshot.groups["optimizer"])
        if self.source is not None:
            self.source.restore(snapshot.groups["source"], state["source"])
