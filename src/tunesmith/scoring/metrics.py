"""The metrics by name: what each means, which way is better, and its range."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from tunesmith.errors import ConfigError, near_miss

Task = Literal["label", "json", "text"]


class Metric(NamedTuple):
    """title: for tables. range: the least and the greatest value it can take."""

    title: str
    higher_is_better: bool
    description: str
    range: tuple[float, float] = (0.0, 1.0)

    @property
    def is_share(self) -> bool:
        """Lies between 0 and 1, so it is shown in per cent and its differences in points."""
        return self.range == (0.0, 1.0)


METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy", True, "Share of rows whose answer names the right class."),
    "macro_f1": Metric("Macro F1", True, "F1 of each class, averaged with equal weight for each class."),
    "macro_precision": Metric("Macro precision", True, "Precision of each class, averaged over the classes."),
    "macro_recall": Metric("Macro recall", True, "Recall of each class, averaged over the classes."),
    "micro_f1": Metric("Micro F1", True, "F1 over all rows; equals accuracy when all answers are valid."),
    "micro_precision": Metric("Micro precision", True, "Share of valid answers that are right."),
    "micro_recall": Metric("Micro recall", True, "Share of rows whose answer is right."),
    "weighted_f1": Metric("Weighted F1", True, "F1 of each class, weighted by its number of rows."),
    "weighted_precision": Metric("Weighted precision", True, "Precision weighted by the rows of each class."),
    "weighted_recall": Metric("Weighted recall", True, "Recall weighted by the rows of each class."),
    "valid_label": Metric("Valid label", True, "Share of answers that name one of the known classes."),
    "json_exact": Metric("All fields right", True, "Share of answers with exactly the reference's content."),
    "field_accuracy": Metric("Field accuracy", True, "Share of a reference's fields that are right."),
    "json_valid": Metric("Valid JSON", True, "Share of answers that are a JSON object."),
    "json_schema": Metric("Right keys", True, "Share of answers with exactly the reference's keys."),
    "exact_match": Metric("Exact match", True, "Share of answers equal to the reference, normalised."),
    "token_f1": Metric("Token F1", True, "Overlap of words with the reference (SQuAD F1)."),
    "rouge_l": Metric("ROUGE-L", True, "Longest common subsequence of words, F-measure."),
    "refusal_rate": Metric("Refusals", False, "Share of answers that refuse where the reference does not."),
    "empty_rate": Metric("Empty answers", False, "Share of empty answers where the reference is not empty."),
    "overlong_rate": Metric("Cut answers", False, "Share of answers cut off at the limit of new tokens."),
    "perplexity": Metric("Perplexity", False, "exp of the mean loss of a reference token.", (1.0, math.inf)),
}
"""Fields of JSON answers add `accuracy.<field>` and `macro_f1.<field>`."""

PRIMARY: dict[Task, str] = {"label": "accuracy", "json": "json_exact", "text": "rouge_l"}
"""The metric on which the claim 'it got better' stands, fixed for each task before anything is measured."""


def metric(name: str) -> Metric:
    """The metric of that name, also for `accuracy.<field>` and `macro_f1.<field>`.

    Raises ConfigError for an unknown name.
    """
    if name in METRICS:
        return METRICS[name]
    kind, dot, field = name.partition(".")
    if dot and field and kind in ("accuracy", "macro_f1"):
        of = METRICS[kind]
        what = "the field is right" if kind == "accuracy" else "values of the field as classes"
        return Metric(f"{of.title}: {field}", True, f"{of.title} of one field: {what}.", of.range)
    raise ConfigError(f"no metric is called '{name}'", near_miss(name, METRICS))


def show(name: str, value: float) -> str:
    """A value as people read it: '91.3 %' for shares, three significant digits otherwise."""
    if math.isnan(value):
        return "not measured"
    return f"{100 * value:.1f} %" if metric(name).is_share else f"{value:.3g}"
