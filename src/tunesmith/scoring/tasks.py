"""The tasks: how answers of each kind are scored. A new task is a new entry of TASKS (and of `Task`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tunesmith.scoring import judged, steps
from tunesmith.scoring.corpus import score_text
from tunesmith.scoring.json_answers import score_json
from tunesmith.scoring.metrics import Task
from tunesmith.scoring.multi_label import names, names_probabilities, score_names
from tunesmith.scoring.numbers import score_numbers
from tunesmith.scoring.pooled import Floats
from tunesmith.scoring.ranking import score_ranking
from tunesmith.scoring.rewarded import score_rewarded
from tunesmith.scoring.scores import Scores
from tunesmith.scoring.single_label import label_probabilities, score_label
from tunesmith.scoring.spans import score_spans, span_labels
from tunesmith.types import Example


@dataclass(frozen=True, slots=True)
class Kind:
    """How one task is scored.

    score: (references, predictions, labels) -> Scores. compared: the metrics on which systems are compared.
    The first is the primary one, on which the claim 'it got better' stands: fixed before anything is
    measured. turned: the row metric by which a row became right or wrong (or better or worse, where it is
    graded). graded: the row metric by which good and bad examples are told. Of either, `<name>_by_row` stands in where
    a metric is none of rows. classes: the class names in
    references; None where answers have no classes. probabilities: adds to scores what probabilities of the
    classes say. reference: what a row is held to.
    """

    score: Callable[[Sequence[str], Sequence[str], Sequence[str]], Scores]
    compared: tuple[str, ...]
    turned: str
    graded: str
    classes: Callable[[Sequence[str]], Iterable[str]] | None = None
    probabilities: Callable[[Scores, Floats], Scores] | None = None
    reference: Callable[[Example], str] = lambda example: example.answer


TASKS: dict[Task, Kind] = {
    "label": Kind(
        score_label,
        compared=("accuracy", "macro_f1"),
        turned="accuracy",
        graded="accuracy",
        classes=lambda references: references,
        probabilities=label_probabilities,
    ),
    "labels": Kind(
        score_names,
        compared=("micro_f1", "macro_f1", "jaccard", "subset_accuracy"),
        turned="subset_accuracy",
        graded="jaccard",
        classes=names,
        probabilities=names_probabilities,
    ),
    "json": Kind(
        score_json, compared=("json_exact", "field_accuracy"), turned="json_exact", graded="json_exact"
    ),
    "text": Kind(
        score_text,
        compared=("rouge_l", "token_f1", "exact_match", "bleu", "chrf"),
        turned="exact_match",
        graded="rouge_l",
    ),
    "number": Kind(score_numbers, compared=("mae", "rmse"), turned="mae", graded="mae"),
    "spans": Kind(
        score_spans,
        compared=("span_f1", "macro_f1", "span_exact"),
        turned="span_exact",
        graded="span_row_f1",
        classes=span_labels,
    ),
    "ranking": Kind(
        score_ranking,
        compared=("mrr_at_10", "recall_at_1", "recall_at_10"),
        turned="recall_at_1",
        graded="mrr_at_10",
    ),
    "judged": Kind(
        judged.score_judged,
        compared=("pair_accuracy", "spearman", "best_of_k", "kendall_tau", "ndcg"),
        turned="pair_accuracy",
        graded="pair_accuracy",
        reference=judged.reference_of,
    ),
    "steps": Kind(
        steps.score_steps,
        compared=("step_accuracy", "first_wrong", "wrong_f1"),
        reference=steps.reference_of,
        turned="step_accuracy",
        graded="step_accuracy",
    ),
    "rewarded": Kind(score_rewarded, compared=("reward", "answer_tokens"), turned="reward", graded="reward"),
}

PRIMARY: dict[Task, str] = {task: kind.compared[0] for task, kind in TASKS.items()}
"""The metric on which the claim 'it got better' stands."""
