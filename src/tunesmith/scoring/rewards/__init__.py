"""text -> number: rewards of sampled answers, for training on them and for evaluation.

A file for each kind; `combine` adds them up. Nothing here knows of models: who runs a reward model is handed in.
"""

from tunesmith.scoring.rewards.combine import Rewards, Scored, build_rewards
from tunesmith.scoring.rewards.model import Scorer

__all__ = ["Rewards", "Scored", "Scorer", "build_rewards"]
