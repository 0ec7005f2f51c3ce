"""What a rollout learns from, with a writer whose answers and rewards are known: each method's rows by its formula,
prompts that are asked for again, answers that are left out, and what is told and watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from tests import fakes
from tests.objectives.test_policy import resolved
from tunesmith.core.batch import Batch
from tunesmith.generate.sample import Sample
from tunesmith.objectives.policy import Policy
from tunesmith.objectives.ppo import Ppo
from tunesmith.scoring.rewards import Scored
from tunesmith.train.rollout import ROUNDS, RolloutSource
from tunesmith.train.source import StaticSource
from tunesmith.train.start import StartWeights

GROUP = 4
REWARDS = (0.5, 2.0, -1.0, 0.0)


@dataclass
class Scripted:
    """A writer of random answers. rewards: prompt's number and how often it was asked -> of each answer; ends: rollout
    and answer -> whether it ended; says: rollout -> a text for every answer."""

    method: Any
    rewards: Callable[[int, int], Sequence[float]] = lambda prompt, times: REWARDS
    ends: Callable[[int, int], bool] = lambda rollout, answer: True
    says: Callable[[int], str] = lambda rollout: ""
    tokens: int = 3
    asked: list[list[int]] = field(default_factory=list)
    rollouts: int = 0

    def __post_init__(self) -> None:
        self.model = fakes.model("gpt2")

    def rewarded(self, prompts, examples, count, seed, spent, streams):
        self.spoken = self.says(self.rollouts)
        numbers = [row.ref.line - 1 for row in prompts]
        times = [sum(n in one for one in self.asked) for n in numbers]
        self.asked.append(numbers)
        total = np.array([self.rewards(n, t) for n, t in zip(numbers, times, strict=True)], np.float64)
        samples = [[self._sample(stream, i) for i in range(count)] for stream in streams]
        return samples, Scored(total.ravel(), {"rule": total.ravel()})

    def _sample(self, stream: int, answer: int) -> Sample:
        rng = np.random.default_rng((stream, answer))
        ids = rng.integers(3, fakes.VOCAB, self.tokens + answer).tolist()
        ended = self.ends(self.rollouts, answer)
        return Sample(ids, ended, np.full(len(ids), -1.0, np.float32), np.full(len(ids), 2.0, np.float32))

    def text(self, one: Sample) -> str:
        return self.spoken or " ".join(map(str, one.ids))


def source(method, told: list[Any] | None = None, prompts: int = 12, **script: Any) -> RolloutSource:
    """Two prompts a rollout."""
    rows = [fakes.row([5 + i, 6, 7, 8], 4, i) for i in range(prompts)]
    writer = Scripted(method, **script)
    events = [] if told is None else told
    static = StaticSource(rows, 2, 100, 0, padded=False)
    return RolloutSource(
        prompts=static,
        examples={row.ref: None for row in rows},
        writer=writer,
        objective=Policy(method) if method.algorithm in method.GRADIENT else None,
        start=StartWeights(writer.model.module),
        seed=0,
        sink=lambda name, **what: events.append((name, what)),
    )


def method_of(algorithm="grpo", **settings):
    return resolved(algorithm, samples=GROUP, **settings)


def rolled(made: RolloutSource, rollout: int = 0):
    made.writer.rollouts = rollout
    (batch,) = made.micro_batches(rollout * made.steps_each, 10_000)
    return batch


def weights(batch: Batch) -> list[list[float]]:
    return [[float(leaf.weights[0]) for leaf in row.segments[1:]] for row in batch.rows]


def moved(made: RolloutSource) -> None:
    """The policy is no longer the start."""
    torch.manual_seed(1)
    for parameter in made.writer.model.module.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)


def logps_of(made: RolloutSource, batch: Batch, temperature: float = 1.0) -> list[np.ndarray]:
    """Of each answer, by the stock model alone."""
    module, out = made.writer.model.module, []
    ours = module.config._attn_implementation
    module.set_attn_implementation("sdpa")
    for row in batch.rows:
        for leaf in row.segments[1:]:
            ids = torch.tensor([*row.segments[0].ids, *leaf.ids])
            with torch.no_grad():
                logps = (module(input_ids=ids[None]).logits[0, :-1] / temperature).log_softmax(-1)
            out.append(logps.gather(1, ids[1:, None])[len(row.segments[0].ids) - 1 :, 0].numpy())
    module.set_attn_implementation(ours)
    return out


# -- What each method learns from -----------------------------------------------------------------------------


def test_raft_learns_the_best_answer_alone():
    batch = rolled(source(method_of("raft")))
    assert [[len(leaf.ids) for leaf in row.segments[1:]] for row in batch.rows] == [
        [4],
        [4],
    ]  # the second of four


def test_online_dpo_learns_the_best_against_the_worst_and_holds_them_against_the_start():
    made = source(method_of("online_dpo"))
    moved(made)
    batch = rolled(made)
    for row in batch.rows:
        assert [len(leaf.ids) for leaf in row.segments[1:]] == [4, 5]
        assert row.given["scores"].tolist() == [2.0, -1.0]
    with made.start.back():
        sums = [logps.sum() for logps in logps_of(made, batch)]
    np.testing.assert_allclose(
        np.concatenate([row.given["reference"] for row in batch.rows]), sums, rtol=1e-6
    )


def test_online_dpo_makes_no_pair_of_equal_rewards():
    rewards = {True: (1.0, 1.0, 1.0, 1.0), False: REWARDS}
    made = source(method_of("online_dpo"))
    first = made.prompts.indices(0)[0]
    made.writer.rewards = lambda prompt, times: rewards[prompt == first]
    assert [row.ref.line - 1 for row in rolled(made).rows] == [made.prompts.indices(0)[1]]


def test_rwr_weighs_answers_by_the_exponential_of_their_reward_against_the_groups_mean():
    batch = rolled(source(method_of("rwr", beta=0.5)))
    each = np.exp(np.array(REWARDS) / 0.5)
    for found in weights(batch):
        np.testing.assert_allclose(found, each / each.mean(), rtol=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_divergence_in_the_reward_is_taken_from_the_whole_answers(estimator):
    """rloo: r - weight x sum of the tokens' estimates, less the mean of the others."""
    method = method_of("rloo", kl={"weight": 0.3, "estimator": estimator})
    made = source(method)
    moved(made)
    batch = rolled(made)
    now = logps_of(made, batch)
    with made.start.back():
        then = logps_of(made, batch)
    for g, row in enumerate(batch.rows):
        d = [a - b for a, b in zip(now[g * GROUP :][:GROUP], then[g * GROUP :][:GROUP], strict=True)]
        of = {"k1": lambda d: d, "k2": lambda d: d**2 / 2, "k3": lambda d: np.exp(-d) - 1 + d}[estimator]
        net = [r - 0.3 * of(one).sum() for r, one in zip(REWARDS, d, strict=True)]
        want = [x - (sum(net) - x) / (GROUP - 1) for x in net]
        sizes = [len(leaf.ids) for leaf in row.segments[1:]]
        np.testing.assert_allclose(row.given["advantages"], np.repeat(want, sizes), rtol=1e-5)
        assert max(np.abs(one).max() for one in d) > 0.01


@pytest.mark.parametrize("algorithm", ["reinforce_pp", "ppo"])
def test_each_token_pays_its_divergence_and_all_of_the_rollout_are_scaled_together(algorithm):
    """Rewards less the penalties of the tokens from each on; of ppo (lambda 1) less the value too."""
    more = {"gae_lambda": 1.0} if algorithm == "ppo" else {}
    made = source(method_of(algorithm, kl={"weight": 0.3, "estimator": "k1"}, **more))
    made.writer.model.value = torch.nn.Linear(32, 1).double()
    moved(made)
    batch = rolled(made)
    now = logps_of(made, batch)
    with made.start.back():
        then = logps_of(made, batch)
    net = []
    for reward, a, b in zip(REWARDS * 2, now, then, strict=True):
        net.append([reward - 0.3 * (a - b)[t:].sum() for t in range(len(a))])
    want = np.concatenate(net)
    if algorithm == "ppo":
        np.testing.assert_allclose(np.concatenate([r.given["returns"] for r in batch.rows]), want, rtol=1e-6)
        want = want - np.concatenate([row.given["old_values"] for row in batch.rows])
    want = (want - want.mean()) / want.std()
    got = np.concatenate([row.given["advantages"] for row in batch.rows])
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("algorithm", ["rloo", "ppo"])
def test_log_probabilities_are_those_at_the_temperature_of_writing(algorithm):
    method = method_of(algorithm, temperature=0.7, kl={"weight": 0.1})
    made = source(method)
    made.writer.model.value = torch.nn.Linear(32, 1).double()
    moved(made)
    batch = rolled(made)
    now = logps_of(made, batch, temperature=0.7)
    with made.start.back():
        then = logps_of(made, batch, temperature=0.7)
    for name, want in (("old_logps", now), ("reference_logps", then)):
        got = np.concatenate([row.given[name] for row in batch.rows])
        np.testing.assert_allclose(got, np.concatenate(want), rtol=1e-5)
    out = (Ppo if algorithm == "ppo" else Policy)(method).loss(made.writer.model, batch)
    assert out.metrics["ratio"].item() == pytest.approx(len(batch.targets), rel=1e-9)


def test_each_pass_takes_every_group_once_and_whole():
    made = source(method_of("grpo", passes=3, minibatches=2), prompts=12)
    made.prompts.batch_size = 5
    orders = []
    for number in range(3):
        taken = [made.micro_batches(2 * number + part, 10_000) for part in range(2)]
        rows = [row for of_step in taken for batch in of_step for row in batch.rows]
        assert [sum(len(batch.rows) for batch in of_step) for of_step in taken] == [3, 2]
        assert all(len(row.segments) == 1 + GROUP for row in rows)
        orders.append([row.ref.line for row in rows])
        assert sorted(orders[-1]) == sorted(1 + i for i in made.prompts.indices(0))
    assert orders[0] != orders[1] != orders[2]  # the first pass as they were written, then each anew


# -- Answers that are left out --------------------------------------------------------------------------------


def test_masked_answers_are_no_part_of_the_loss_but_of_their_groups_mean():
    made = source(method_of("dr_grpo", truncated="mask"), ends=lambda rollout, answer: answer % 2 == 0)
    batch = rolled(made)
    assert weights(batch) == [[1.0, 0.0, 1.0, 0.0]] * 2
    worth = np.array(REWARDS) - np.mean(REWARDS)
    for row in batch.rows:
        sizes = [len(row.segments[1].ids), len(row.segments[3].ids)]
        np.testing.assert_allclose(row.given["advantages"], np.repeat(worth[[0, 2]], sizes))


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "reinforce_pp"])
def test_a_group_of_which_every_answer_is_masked_teaches_nothing(algorithm):
    """It is none of the rows; of a rollout of such groups one is left, whose advantages are 0."""
    method, told = method_of(algorithm, truncated="mask", dynamic_sampling=False), list[Any]()
    made = source(method, told)
    _, second = made.prompts.indices(0)
    cut = made.writer._sample
    made.writer._sample = lambda stream, answer: replace(cut(stream, answer), ended=stream > 0)
    assert [row.ref.line - 1 for row in rolled(made, 0).rows] == [second]
    made.writer._sample = lambda stream, answer: replace(cut(stream, answer), ended=False)
    assert not any("none is learned from" in what.get("text", "") for _, what in told)
    (none,) = rolled(made, 1).rows
    assert any("rollout 2: every answer was cut off" in what.get("text", "") for _, what in told)
    assert not none.given["advantages"].any()


def test_values_learn_nothing_of_answers_that_are_all_masked():
    made = source(method_of("ppo", truncated="mask"), ends=lambda rollout, answer: False)
    made.writer.model.value = torch.nn.Linear(32, 1).double()
    (row,) = rolled(made).rows
    assert row.given["old_values"].any()
    np.testing.assert_array_equal(row.given["returns"], row.given["old_values"])
    assert not row.given["advantages"].any()


# -- Prompts that are asked for again -------------------------------------------------------------------------


def test_dynamic_sampling_asks_new_prompts_in_place_of_those_of_equal_rewards():
    """None twice while others are left, whatever the seed."""
    for seed in range(5):
        made = source(method_of("dapo"), prompts=6, rewards=lambda prompt, times: (1.0,) * GROUP)
        made.seed = seed
        rolled(made)
        assert len(made.writer.asked) == ROUNDS
        assert sorted(one for each in made.writer.asked for one in each) == list(range(6))


def test_dynamic_sampling_keeps_what_differs_and_counts_what_it_asked():
    told: list[Any] = []
    made = source(method_of("dapo"), told)
    first, second = made.prompts.indices(0)
    made.writer.rewards = lambda prompt, times: (1.0,) * GROUP if prompt == second else REWARDS
    batch = rolled(made)
    kept = [row.ref.line - 1 for row in batch.rows]
    assert kept[0] == first
    assert second not in kept
    assert len(kept) == 2
    (rollout,) = [what for name, what in told if name == "rollout"]
    assert (rollout["asked"], rollout["prompts"], rollout["answers"]) == (3, 2, 3 * GROUP)
    # What is told is of the two that the rollout asked first, not of those that were chosen for their rewards.
    assert rollout["numbers"]["reward"] == rollout["numbers"]["reward.rule"]
    assert rollout["numbers"]["reward"] == pytest.approx((1.0 + np.mean(REWARDS)) / 2)


def test_what_is_penalised_differs_though_its_rewards_do_not():
    told: list[Any] = []
    method = method_of("dapo", truncated="penalise", dynamic_sampling=True)
    made = source(
        method, told, rewards=lambda prompt, times: (1.0,) * GROUP, ends=lambda rollout, answer: answer > 0
    )
    batch = rolled(made)
    assert [row.ref.line - 1 for row in batch.rows] == made.prompts.indices(0)
    assert batch.rows[0].given["advantages"][0] < 0 < batch.rows[0].given["advantages"][-1]


# -- What is told and watched ---------------------------------------------------------------------------------


def test_the_weight_of_the_divergence_follows_its_target():
    """arXiv:1909.08593, 2.2: the error is cut to 0.2, and moves the weight by a tenth of it."""
    method = method_of("grpo", kl={"weight": 0.2, "target": 0.5})
    made, weight = source(method), 0.2
    for divergence in (0.0, 0.5, 0.55, 0.45, 3.0):
        made._watch_kl(divergence)
        error = min(max((divergence - 0.5) / 0.5, -0.2), 0.2)
        weight *= 1 + 0.1 * error
        assert made.objective.kl_weight == pytest.approx(weight, rel=1e-12)
    assert made.memory.stopping == ""


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "ppo", "online_dpo", "raft", "rwr"])
def test_every_algorithm_stops_where_the_policy_went_too_far(algorithm):
    made = source(method_of(algorithm, kl={"stop_at": 0.5}))
    made._watch_kl(0.5)
    assert made.memory.stopping == ""
    made._watch_kl(0.51)
    assert "0.51 nats, is above method.kl.stop_at" in made.memory.stopping


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ({"says": lambda rollout: "the same thing" if rollout else ""}, "are the same as another one"),
        ({"ends": lambda rollout, answer: not rollout}, "cut off at the length limit"),
        ({"says": lambda rollout: " " if rollout else ""}, "are empty"),
        ({"says": lambda rollout: "a b c d " * 9 if rollout else ""}, "repeat earlier ones of the answer"),
    ],
)
def test_a_rollout_that_looks_unlike_the_first_is_told_of(later, said):
    told: list[Any] = []
    made = source(method_of("dr_grpo"), told, **later)
    rolled(made, 0)
    assert not [what for name, what in told if name == "warning"]
    rolled(made, 1)
    warnings = [what["text"] for name, what in told if name == "warning"]
    assert any(text.startswith("rollout 2: ") and said in text for text in warnings)
    events = [what for name, what in told if name == "rollout"]
    assert events[0]["alarms"] == []
    assert [f"rollout 2: {sign}" for sign in events[1]["alarms"]] == warnings


def test_longer_answers_are_told_of():
    told: list[Any] = []
    made = source(method_of("dr_grpo"), told)
    rolled(made, 0)
    made.writer.tokens = 30
    rolled(made, 1)
    assert any("times as long as at the start" in what["text"] for name, what in told if name == "warning")


def test_a_policy_that_jumps_away_is_told_of():
    told: list[Any] = []
    made = source(method_of("dr_grpo"), told)
    made.memory.kls = [1e-3] * 6
    moved(made)
    batch = rolled(made, 0)
    warnings = [what["text"] for name, what in told if name == "warning"]
    assert any("KL to the reference jumped" in text for text in warnings)
    (numbers,) = [what["numbers"] for name, what in told if name == "rollout"]
    assert made.memory.kls[-1] == numbers["kl"]
    with made.start.back():
        then = logps_of(made, batch)
    d = [-1.0 - logps for logps in then]  # the writer says -1 of every token
    assert numbers["kl"] == pytest.approx(np.mean([(np.exp(-x) - 1 + x).sum() for x in d]), rel=1e-6)
