"""What a sampled answer is worth: its reward against others of its prompt or of its rollout.

| algorithm | advantage of an answer with reward r |
|---|---|
| grpo, dapo, gspo | (r - mean of the group) / standard deviation of the group |
| dr_grpo | r - mean of the group |
| rloo | r - mean of the others of the group |
| ppo | each token by generalised advantage estimation of r and the KL penalties, scaled as reinforce_pp's |
| reinforce_pp | r, less the KL of each token from there on; all tokens of the rollout to mean 0 and deviation 1 |

Statistics are of whole groups and rollouts, before a step is split. A group of equal rewards is worth nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tunesmith.config.policy import PolicyConfig
from tunesmith.objectives import policy, ppo
from tunesmith.train.writing import Floats, Group, by_answer
from tunesmith.types import TokenRow

EPSILON = 1e-8


def with_advantages(
    rows: Sequence[TokenRow],
    groups: Sequence[Group],
    kls: Sequence[list[Floats]],
    method: PolicyConfig,
    weight: float,
) -> list[TokenRow]:
    """rows: of the groups, with log-probabilities. kls: of each answer that is learned from (n,) its tokens' estimates,
    of which weight x is taken from the reward."""
    rewards = np.stack([group.learned(method) for group in groups])
    learned = [[i for i, leaf in enumerate(row.segments[1:]) if leaf.weights[0] > 0] for row in rows]
    penalties = [[weight * kl for kl in of_row] for of_row in kls]
    if method.algorithm == "ppo":
        return _estimated(rows, learned, rewards, penalties, method)
    if method.algorithm == "reinforce_pp":
        flat = [rewards[g][i] for g, of_row in enumerate(learned) for i in of_row]
        tokens = iter(of_tokens(np.array(flat), [one for of_row in penalties for one in of_row]))
        values = [np.concatenate([next(tokens) for _ in of_row]) for of_row in learned]
    else:
        for g, (of_row, of_group) in enumerate(zip(learned, kls, strict=True)):
            for i, kl in zip(of_row, of_group, strict=True):
                rewards[g][i] -= weight * kl.sum()
        worth = of_answers(rewards, method)
        values = [
            np.concatenate([np.full(len(row.segments[1 + i].ids), worth[g][i]) for i in of_row])
            for g, (row, of_row) in enumerate(zip(rows, learned, strict=True))
        ]
    return [
        replace(row, given={**row.given, policy.ADVANTAGES: value})
        for row, value in zip(rows, values, strict=True)
    ]


def worthless(row: TokenRow) -> TokenRow:
    """Of which neither the policy nor its values learn."""
    given = {**row.given, policy.ADVANTAGES: np.zeros(row.num_supervised)}
    if ppo.VALUES in given:
        given[ppo.RETURNS] = given[ppo.VALUES]
    return replace(row, given=given)


def _estimated(
    rows: Sequence[TokenRow],
    learned: Sequence[list[int]],
    rewards: Floats,
    penalties: Sequence[list[Floats]],
    method: PolicyConfig,
) -> list[TokenRow]:
    """PPO's advantages and returns: each token pays its KL penalty, the last one gets the reward, and an answer that is
    bootstrapped what the state after it is worth."""
    advantages, returns = [], []
    for g, (row, of_row) in enumerate(zip(rows, learned, strict=True)):
        values = by_answer(row, np.asarray(row.given[ppo.VALUES], np.float64))
        after = row.given.get(ppo.AFTER, np.zeros(len(row.segments) - 1))
        for i, value, penalty in zip(of_row, values, penalties[g], strict=True):
            tokens = -penalty
            tokens[-1] += rewards[g][i]
            found = generalised(tokens, value, method, float(after[i]))
            advantages.append(found[0])
            returns.append(found[1])
    whole, each = iter(whitened(advantages)), iter(returns)
    return [
        replace(
            row,
            given={
                **row.given,
                policy.ADVANTAGES: np.concatenate([next(whole) for _ in of_row]),
                ppo.RETURNS: np.concatenate([next(each) for _ in of_row]),
            },
        )
        for row, of_row in zip(rows, learned, strict=True)
    ]


def of_answers(rewards: Floats, config: PolicyConfig) -> Floats:
    """(P, G) rewards -> (P, G)."""
    group = rewards.shape[1]
    mean = rewards.mean(1, keepdims=True)
    others = (
        group / (group - 1) if config.algorithm == "rloo" else 1.0
    )  # r - mean of the others is this times r - mean
    return _scaled((rewards - mean) * others, rewards, config)


def _scaled(found: Floats, rewards: Floats, config: PolicyConfig) -> Floats:
    if config.scale == "none":
        return found
    spread = rewards.std(1, keepdims=True) if config.scale == "group" else np.full((1, 1), rewards.std())
    # Equal rewards differ from their mean by rounding alone, which no small number may blow up.
    same = spread <= 1e-7 * np.abs(rewards).max(initial=1.0)
    return np.where(same, 0.0, found / (spread + EPSILON))


def of_tokens(rewards: Floats, penalties: list[Floats]) -> list[Floats]:
    """REINFORCE++ (arXiv:2501.03262): of each answer (n,) its reward less the penalties of the tokens from each on, all
    tokens of the rollout scaled together to mean 0 and deviation 1."""
    return whitened(
        [reward - np.cumsum(each[::-1])[::-1] for reward, each in zip(rewards, penalties, strict=True)]
    )


def generalised(
    rewards: Floats, values: Floats, config: PolicyConfig, after: float = 0.0
) -> tuple[Floats, Floats]:
    """Of one answer (n,): advantages and returns (arXiv:1506.02438, 16). rewards: of each token; values: of the state
    each was drawn from; after: of the state after the last one, 0 where that ended the answer or is taken to have."""
    advantages, running = np.zeros_like(rewards), 0.0
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + config.discount * after - values[t]
        running = delta + config.discount * config.gae_lambda * running
        advantages[t], after = running, values[t]
    return advantages, advantages + values


def whitened(values: list[Floats]) -> list[Floats]:
    """All tokens of a rollout to mean 0 and deviation 1."""
    every = np.concatenate(values)
    spread = every.std()
    if spread <= 1e-7 * np.abs(every).max(initial=1.0):
        return [np.zeros_like(each) for each in values]
    return [(each - every.mean()) / (spread + EPSILON) for each in values]
