"""A source of rows that the model writes itself: prompts -> answers -> rewards -> advantages -> micro-batches.

A rollout serves passes x minibatches optimizer steps. Which prompts, which numbers the answers are drawn with and how a
pass is divided are functions of the seed and the step; what a resume in the middle of a rollout needs beside them, the
rows themselves, is part of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.config.policy import PolicyConfig
from tunesmith.core.batch import Batch
from tunesmith.data.flat import FlatRows, flat_rows
from tunesmith.generate.batched import evaluating
from tunesmith.generate.sample import Sample
from tunesmith.objectives import completions, policy, ppo
from tunesmith.objectives.policy import Policy
from tunesmith.objectives.ppo import values_and_losses, values_of
from tunesmith.scoring.alarms import Looks, alarms, looks
from tunesmith.train.advantages import with_advantages, worthless
from tunesmith.train.source import StaticSource, divided
from tunesmith.train.spent import Spent
from tunesmith.train.start import StartWeights
from tunesmith.train.writing import Floats, Group, Writer, by_answer, tree
from tunesmith.types import EventSink, Example, TokenRow

ROUNDS = 3
"""Times as many prompts as wanted that dynamic sampling looks at, at most."""


@dataclass
class Memory:
    """What is carried from rollout to rollout. start: what the first one's answers looked like. stopping: why the run
    is to end, where the policy went too far."""

    start: dict[str, float] = field(default_factory=dict)
    kls: list[float] = field(default_factory=list)
    kl_weight: float | None = None
    stopping: str = ""


@dataclass
class RolloutSource:
    """prompts: which rows each rollout asks; examples: what each row asks in words. start: the reference."""

    prompts: StaticSource
    examples: Mapping[Any, Example]
    writer: Writer
    objective: Any
    start: StartWeights
    seed: int
    sink: EventSink
    memory: Memory = field(default_factory=Memory)
    budget: int = 0
    """Most tokens of a micro-batch: old log-probabilities are of the very batches that are trained on."""
    _at: int = -1
    _rows: list[TokenRow] = field(default_factory=list)
    _left: int = 0
    """Steps that the rollout still serves."""

    @property
    def method(self) -> PolicyConfig:
        return self.writer.method

    @property
    def steps_each(self) -> int:
        assert self.method.passes is not None, "defaults are resolved before a run"
        return self.method.passes * self.method.minibatches

    @property
    def asks_before(self) -> bool:
        """Whether the policy says its own log-probabilities in a pass before the first step on a rollout. The only step
        on it says them itself; but values and a penalty in the reward are needed for the advantages."""
        if self.method.algorithm not in self.method.GRADIENT:
            return False
        penalised = self.method.kl.where == "reward" and self.objective.kl_weight > 0
        return self.steps_each > 1 or penalised or self.method.algorithm == "ppo"

    @property
    def total_steps(self) -> int:
        return self.prompts.total_steps * self.steps_each

    def epoch(self, step: int) -> float:
        return self.prompts.epoch(step // self.steps_each)

    def micro_batches(self, step: int, budget: int) -> list[Batch]:
        self.budget = budget
        rollout, inner = divmod(step, self.steps_each)
        if rollout != self._at:
            assert inner == 0, "a run that is resumed inside a rollout has its rows"
            self._at = rollout  # before it: what is told of it names it
            self._rows = self._roll(rollout)
        self._left = self.steps_each - 1 - inner
        rows = [self._rows[i] for i in self._share(rollout, inner)]
        return [Batch.from_rows(part) for part in self._packed(rows)]

    def _packed(self, rows: Sequence[TokenRow]) -> list[list[TokenRow]]:
        return divided(rows, self.budget, padded=self.prompts.padded)

    def _share(self, rollout: int, inner: int) -> list[int]:
        """The rows of an inner step: groups stay whole. The first pass goes in the rollout's order, so that old
        log-probabilities are of the very batches that it trains on."""
        number, part = divmod(inner, self.method.minibatches)
        order = np.arange(len(self._rows))
        if number:
            order = np.random.default_rng((self.seed, 7, rollout, number)).permutation(order)
        parts = np.array_split(order, min(self.method.minibatches, len(order)))
        return [int(i) for i in parts[part % len(parts)]]

    # -- one rollout ----------------------------------------------------------------------------------------

    def _roll(self, rollout: int) -> list[TokenRow]:
        spent = Spent()
        groups, every, parts = self._groups(rollout, spent)
        with spent.on("preparing"):
            if self.method.algorithm in self.method.GRADIENT:
                rows, kls = self._worth(groups)
            else:
                rows = self._learnable(groups)
                whole = [tree(group.prompt, group.samples, [1.0] * len(group.samples)) for group in groups]
                kls = [self._kls(row) for row in self._with_logps(whole)]
        kl = float(np.mean([one.sum() for of_row in kls for one in of_row]))
        self._tell(len(groups), every, parts, kl, spent)
        return rows

    def _worth(self, groups: Sequence[Group]) -> tuple[list[TokenRow], list[list[Floats]]]:
        """Rows with their advantages, and the KL divergence of their tokens. A group of which every answer is left out
        has none; where that is so of all groups, one stands for them and is worth nothing: no step is empty."""
        counted = [group for group in groups if group.counted(self.method).any()]
        if not counted:
            text = "every answer was cut off at method.max_new_tokens, so none is learned from (method.truncated=mask)"
            self.sink("warning", text=f"rollout {self._at + 1}: {text}")
        learned = counted or [replace(groups[0], samples=[replace(s, ended=True) for s in groups[0].samples])]
        rows = self._with_logps(self._learnable(learned))
        kls = [self._kls(row) for row in rows]
        if self.method.truncated == "bootstrap":
            rows = self._with_values_after(rows, learned)
        weight = self.objective.kl_weight if self.method.kl.where == "reward" else 0.0
        rows = with_advantages(rows, learned, kls, self.method, weight)
        return (rows if counted else [worthless(row) for row in rows]), kls

    def _groups(self, rollout: int, spent: Spent) -> tuple[list[Group], list[Group], dict[str, Floats]]:
        """The groups to learn from; all that were asked, those of the rollout's own prompts first; and the parts of the
        rewards of its own prompts, none of which dynamic sampling has chosen."""
        wanted = self.prompts.indices(rollout)
        kept: list[Group] = []
        every: list[Group] = []
        parts: dict[str, Floats] = {}
        more = np.random.default_rng((self.seed, 8, rollout)).permutation(len(self.prompts.rows)).tolist()
        asked, used = wanted, set(wanted)
        rounds = ROUNDS if self.method.dynamic_sampling else 1
        for number in range(rounds):
            groups, of_parts = self._ask([self.prompts.rows[i] for i in asked], rollout, len(every), spent)
            every += groups
            parts = parts or of_parts
            last = number == rounds - 1
            for group in groups:
                if not self.method.dynamic_sampling or group.teaches(self.method) or (last and not kept):
                    kept.append(group)
            if len(kept) >= len(wanted) or last:
                break
            asked = [i for i in more if i not in used][: len(wanted) - len(kept)] or wanted
            used.update(asked)
        return kept[: len(wanted)], every, parts

    def _ask(
        self, prompts: Sequence[TokenRow], rollout: int, first: int, spent: Spent
    ) -> tuple[list[Group], dict[str, Floats]]:
        """Groups, and the parts of their rewards (P, G)."""
        count = self.method.samples
        streams = [rollout * ROUNDS * self.prompts.batch_size + first + i for i in range(len(prompts))]
        examples = [self.examples[row.ref] for row in prompts]
        samples, scored = self.writer.rewarded(prompts, examples, count, self.seed, spent, streams)
        total = scored.total.reshape(len(prompts), count)
        parts = {name: values.reshape(len(prompts), count) for name, values in scored.parts.items()}
        groups = [Group(*three) for three in zip(prompts, samples, total, strict=True)]
        return groups, parts

    def _learnable(self, groups: Sequence[Group]) -> list[TokenRow]:
        """Trees of what the objective learns from."""
        name = self.method.algorithm
        rows = []
        for group in groups:
            rewards = group.learned(self.method)
            if name == "raft":
                rows.append(tree(group.prompt, [group.samples[int(rewards.argmax())]], [1.0]))
            elif name == "online_dpo":
                best, worst = int(rewards.argmax()), int(rewards.argmin())
                if rewards[best] > rewards[worst]:
                    chosen = tree(group.prompt, [group.samples[best], group.samples[worst]], [1.0, 1.0])
                    rows.append(replace(chosen, given={completions.SCORES: rewards[[best, worst]]}))
            else:
                rows.append(tree(group.prompt, group.samples, self._token_weights(group, rewards)))
        if name == "online_dpo":
            rows = self._with_reference_sums(rows or [self._level(groups[0])])
        return rows

    def _level(self, group: Group) -> TokenRow:
        """A pair of one answer and itself, which teaches nothing, where no group has a best answer: no step is
        empty."""
        row = tree(group.prompt, [group.samples[0], group.samples[0]], [1.0, 1.0])
        return replace(row, given={completions.SCORES: np.array([1.0, 0.0])})

    def _token_weights(self, group: Group, rewards: Floats) -> list[float]:
        """What a token of each answer counts in the loss: 0 leaves the answer out."""
        if self.method.algorithm == "rwr":
            assert self.method.beta is not None
            weights = np.exp((rewards - rewards.max()) / self.method.beta)
            return [float(w) for w in weights / weights.mean()]
        return [float(counts) for counts in group.counted(self.method)]

    def _with_logps(self, rows: list[TokenRow]) -> list[TokenRow]:
        """With reference log-probabilities, and old ones where they are asked before: of the very batches of the first
        pass."""
        out: list[TokenRow | None] = [None] * len(rows)
        for part in np.array_split(np.arange(len(rows)), min(self.method.minibatches, len(rows))):
            own = [rows[i] for i in part]
            place = {id(row): int(i) for row, i in zip(own, part, strict=True)}
            for packed in self._packed(own):
                batch = Batch.from_rows(packed)
                given = self._known(batch)
                with self.start.back():
                    given[policy.REFERENCE] = self._logps(batch)
                cuts = np.cumsum([row.num_supervised for row in packed])[:-1]
                pieces = {name: np.split(values, cuts) for name, values in given.items()}
                for at, row in enumerate(packed):
                    new = {name: found[at] for name, found in pieces.items()}
                    out[place[id(row)]] = replace(row, given={**row.given, **new})
        return [row for row in out if row is not None]

    def _known(self, batch: Batch) -> dict[str, Floats]:
        """What the policy says of its own tokens, and of ppo what they are expected to be worth."""
        if not self.asks_before:
            return {}
        if self.method.algorithm != "ppo":
            return {policy.OLD: self._logps(batch)}
        with evaluating(self.writer.model.module):
            losses, values = values_and_losses(self.writer.model, batch, self.method.temperature)
        return {policy.OLD: -losses.double().numpy(), ppo.VALUES: values.double().numpy()}

    def _with_values_after(self, rows: list[TokenRow], groups: Sequence[Group]) -> list[TokenRow]:
        """Of answers that were cut off: what is expected from there on. A pass of its own, since the batches that are
        trained on read no state after the last token."""
        out: dict[int, TokenRow] = {}
        cut = {id(row): group.cut for row, group in zip(rows, groups, strict=True)}
        for packed in self._packed(rows):
            batch = Batch.from_rows(packed)
            with evaluating(self.writer.model.module):
                values = values_of(self.writer.model, batch.after_completions())
            pieces = np.split(values.double().numpy(), np.cumsum(batch.completions_of_rows)[:-1])
            for row, after in zip(packed, pieces, strict=True):
                given = {**row.given, ppo.AFTER: np.where(cut[id(row)], after, 0.0)}
                out[id(row)] = replace(row, given=given)
        return [out[id(row)] for row in rows]

    def _logps(self, batch: Batch) -> Floats:
        with evaluating(self.writer.model.module):
            losses = self.writer.model.token_losses(batch, self.method.temperature)
        return -losses.double().numpy()

    def _kls(self, row: TokenRow) -> list[Floats]:
        """Of each answer that is learned from (n,): the estimate of its tokens' KL divergence from the reference. The
        policy's log-probabilities are those before the step, or as it wrote, which differ by rounding alone."""
        old = row.given.get(policy.OLD, row.given[policy.WRITTEN])
        reference = row.given[policy.REFERENCE]
        found = policy.divergence(
            torch.from_numpy(old), torch.from_numpy(reference), self.method.kl.estimator or "k1"
        ).numpy()
        return by_answer(row, found)

    def _with_reference_sums(self, rows: list[TokenRow]) -> list[TokenRow]:
        """Of pairs (2,): summed log-probabilities under the reference."""
        out = []
        with self.start.back():
            for packed in self._packed(rows):
                logps = self._logps(Batch.from_rows(packed))
                cuts = np.cumsum([row.num_supervised for row in packed])[:-1]
                for row, found in zip(packed, np.split(logps, cuts), strict=True):
                    sums = np.array([part.sum() for part in by_answer(row, found)])
                    out.append(replace(row, given={**row.given, completions.REFERENCE: sums}))
        return out

    # -- what is told and kept ------------------------------------------------------------------------------

    def _tell(
        self, learned: int, every: Sequence[Group], parts: Mapping[str, Floats], kl: float, spent: Spent
    ) -> None:
        """learned: how many groups are learned from. Numbers are of the rollout's own prompts, so that they are not of
        what was chosen by its rewards."""
        own = every[: len(self.prompts.indices(self._at))]
        samples = [one for group in own for one in group.samples]
        tokens = [len(one.ids) for one in samples]
        now = looks([self.writer.text(one) for one in samples], tokens, [not one.ended for one in samples])
        if not self.memory.start:
            self.memory.start = asdict(now)
        self.memory.kls.append(kl)
        signs = alarms(now, Looks(**self.memory.start), self.memory.kls)  # type: ignore[arg-type]
        for text in signs:
            self.sink("warning", text=f"rollout {self._at + 1}: {text}")
        rewards = np.concatenate([group.rewards for group in own])
        numbers = {
            "reward": float(rewards.mean()),
            "reward_deviation": float(rewards.std()),
            "length": now.tokens,
            **_spread(samples),
            "cut": now.at_limit,
            "kl": kl,
            **{f"reward.{name}": float(values.mean()) for name, values in parts.items()},
        }
        self._watch_kl(kl)
        self.sink(
            "rollout",
            step=self._at * self.steps_each,
            rollout=self._at,
            prompts=learned,
            asked=len(every),
            answers=sum(len(group.samples) for group in every),
            tokens=sum(len(one.ids) for group in every for one in group.samples),
            seconds=spent.seconds,
            numbers=numbers,
            alarms=signs,
        )

    def _watch_kl(self, kl: float) -> None:
        if self.method.kl.target is not None and isinstance(self.objective, Policy):
            error = float(np.clip(kl / self.method.kl.target - 1, -0.2, 0.2))
            self.objective.kl_weight *= 1 + 0.1 * error
            self.memory.kl_weight = self.objective.kl_weight
        if self.method.kl.stop_at is not None and kl > self.method.kl.stop_at:
            self.memory.stopping = (
                f"the KL divergence of an answer, {kl:.3g} nats, is above method.kl.stop_at"
            )

    def tensors(self) -> dict[str, Tensor]:
        """The rows of a rollout that is not used up."""
        if not self._left:
            return {}
        files = {file: i for i, file in enumerate(self._files())}
        return {name: torch.from_numpy(array) for name, array in flat_rows(self._rows, files).items()}

    def numbers(self) -> dict[str, Any]:
        return {"at": self._at, "files": self._files(), "memory": asdict(self.memory)}

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        if tensors:
            arrays = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
            self._at, self._rows = numbers["at"], list(FlatRows(arrays, numbers["files"]))
        self.memory = Memory(**numbers["memory"])
        if self.memory.kl_weight is not None:
            self.objective.kl_weight = self.memory.kl_weight

    def _files(self) -> list[str]:
        return sorted({row.ref.file for row in self._rows})


def _spread(samples: Sequence[Sample]) -> dict[str, float]:
    """How much is left open at a token; where its entropy is not said, minus the log-probability of what was drawn,
    whose mean it is."""
    entropies = [one.entropies for one in samples if one.entropies is not None]
    if len(entropies) == len(samples):
        return {"entropy": float(np.concatenate(entropies).mean())}
    return {"surprisal": -float(np.concatenate([one.logps for one in samples]).mean())}
