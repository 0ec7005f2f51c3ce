"""THE loop. It never names an algorithm: sources give micro-batches, objectives give sums."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.profiler import record_function

from tunesmith.config.run import TrainConfig
from tunesmith.core.batch import Batch
from tunesmith.core.device import seed_each, used_memory
from tunesmith.core.model import Model
from tunesmith.core.noise import EmbeddingNoise
from tunesmith.core.objective import Objective, WholeStep
from tunesmith.errors import NonFiniteError
from tunesmith.train.checkpoint import Checkpoints, is_better
from tunesmith.train.optim import learning_rate
from tunesmith.train.profile import Profile
from tunesmith.train.state import TrainState
from tunesmith.train.unfreeze import group_at
from tunesmith.types import EventSink, TokenRow


class Source(Protocol):
    @property
    def total_steps(self) -> int: ...

    def epoch(self, step: int) -> float: ...

    def micro_batches(self, step: int, budget: int) -> list[Batch]: ...


@dataclass
class Watch:
    """Which metric of an evaluation chooses the best step. evaluate(step) -> metrics; higher: is more better."""

    evaluate: Callable[[int], dict[str, float]]
    metric: str
    higher: bool


@dataclass
class StepResult:
    loss: dict[str, float]
    metrics: dict[str, float]
    grad_norm: float
    tokens: int
    supervised: int
    rows: int


@dataclass
class Engine:
    """Runs `state` from where it is to the end of `source`.

    stop(): a reason to stop after the current step (a signal, a time limit), or "". profile: measures some steps.
    """

    model: Model
    objective: Objective
    source: Source
    state: TrainState
    config: TrainConfig
    seed: int
    checkpoints: Checkpoints
    sink: EventSink
    watch: Watch | None
    stop: Callable[[], str]
    profile: Profile | None = None

    def run(self) -> None:
        """Train until the end, an early stop, or a reason to stop; the state is saved in each case."""
        try:
            self._run()
        finally:
            if self.profile is not None:
                self.profile.end()
                self._tell_profile(self.profile)

    def _run(self) -> None:
        progress, total = self.state.progress, self.source.total_steps
        started, before = time.monotonic(), progress.elapsed
        last_saved = progress.step
        if progress.step == 0 and progress.best_step is None and self._evaluate():  # what training must beat
            self.save()
        self.model.module.train()
        self._unfreeze(max(progress.step - 1, 0))  # as after the last step, where there is none left to take
        while progress.step < total and not progress.stopped:
            step_started = time.monotonic()
            rate = learning_rate(progress.step, total, self.config)
            with self.profile.step() if self.profile is not None else nullcontext():
                result = self.train_step(rate)
                seconds = time.monotonic() - step_started
            if self.profile is not None and self.profile.found is not None:
                self._tell_profile(self.profile)
            self._report(result, rate, total, seconds)
            assert self.config.eval_every is not None
            due = progress.step % self.config.eval_every == 0 or progress.step == total
            best_now = due and self._evaluate()
            progress.elapsed = before + time.monotonic() - started
            reason = self.stop()
            assert self.config.save_every is not None
            if best_now or reason or progress.step % self.config.save_every == 0 or progress.step == total:
                self.save()
                last_saved = progress.step
            if reason:
                self.sink("note", text=f"stopped after step {progress.step}: {reason}")
                return
        if last_saved != progress.step:
            self.save()

    def _tell_profile(self, profile: Profile) -> None:
        if profile.found is None:
            self.sink("note", text="no profile: the run ended before a step was measured")
        else:
            self.sink("profile", **profile.found)
        self.profile = None

    def train_step(self, rate: float) -> StepResult:
        """One optimizer step. Raises NonFiniteError before the weights change."""
        step = self.state.progress.step
        with record_function("tunesmith: data"):
            micro_batches = self.source.micro_batches(step, self.state.progress.micro_batch_tokens)
        seed = _mix(self.seed, step)
        seed_each(seed, self.model.device)
        self._unfreeze(step)
        with self.model.noisy(embedding_noise(self.config, seed)):
            result = self._gradient(micro_batches)
        with record_function("tunesmith: optimizer"):
            self.state.optimizer.step(rate, result.grad_norm)
        progress = self.state.progress
        progress.step += 1
        progress.tokens += result.tokens
        progress.supervised_tokens += result.supervised
        progress.rows += result.rows
        return result

    def _gradient(self, micro_batches: list[Batch]) -> StepResult:
        """The whole step's gradient, each term divided once by its own weight."""
        weights = _total([self.objective.weights(b) for b in micro_batches])
        losses = dict.fromkeys(weights, 0.0)
        metrics: dict[str, float] = {}
        metric_weights: dict[str, float] = {}
        if isinstance(self.objective, WholeStep):
            self.objective.begin_step(self.model, micro_batches)
        for batch in micro_batches:
            out = self.objective.loss(self.model, batch)
            terms = {t: s / weights[t] for t, s in out.terms.items() if weights[t] > 0}
            loss = torch.stack(list(terms.values())).sum()
            if not math.isfinite(loss.item()):
                raise self._non_finite("loss", [batch])
            loss.backward()
            for term, value in terms.items():
                losses[term] += value.item()
            for name, value in out.metrics.items():
                metrics[name] = metrics.get(name, 0.0) + value.item()
                metric_weights[name] = metric_weights.get(name, 0.0) + out.metric_weights[name].item()
        with record_function("tunesmith: optimizer"):
            norm = self.state.optimizer.grad_norm().item()
        if not math.isfinite(norm):
            raise self._non_finite("gradient", micro_batches)
        return StepResult(
            loss=losses,
            metrics={n: v / metric_weights[n] for n, v in metrics.items() if metric_weights[n] > 0},
            grad_norm=norm,
            tokens=sum(b.num_tokens for b in micro_batches),
            supervised=sum(len(b.targets) for b in micro_batches),
            rows=sum(b.num_rows for b in micro_batches),
        )

    def _unfreeze(self, step: int) -> None:
        if self.config.unfreeze_every is not None:
            self.state.optimizer.unfreeze(group_at(self.source.epoch(step), self.config.unfreeze_every))

    def save(self) -> None:
        started = time.monotonic()
        progress = self.state.progress
        path = self.checkpoints.save(progress.step, self.state.snapshot(), progress.best_step)
        self.sink("checkpoint", step=progress.step, path=str(path), seconds=time.monotonic() - started)

    def _evaluate(self) -> bool:
        """Evaluate where there is a watch, stop early where it has not improved; is this step the best so far?"""
        progress, watch = self.state.progress, self.watch
        if watch is None:
            return False
        metrics = watch.evaluate(progress.step)
        self.model.module.train()
        stopping = self.config.early_stopping
        value = metrics[watch.metric]
        best = is_better(
            value, progress.best_value, watch.higher, stopping.min_delta if stopping is not None else 0.0
        )
        if best:
            progress.best_step, progress.best_value, progress.bad_evaluations = progress.step, value, 0
        elif progress.step:
            progress.bad_evaluations += 1
        self.sink("evaluation", step=progress.step, metrics=metrics, best=best)
        if stopping is not None and progress.bad_evaluations >= stopping.patience:
            progress.stopped = (
                f"{watch.metric} has not improved in {progress.bad_evaluations} evaluations; "
                f"best was step {progress.best_step}"
            )
            self.sink("note", text=f"early stop at step {progress.step}: {progress.stopped}")
        return best

    def _report(self, result: StepResult, rate: float, total: int, seconds: float) -> None:
        self.sink(
            "step",
            step=self.state.progress.step,
            total=total,
            loss=sum(result.loss.values()),
            terms=result.loss,
            metrics=result.metrics,
            learning_rate=rate,
            grad_norm=result.grad_norm,
            tokens=result.tokens,
            tokens_per_second=result.tokens / seconds,
            memory_bytes=used_memory(self.model.device),
        )

    def _non_finite(self, what: str, batches: list[Batch]) -> NonFiniteError:
        step = self.state.progress.step
        rows = [str(row.ref) for row in self._culprits(batches)]
        self.sink("non_finite", step=step + 1, what=what, rows=rows)
        shown = ", ".join(rows[:8]) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
        return NonFiniteError(
            f"the {what} of step {step + 1} is not a finite number; the weights were not changed",
            "finite numbers",
            f"look at these rows: {shown}; else lower train.learning_rate, or set model.dtype=float32",
        )

    def _culprits(self, batches: list[Batch]) -> list[TokenRow]:
        """The rows whose own loss or gradient is not finite; all of them where each alone is."""
        rows = [row for batch in batches for row in batch.rows]
        culprits = []
        for row in rows:
            self.state.optimizer.zero_grad()
            terms = self.objective.loss(self.model, Batch.from_rows([row])).terms
            loss = torch.stack(list(terms.values())).sum()
            loss.backward()
            if not (math.isfinite(loss.item()) and math.isfinite(self.state.optimizer.grad_norm().item())):
                culprits.append(row)
        self.state.optimizer.zero_grad()
        return culprits or rows


def embedding_noise(config: TrainConfig, seed: int) -> EmbeddingNoise | None:
    """Of the step with this seed."""
    return None if config.neftune_alpha is None else EmbeddingNoise(config.neftune_alpha, seed)


def _mix(seed: int, step: int) -> int:
    """A 63-bit seed of (seed, step): splitmix64's finaliser, so that neighbours are unlike."""
    x = (seed * 0x9E3779B97F4A7C15 + step + 1) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (x ^ (x >> 31)) >> 1


def _total(weights: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for each in weights:
        for term, value in each.items():
            total[term] = total.get(term, 0.0) + value.item()
    return total
