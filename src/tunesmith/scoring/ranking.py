"""Ranking: where the text that belongs to an anchor stands among those that a system puts first."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from tunesmith.scoring.json_answers import parse_json
from tunesmith.scoring.scores import Scores, means

DEPTH = 10
"""Ranks that count; a text below them is not found."""


def score_ranking(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Scores:
    """references: the text that belongs to each anchor. predictions: JSON lists of texts, the best first; anything
    else is a list of one text. `labels` play no part."""
    lists = [_texts(prediction) for prediction in predictions]
    ranks = np.array(
        [
            found.index(text) + 1 if text in found else np.inf
            for text, found in zip(references, lists, strict=True)
        ]
    )
    rows = {"mrr_at_10": 1 / ranks} | {
        f"recall_at_{k}": (ranks <= k).astype(np.float64) for k in (1, 5, DEPTH)
    }
    answers = tuple(json.dumps(found, ensure_ascii=False) if found else None for found in lists)
    return Scores("ranking", means(rows), rows, answers=answers)


def _texts(prediction: str) -> list[str]:
    value = parse_json(prediction)
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value[:DEPTH]
    return [prediction] if prediction else []
