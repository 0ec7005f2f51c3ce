"""AdamW (arXiv:1711.05101) over float32 master weights, gradient sums in float32, clipping, and the learning rate.

Weights that compute in bfloat16 have a float32 master here. The gradient of a step's only micro-batch stays as it is;
with a second one the sum is made in float32, so many micro-batches lose no bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from tunesmith.config.run import TrainConfig
from tunesmith.core.device import zeros_apart
from tunesmith.core.native.adamw import Update, adamw, square_sum
from tunesmith.core.native.call import takes_each
from tunesmith.errors import ConfigError
from tunesmith.train.lean import LeanWeight, plain

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
# Share of the fall that is done -> what is left of it.
FALLS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "wsd": lambda progress: 1 - math.sqrt(progress),
}


ADAPTER_PARTS = ("lora_", "ia3_", "hada_", "vera_lambda_", "prompt_encoder.")
"""In the names of PEFT's parameters."""


class Optimizer:
    """Steps the trainable parameters of a module. Tied weights are one parameter under their first name.

    factors: name -> its learning rate as a multiple of the run's; 1 where there is none. groups: name -> when it begins
    to train (`unfreeze`); without groups all train from the start. apart: the beginning of the names of a second model,
    whose gradient is clipped by its own norm.
    """

    def __init__(
        self,
        module: nn.Module,
        config: TrainConfig,
        factors: Mapping[str, float] | None = None,
        groups: Mapping[str, int] | None = None,
        apart: str | None = None,
    ) -> None:
        self.max_grad_norm, self.betas, self.eps = config.max_grad_norm, config.betas, config.eps
        self.groups, self.apart = groups, apart
        self.parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.gradients: dict[str, Tensor] = {}
        """Of weights in bfloat16: in bfloat16 after one backward pass, in float32 after several."""
        self.masters: dict[str, Tensor] = {}
        self.lean: dict[str, LeanWeight] = {}
        alike: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in self.parameters.items():
            decay = config.weight_decay if _decays(name, parameter) else 0.0
            factor = (factors or {}).get(name, 1.0)
            is_low = parameter.dtype not in (torch.float32, torch.float64)
            if is_low:
                self._collect(name, parameter)
            if config.optimizer_state == "bfloat16" and parameter.dtype == torch.bfloat16:
                self.lean[name] = LeanWeight(parameter, decay, factor, len(self.lean))
            else:
                self.masters[name] = parameter.detach().float() if is_low else parameter
                alike.setdefault((decay, factor), []).append(self.masters[name])
        if config.optimizer_state == "bfloat16" and not self.lean:
            raise ConfigError(
                "train.optimizer_state=bfloat16, but nothing that is trained is in bfloat16",
                "full tuning with model.dtype=bfloat16 (an adapter's weights are in float32)",
                "leave train.optimizer_state out, or set it to null where a file says it",
            )
        self.adamw = torch.optim.AdamW(
            [
                {"params": masters, "weight_decay": decay, "factor": factor}
                for (decay, factor), masters in alike.items()
            ]
            or [{"params": []}],
            lr=0.0,
            betas=config.betas,
            eps=config.eps,
            fused=True,
        )

    def _collect(self, name: str, parameter: nn.Parameter) -> None:
        """What a backward pass finds goes to `gradients`."""

        def collect(p: Tensor) -> None:
            assert p.grad is not None
            found = self.gradients.get(name)
            self.gradients[name] = p.grad if found is None else found.float().add_(p.grad)
            p.grad = None

        parameter.register_post_accumulate_grad_hook(collect)

    def unfreeze(self, last: int) -> None:
        """Parameters of the groups up to `last` train; the others get no gradient, and so no decay and no moments."""
        assert self.groups is not None, "an optimizer that was told its groups"
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(self.groups[name] <= last)

    def grad_norm(self) -> Tensor:
        """() Euclidean norm of the whole gradient."""
        return self._norm(self.parameters)

    def _norm(self, names: Iterable[str]) -> Tensor:
        gradients = [g for g in map(self._gradient, names) if g is not None]
        found = [g.values() if g.is_sparse else g for g in gradients]
        if takes_each(*found):
            return square_sum(found).sqrt()
        sums = [vector_norm(g, dtype=torch.float64) ** 2 for g in found]
        return torch.stack(sums).sum().sqrt() if sums else torch.zeros(())

    def gradient(self, name: str) -> Tensor | None:
        """Of a parameter, summed over the backward passes since the last step."""
        found = self._gradient(name)
        return None if found is None else found.to_dense()

    def _gradient(self, name: str) -> Tensor | None:
        """The same, sparse where only some rows have one."""
        found = self.gradients.get(name, self.parameters[name].grad)
        return found.coalesce() if found is not None and found.is_sparse else found

    @torch.no_grad()
    def step(self, learning_rate: float, grad_norm: float) -> None:
        """Clip by the norm (already measured), update the masters, write the weights back."""
        clips = self._clips(grad_norm)
        found = {name: self._gradient(name) for name in self.lean}
        lean = [
            self.lean[name].update(gradient, learning_rate, clips[name])
            for name, gradient in found.items()
            if gradient is not None
        ]
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate * group.get("factor", 1.0)
        if takes_each(*self.parameters.values()):  # masters are where they are, in float32
            adamw([*lean, *self._updates(clips)], self.betas, self.eps)
        else:
            for each in lean:
                plain(each._replace(gradient=each.gradient.to_dense()), self.betas, self.eps)
            for name in self.lean:
                self.gradients.pop(name, None)
            for name, gradient in self.gradients.items():
                self.masters[name].grad = gradient.float()
            for name, master in self.masters.items():
                if master.grad is not None:
                    master.grad = master.grad.to_dense()
                    master.grad.mul_(clips[name])
            self.adamw.step()
            self._write_back()
        self.zero_grad()

    def _clips(self, grad_norm: float) -> dict[str, float]:
        """Name -> what its gradient is multiplied by."""

        def clip(norm: float) -> float:
            most = self.max_grad_norm
            return most / norm if most is not None and norm > most else 1.0

        if self.apart is None:
            return dict.fromkeys(self.parameters, clip(grad_norm))
        second = [name for name in self.parameters if name.startswith(self.apart)]
        first = [name for name in self.parameters if not name.startswith(self.apart)]
        of_first, of_second = (clip(self._norm(names).item()) for names in (first, second))
        return dict.fromkeys(first, of_first) | dict.fromkeys(second, of_second)

    def _updates(self, clips: Mapping[str, float]) -> list[Update]:
        """What `torch.optim.AdamW` does with its state, and the clipping before and the rounding after, in one pass."""
        names = {master: name for name, master in self.masters.items()}
        updates = []
        for group in self.adamw.param_groups:
            for master in group["params"]:
                name = names[master]
                gradient, parameter = self._gradient(name), self.parameters[name]
                if gradient is None:
                    continue
                state = self.adamw.state[master]
                if not state:
                    state |= {"step": torch.zeros(()), "exp_avg": zeros_apart(master)}
                    state["exp_avg_sq"] = zeros_apart(master)
                moments = (state["exp_avg"], state["exp_avg_sq"], state["step"])
                copy = None if parameter is master else parameter
                factors = (clips[name], group["lr"], group["weight_decay"])
                updates.append(Update(master, gradient, *moments, copy, *factors))
        return updates

    def zero_grad(self) -> None:
        self.gradients.clear()
        for weight in (*self.parameters.values(), *self.masters.values()):
            weight.grad = None

    def release(self) -> None:
        """Let go of weights, masters and moments, when training is over and another model needs the memory."""
        self.parameters.clear()
        self.masters.clear()
        self.lean.clear()
        self.gradients.clear()
        self.adamw.state.clear()
        self.adamw.param_groups.clear()

    def _write_back(self) -> None:
        for name, master in self.masters.items():
            if self.parameters[name] is not master:
                self.parameters[name].detach().copy_(master)

    def weights(self) -> dict[str, Tensor]:
        """name -> master weight, itself and no copy, as in `moments`."""
        lean = {name: weight.weight for name, weight in self.lean.items()}
        return {name: weight.detach().contiguous() for name, weight in {**self.masters, **lean}.items()}

    def moments(self) -> dict[str, Tensor]:
        """'exp_avg.<name>' and the like -> AdamW's state; empty before the first step."""
        states = {n: self.adamw.state[m] for n, m in self.masters.items() if m in self.adamw.state}
        states |= {n: lean.state for n, lean in self.lean.items()}
        return {
            f"{kind}.{n}": part.contiguous() for n, state in states.items() for kind, part in state.items()
        }

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor], moments: dict[str, Tensor] | None) -> None:
        """Take weights (and moments) from a checkpoint; names and shapes must be exactly ours."""
        assert weights.keys() == self.parameters.keys(), "a checkpoint of other trainable parameters"
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in self.parameters}
        for key, part in (moments or {}).items():
            kind, _, name = key.partition(".")
            parts[name][kind] = part
        for name, lean in self.lean.items():
            lean.restore(weights[name], parts[name])
        for name, master in self.masters.items():
            master.detach().copy_(weights[name])
            if moments is not None and f"step.{name}" in moments:
                state = {kind: moments[f"{kind}.{name}"].to(master.device, copy=True) for kind in MOMENTS}
                self.adamw.state[master] = state
        self._write_back()


def _decays(name: str, weight: Tensor) -> bool:
    """Matrices only, and none of an adapter: a LoRA pair is kept small by its rank, (IA)3's factors belong near 1, and
    learned tokens have no reason to be near 0."""
    return weight.ndim >= 2 and not any(part in name for part in ADAPTER_PARTS)


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Rate of step 0 <= step < total: linear warm-up from 0, then the schedule (see `TrainConfig.schedule`)."""
    assert config.learning_rate is not None
    assert config.warmup_fraction is not None
    warmup = round(config.warmup_fraction * total)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "inverse_sqrt":
        first = max(warmup, 1)
        return config.learning_rate * math.sqrt(first / (first + step - warmup))
    start = warmup
    if config.schedule == "wsd":
        start = max(warmup, total - round(config.decay_fraction * total))
    progress = max(step - start, 0) / max(total - start, 1)
    floor = config.final_lr_fraction
    return config.learning_rate * (floor + (1 - floor) * FALLS[config.schedule](progress))
