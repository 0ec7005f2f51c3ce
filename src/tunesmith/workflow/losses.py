"""What a report calls the loss that training steps took, with its unit where it has one."""

from __future__ import annotations

from tunesmith.config.judged import PreferenceConfig, RankingConfig, RewardConfig, UnpairedConfig
from tunesmith.config.methods import ClassifyConfig, EmbedConfig, Method, RegressConfig, TagConfig
from tunesmith.config.policy import PolicyConfig

OWN = {
    "ppo": "Loss of policy and value head",
    "online_dpo": "Loss (DPO, the best answer against the worst)",
    "raft": "Loss of the best answers (nats per token)",
    "rwr": "Loss of answers weighted by reward (nats per token)",
}
"""Of algorithms whose loss is more or less than the policy gradient's."""
REGRESSED = {"mse": "Squared error", "mae": "Absolute error", "huber": "Huber loss"}


def loss_title(method: Method) -> str:
    match method:
        case PolicyConfig():
            return OWN.get(method.algorithm, "Policy loss")
        case PreferenceConfig() | UnpairedConfig() | RankingConfig() | RewardConfig():
            return f"Loss ({(method.loss or '').replace('_', ' ')})"
        case ClassifyConfig():
            return "Focal loss" if method.focal_gamma else "Loss (nats per row)"
        case TagConfig():
            return "Loss (nats per tagged token)"
        case RegressConfig():
            return f"{REGRESSED[method.loss]} of scaled targets"
        case EmbedConfig():
            return f"Loss ({method.criterion})"
        case _:
            return "Loss (nats per token)"
