"""Answers that are JSON lists of class names: which classes of the known ones a text has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from tunesmith.errors import DataError, near_miss
from tunesmith.scoring import probabilities as p
from tunesmith.scoring.counts import AVERAGES, MEASURES, count
from tunesmith.scoring.json_answers import canonical, parse_json
from tunesmith.scoring.labels import match_label
from tunesmith.scoring.pooled import Floats, wholes
from tunesmith.scoring.scores import Scores, means


def parse_names(text: str) -> list[str] | None:
    """The names in a JSON list of texts, stripped, each once; None when the answer is no such list."""
    value = parse_json(text)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return None
    return list(dict.fromkeys(name.strip() for name in value))


def names(references: Sequence[str]) -> Iterable[str]:
    """Every class that a reference names."""
    return (name for reference in references for name in parse_names(reference) or ())


def score_names(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Scores:
    """Scores of sets of classes. Which class a name means is `match_label`'s; a name of no known class is
    wrong.

    An answer that is no list of names has no class right and none named; in `jaccard`, `subset_accuracy` and
    `hamming_loss` it is wholly wrong, also where the reference is []. Raises DataError for references outside
    `labels`.
    """
    if not labels:
        raise DataError("no labels", "at least one known class, for task 'labels'", "give them in `labels`")
    memo: dict[str, str | None] = {}

    def known(name: str) -> str | None:
        if name not in memo:
            memo[name] = match_label(name, labels)
        return memo[name]

    wanted = [_reference(row, text, labels) for row, text in enumerate(references)]
    parsed = [parse_names(text) for text in predictions]
    got = [{known(name) or name for name in answer or ()} for answer in parsed]
    valid = np.array([answer is not None for answer in parsed])
    counts = count(wanted, got, labels, lambda name: name)
    shared, union = (
        np.array([len(op(w, g)) for w, g in zip(wanted, got, strict=True)])
        for op in (set.intersection, set.union)
    )
    wrong = np.minimum((union - shared) / len(labels), 1.0)
    rows = {
        "subset_accuracy": (valid & (shared == union)).astype(np.float64),
        "jaccard": np.where(union > 0, shared / np.maximum(union, 1), 1.0) * valid,
        "hamming_loss": np.where(valid, wrong, 1.0),
        "valid_labels": valid.astype(np.float64),
    }
    pooled = {f"{a}_{m}": counts.pooled(a, m) for a in AVERAGES for m in MEASURES}
    return Scores(
        task="labels",
        metrics=means(rows) | wholes(pooled),
        per_row=rows,
        pooled=pooled,
        labels=tuple(labels),
        per_class=counts.per_class(),
        answers=tuple(canonical(sorted(g)) if ok else None for g, ok in zip(got, valid, strict=True)),
    )


def names_probabilities(scores: Scores, probabilities: Floats) -> Scores:
    """`scores` with `auroc` and `auprc` from the probability (N, L) of each class by itself, columns in the
    order of its labels; means over the classes that some but not all rows have."""
    p.check(probabilities, scores.num_rows, len(scores.labels), sums_to_one=False)
    ranked = p.ranking(scores.pooled["micro_f1"].reference, probabilities, scores.labels)
    return replace(
        scores,
        metrics=scores.metrics | p.ranking_metrics(ranked),
        pooled={**scores.pooled, **ranked},
    )


def _reference(row: int, text: str, labels: Sequence[str]) -> set[str]:
    found = parse_names(text)
    if found is None:
        raise DataError(
            f"reference of row {row} is '{text}'", 'a JSON list of class names, such as ["a", "b"]'
        )
    out = set()
    for name in found:
        label = match_label(name, labels)
        if label is None:
            raise DataError(
                f"reference of row {row} names '{name}', which is none of the {len(labels)} labels",
                near_miss(name, labels) if labels else "at least one label",
                "give every class of the test rows in `labels`",
            )
        out.add(label)
    return out
