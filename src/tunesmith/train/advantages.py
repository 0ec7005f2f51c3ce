"""What a sampled answer is worth: its reward against others of its prompt or of its rollout.

| algorithm | advantage of an answer with reward r |
|---|---|
| grpo, dapo, gspo | (r - mean of the group) / standard deviation of the group |
| dr_grpo | r - mean of the group |
| rloo | r - mean of the others of the group |
| reinforce_pp | r, less the KL of each token from there on; all tokens of the rollout to mean 0 and deviation 1 |

Statistics are of whole groups and rollouts, before a step is split. A group of equal rewards is worth nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.policy import PolicyConfig

Floats = NDArray[np.float64]
EPSILON = 1e-8


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
    found = [reward - np.cumsum(each[::-1])[::-1] for reward, each in zip(rewards, penalties, strict=True)]
    every = np.concatenate(found)
    spread = every.std()
    if spread <= 1e-7 * np.abs(every).max(initial=1.0):
        return [np.zeros_like(each) for each in found]
    return [(each - every.mean()) / (spread + EPSILON) for each in found]
