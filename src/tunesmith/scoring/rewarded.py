"""The model's own answers to each row, and the rewards that they got.

What a system did with a row is the JSON of {"reward", "tokens", "answer", "parts"}: the mean reward of its answers and
their mean length in tokens, the text of the first, and where the reward is a sum of several parts the mean number of
each. References play no part: the rewards have looked at them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from tunesmith.errors import DataError
from tunesmith.scoring.scores import Scores, means


def rewarded(reward: float, tokens: float, answer: str, parts: Mapping[str, float] | None = None) -> str:
    found = {"reward": reward, "tokens": tokens, "answer": answer, "parts": parts or {}}
    return json.dumps(found, ensure_ascii=False)


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
    for name in found[0]["parts"] if found else ():
        rows[f"reward.{name}"] = np.array([one["parts"][name] for one in found], np.float64)
    if not np.isfinite(rows["reward"]).all():
        raise DataError("a reward that is no finite number", "finite rewards")
    return Scores("rewarded", means(rows), rows, answers=tuple(one["answer"] for one in found))
