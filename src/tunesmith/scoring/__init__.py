"""text -> score: metrics of answers against references. No torch; models and generators stay outside."""

from tunesmith.scoring.labels import Codes, match_label
from tunesmith.scoring.metrics import METRICS, PRIMARY, Metric, Task, metric, show
from tunesmith.scoring.score import Scores, detect_task, flips, score
from tunesmith.scoring.text import normalise, perplexity

__all__ = [
    "METRICS",
    "PRIMARY",
    "Codes",
    "Metric",
    "Scores",
    "Task",
    "detect_task",
    "flips",
    "match_label",
    "metric",
    "normalise",
    "perplexity",
    "score",
    "show",
]
