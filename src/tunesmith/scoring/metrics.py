"""The metrics by name: what each means, which way is better, and its range."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from tunesmith.errors import ConfigError, near_miss

Task = Literal["label", "labels", "json", "text", "number", "spans", "ranking", "judged", "steps", "rewarded"]
"""One class, several classes, a JSON object, free text, numbers, pieces of a text, texts in their order, what people
said of completions, or of the steps of an answer, the model's own answers with their rewards."""


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


_FROM_0 = (0.0, math.inf)
_NO_NUMBER = "An answer that is no number counts as the end of the references' range that is farther away."
_CONSTANT = "Answers that are all the same count as 0."
_SPAN = "Right: start, end and label are."
_EACH = "Each row counts alike."
_REWARDS = (
    "Takes sigmoid of the difference of two scores for the probability of a preference, as rewards mean it."
)
_WRONG = "Over all judged steps of all rows."
_LONGER = "Of pairs of unequal length; a tie counts half. Neither more nor less is better."
_CLASSES = "Of two classes, for the second; of more, the mean over them, each against the rest."

METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy", True, "Share of rows whose answer names the right class."),
    "macro_f1": Metric("Macro F1", True, "F1 of each class, averaged with equal weight for each class."),
    "macro_precision": Metric("Macro precision", True, "Precision of each class, averaged over the classes."),
    "macro_recall": Metric("Macro recall", True, "Recall of each class, averaged over the classes."),
    "micro_f1": Metric(
        "Micro F1",
        True,
        "F1 of all classes named in all rows; of one class a row: accuracy, if all answers are valid.",
    ),
    "micro_precision": Metric("Micro precision", True, "Share of the classes named that are right."),
    "micro_recall": Metric("Micro recall", True, "Share of the classes of the references that are named."),
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
    "rouge_1": Metric("ROUGE-1", True, "Words shared with the reference, F-measure."),
    "rouge_2": Metric("ROUGE-2", True, "Pairs of neighbouring words shared with the reference, F-measure."),
    "bleu": Metric(
        "BLEU", True, "Corpus BLEU of sacrebleu (13a words, exponential smoothing).", (0.0, 100.0)
    ),
    "chrf": Metric("chrF", True, "Runs of up to six characters, F2 of the corpus (sacrebleu).", (0.0, 100.0)),
    "subset_accuracy": Metric(
        "All classes right", True, "Share of rows with exactly the reference's classes."
    ),
    "jaccard": Metric(
        "Jaccard", True, "Classes in both answer and reference, as a share of those in either."
    ),
    "hamming_loss": Metric("Hamming loss", False, "Share of yes-or-no decisions on a class that are wrong."),
    "valid_labels": Metric("Valid list", True, "Share of answers that are a JSON list of class names."),
    "mae": Metric("Mean absolute error", False, f"Mean distance from the reference. {_NO_NUMBER}", _FROM_0),
    "rmse": Metric("RMSE", False, f"Root of the mean squared error. {_NO_NUMBER}", _FROM_0),
    "mse": Metric("Mean squared error", False, f"Mean squared distance. {_NO_NUMBER}", _FROM_0),
    "r2": Metric("R²", True, "1 - squared error / that of the mean reference.", (-math.inf, 1.0)),
    "pearson": Metric("Pearson correlation", True, f"Linear correlation. {_CONSTANT}", (-1.0, 1.0)),
    "spearman": Metric("Spearman correlation", True, f"Correlation of ranks. {_CONSTANT}", (-1.0, 1.0)),
    "valid_number": Metric(
        "Valid number", True, "Share of answers that are a finite number, or as many as asked."
    ),
    "span_f1": Metric("Span F1", True, "Harmonic mean of span precision and recall, over all spans."),
    "span_precision": Metric("Span precision", True, f"Share of the spans named that are right. {_SPAN}"),
    "span_recall": Metric("Span recall", True, f"Share of the references' spans that are named. {_SPAN}"),
    "span_exact": Metric("All spans right", True, "Share of rows with exactly the reference's spans."),
    "span_row_f1": Metric("Span F1 by row", True, "Span F1 of each row; 1 where neither side has a span."),
    "valid_spans": Metric("Valid spans", True, "Share of answers that are a list of [start, end, label]."),
    "mrr_at_10": Metric(
        "MRR@10",
        True,
        "1 / rank of the text that belongs to the anchor; 0 where it is not among the first ten.",
    ),
    "recall_at_1": Metric("Recall@1", True, "Share of anchors whose text is ranked first."),
    "recall_at_5": Metric("Recall@5", True, "Share of anchors whose text is among the first five."),
    "recall_at_10": Metric("Recall@10", True, "Share of anchors whose text is among the first ten."),
    "pair_accuracy": Metric(
        "Pair accuracy",
        True,
        "Share of pairs that people scored unequally and the system puts the right way round; a tie of the system "
        "counts half. Pairs are of completions of one row, each row counting alike; of rows of one completion, all "
        "pairs of rows.",
    ),
    "pair_accuracy_by_row": Metric(
        "Pair accuracy by row", True, "Of each row, the share of its pairs with other rows."
    ),
    "best_of_k": Metric(
        "Best of K", True, "Share of rows where what the system puts highest is what people put highest."
    ),
    "kendall_tau": Metric(
        "Kendall tau-b",
        True,
        f"Agreement of the order of a row's completions. {_EACH} {_CONSTANT}",
        (-1.0, 1.0),
    ),
    "ndcg": Metric(
        "NDCG", True, f"Gain of a row's order, later positions counting less, of the best possible. {_EACH}"
    ),
    "pair_nll": Metric("Log loss of pairs", False, f"-log of what people prefer, nats. {_REWARDS}", _FROM_0),
    "pair_ece": Metric(
        "Calibration error of pairs",
        False,
        f"Mean distance of accuracy from confidence over 15 bins of pairs. {_REWARDS}",
    ),
    "prefers_longer": Metric(
        "Prefers the longer", False, f"How often the system prefers the longer. {_LONGER}"
    ),
    "people_prefer_longer": Metric("People prefer the longer", False, f"The same of people. {_LONGER}"),
    "length_correlation": Metric(
        "Correlation with length",
        False,
        "Of ranks of the differences in score and in length, over pairs; of rows of one completion, of score and "
        "length. 0: no bias to either side.",
        (-1.0, 1.0),
    ),
    "pair_accuracy_shorter": Metric(
        "Pair accuracy, shorter is better", True, f"Of pairs of which people prefer the shorter. {_EACH}"
    ),
    "pair_accuracy_longer": Metric(
        "Pair accuracy, longer is better", True, f"Of pairs of which people prefer the longer. {_EACH}"
    ),
    "valid_scores": Metric(
        "Valid scores", True, "Share of answers that are a finite number for each completion, or step."
    ),
    "step_accuracy": Metric(
        "Step accuracy",
        True,
        f"Share of the judged steps of which the system says right or wrong as people. {_EACH}",
    ),
    "first_wrong": Metric(
        "First wrong step", True, "Share of rows whose first wrong step, or that there is none, is found."
    ),
    "wrong_f1": Metric("Wrong steps, F1", True, f"Harmonic mean of precision and recall. {_WRONG}"),
    "wrong_precision": Metric(
        "Wrong steps, precision", True, f"Share of the steps called wrong that are. {_WRONG}"
    ),
    "wrong_recall": Metric(
        "Wrong steps, recall", True, f"Share of the wrong steps that are called wrong. {_WRONG}"
    ),
    "step_nll": Metric("Log loss of steps", False, f"-log of what people said, nats. {_EACH}", _FROM_0),
    "step_ece": Metric(
        "Calibration error of steps",
        False,
        "Mean distance of accuracy from confidence over 15 bins of steps.",
    ),
    "reward": Metric(
        "Reward", True, "Mean reward of the answers that the model writes.", (-math.inf, math.inf)
    ),
    "answer_tokens": Metric("Tokens an answer", False, "Mean length of the answers, in tokens.", _FROM_0),
    "auroc": Metric(
        "AUROC", True, f"How often a row of a class ranks above one that is not of it. {_CLASSES}"
    ),
    "auprc": Metric("AUPRC", True, f"Average precision over all cut-offs. {_CLASSES}"),
    "ece": Metric(
        "Calibration error",
        False,
        "Mean distance of accuracy from confidence, over 15 bins (ECE). Few rows make it seem larger.",
    ),
    "brier": Metric("Brier score", False, "Squared distance of the probabilities, over classes.", (0.0, 2.0)),
    "nll": Metric("Negative log-likelihood", False, "-log of the right class's probability, nats.", _FROM_0),
    "refusal_rate": Metric("Refusals", False, "Share of answers that refuse where the reference does not."),
    "empty_rate": Metric("Empty answers", False, "Share of empty answers where the reference is not empty."),
    "overlong_rate": Metric("Cut answers", False, "Share of answers cut off at the limit of new tokens."),
    "perplexity": Metric("Perplexity", False, "exp of the mean loss of a reference token.", (1.0, math.inf)),
}
"""Parts of an answer add `accuracy.<field>`, `macro_f1.<field>`, `mae.<target>`, `r2.<target>`; parts of a reward add
`reward.<part>`."""

PARTS = {
    "accuracy": "of one field: the field is right",
    "macro_f1": "of one field: values of the field as classes",
    "mae": "of one target",
    "r2": "of one target",
    "reward": "by one part of the reward, before its curve and weight",
}
"""Metrics that are also measured of a part of the answer, and what of it."""


def metric(name: str) -> Metric:
    """The metric of that name, also of a part, as in `accuracy.<field>`.

    Raises ConfigError for an unknown name.
    """
    if name in METRICS:
        return METRICS[name]
    kind, dot, field = name.partition(".")
    if dot and field and kind in PARTS:
        of = METRICS[kind]
        description = f"{of.title} {PARTS[kind]}."
        return Metric(f"{of.title}: {field}", of.higher_is_better, description, of.range)
    raise ConfigError(f"no metric is called '{name}'", near_miss(name, METRICS))


def show(name: str, value: float) -> str:
    """A value as people read it: '91.3 %' for shares, three significant digits otherwise."""
    if math.isnan(value):
        return "not measured"
    return f"{100 * value:.1f} %" if metric(name).is_share else digits(value)


def digits(value: float, sign: str = "") -> str:
    """Three significant digits; whole numbers from a thousand to a million. sign: '+' shows it also where
    positive."""
    text = f"{value:{sign}.0f}" if 1000 <= abs(value) < 1e6 else f"{value:{sign}.3g}"
    return text.replace("-", "−").replace("inf", "∞")
