"""The model's own answers to each row, and the rewards that they got.

What a system did with a row is the JSON of {"reward", "tokens", "answer"}: the mean reward of its answers and their
mean length in tokens, and the text of the first. References play no part: the rewards have looked at them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from tunesmith.errors import DataError
from tunesmith.scoring.scores import Scores, means


def rewarded(reward: float, tokens: float, answer: str) -> str:
    return json.dumps({"reward": reward, "tokens": tokens, "answer": answer}, ensure_ascii=False)


def answer_in(said: str) -> str:
    """The text and its reward, for people."""
    found = json.loads(said)
    return f"{found['answer']} (reward {found['reward']:.3g})"


def score_rewarded(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Scores:
    """predictions: as `rewarded` writes them. Raises DataError for a reward that is no finite number."""
    found = [json.loads(said) for said in predictions]
    rows = {
        "reward": np.array([one["reward"] for one in found], np.float64),
        "answer_tokens": np.array([one["tokens"] for one in found], np.float64),
    }
    if not np.isfinite(rows["reward"]).all():
        raise DataError("a reward that is no finite number", "finite rewards")
    return Scores("rewarded", means(rows), rows, answers=tuple(one["answer"] for one in found))
