"""text -> score: metrics of answers against references. No torch; models and generators stay outside."""

from tunesmith.scoring.labels import Codes, match_label
from tunesmith.scoring.metrics import METRICS, Metric, Task, digits, metric, show
from tunesmith.scoring.pooled import Pooled, table, whole
from tunesmith.scoring.probabilities import align
from tunesmith.scoring.score import detect_task, flips, goodness, known_classes, score
from tunesmith.scoring.scores import Scores
from tunesmith.scoring.tasks import PRIMARY, TASKS
from tunesmith.scoring.text import normalise, perplexity

__all__ = [
    "METRICS",
    "PRIMARY",
    "TASKS",
    "Codes",
    "Metric",
    "Pooled",
    "Scores",
    "Task",
    "align",
    "detect_task",
    "digits",
    "flips",
    "goodness",
    "known_classes",
    "match_label",
    "metric",
    "normalise",
    "perplexity",
    "score",
    "show",
    "table",
    "whole",
]
