"""Answers that are JSON lists of [start, end, label]: pieces of a text, by character, end exclusive."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np

from tunesmith.errors import DataError, near_miss
from tunesmith.scoring.counts import count
from tunesmith.scoring.json_answers import parse_json
from tunesmith.scoring.labels import match_label
from tunesmith.scoring.pooled import Columns, wholes
from tunesmith.scoring.scores import Scores, means

Span = tuple[int, int, str]


def parse_spans(text: str) -> list[Span] | None:
    """The spans of an answer in order, each once; None when it is no JSON list of [start, end, label] with
    0 <= start < end."""
    value = parse_json(text)
    if not isinstance(value, list) or not all(_is_span(span) for span in value):
        return None
    return sorted({(start, end, label.strip()) for start, end, label in value})


def span_labels(references: Sequence[str]) -> Iterable[str]:
    """The label of every span in the references."""
    return (label for reference in references for _, _, label in parse_spans(reference) or ())


def score_spans(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Scores:
    """Scores of sets of spans. A span is right when start, end and label are (CoNLL-2003, ACL W03-0419,
    section 3).

    An answer that is no list of spans has none; its row is not exactly right, also where the reference is [].
    Raises DataError for references that are no spans of known labels.
    """
    wanted = [_reference(row, text, labels) for row, text in enumerate(references)]
    parsed = [parse_spans(text) for text in predictions]
    memo = {label: match_label(label, labels) or label for answer in parsed for _, _, label in answer or ()}
    got = [{(start, end, memo[label]) for start, end, label in answer or ()} for answer in parsed]
    valid = np.array([answer is not None for answer in parsed])
    counts = count(wanted, got, labels, lambda span: span[2])
    right = np.array([len(w & g) for w, g in zip(wanted, got, strict=True)])
    both = np.array([len(w) + len(g) for w, g in zip(wanted, got, strict=True)])
    rows = {
        "span_exact": (valid & (2 * right == both)).astype(np.float64),
        "span_row_f1": np.where(both > 0, 2 * right / np.maximum(both, 1), 1.0) * valid,
        "valid_spans": valid.astype(np.float64),
    }
    pooled: dict[str, Columns] = {
        "span_f1": counts.pooled("micro", "f1"),
        "span_precision": counts.pooled("micro", "precision"),
        "span_recall": counts.pooled("micro", "recall"),
        "macro_f1": counts.pooled("macro", "f1"),
    }
    return Scores(
        task="spans",
        metrics=wholes(pooled) | means(rows),
        per_row=rows,
        pooled=pooled,
        labels=tuple(labels),
        per_class=counts.per_class(),
        answers=tuple(
            json.dumps(sorted(g), ensure_ascii=False) if ok else None
            for g, ok in zip(got, valid, strict=True)
        ),
    )


def _is_span(span: object) -> bool:
    if not isinstance(span, list) or len(span) != 3:
        return False
    start, end, label = span
    return type(start) is int and type(end) is int and isinstance(label, str) and 0 <= start < end


def _reference(row: int, text: str, labels: Sequence[str]) -> set[Span]:
    found = parse_spans(text)
    if found is None:
        raise DataError(
            f"reference of row {row} is '{text}'",
            'a JSON list of [start, end, label], such as [[0, 5, "name"]], with start before end',
        )
    out = set()
    for start, end, name in found:
        label = match_label(name, labels)
        if label is None:
            raise DataError(
                f"reference of row {row} has a span of '{name}', which is none of the {len(labels)} labels",
                near_miss(name, labels) if labels else "at least one label",
                "give every label of the test rows in `labels`",
            )
        out.add((start, end, label))
    return out
