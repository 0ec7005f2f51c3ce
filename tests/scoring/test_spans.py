"""Spans: exact match of boundaries and label, as in CoNLL-2003."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tunesmith.errors import DataError
from tunesmith.scoring import known_classes, score
from tunesmith.scoring.spans import parse_spans

LABELS = ["LOC", "ORG", "PER"]


def conll(references: list[list[tuple]], predictions: list[list[tuple]]) -> tuple[float, float, float]:
    """Precision, recall and F1, counted span by span as conlleval prints them."""
    correct = sum(span in wanted for wanted, got in zip(references, predictions, strict=True) for span in got)
    precision = correct / sum(map(len, predictions))
    recall = correct / sum(map(len, references))
    return precision, recall, 2 * precision * recall / (precision + recall)


def random_spans(seed: int = 0) -> tuple[list[list[tuple]], list[list[tuple]]]:
    rng = np.random.default_rng(seed)
    references, predictions = [], []
    for _ in range(50):
        wanted = [(10 * i, 10 * i + 5, LABELS[rng.integers(3)]) for i in range(rng.integers(0, 4))]
        got = [(s, e + int(rng.random() < 0.2), x if rng.random() < 0.8 else "PER") for s, e, x in wanted]
        got = [s for s in got if rng.random() < 0.9] + [(90, 95, "ORG")] * int(rng.random() < 0.2)
        references.append(wanted)
        predictions.append(got)
    return references, predictions


def test_precision_recall_and_f1_are_conlls() -> None:
    references, predictions = random_spans()
    found = score("spans", [*map(json.dumps, references)], [*map(json.dumps, predictions)], LABELS)
    names = ("span_precision", "span_recall", "span_f1")
    assert [found.metrics[n] for n in names] == pytest.approx(conll(references, predictions))
    exact = np.mean([set(w) == set(g) for w, g in zip(references, predictions, strict=True)])
    assert found.metrics["span_exact"] == pytest.approx(exact)


def test_each_label_has_its_own_f1() -> None:
    references, predictions = random_spans(1)
    found = score("spans", [*map(json.dumps, references)], [*map(json.dumps, predictions)], LABELS)
    each = []
    for label in LABELS:
        of_label = [[[s for s in row if s[2] == label] for row in rows] for rows in (references, predictions)]
        wanted = conll(*of_label)
        table = found.per_class[label]
        assert [table[m] for m in ("precision", "recall", "f1")] == pytest.approx(wanted)
        assert table["support"] == sum(map(len, of_label[0]))
        each.append(wanted[2])
    assert found.metrics["macro_f1"] == pytest.approx(np.mean(each))


def test_a_near_miss_is_a_miss() -> None:
    reference = ['[[0, 5, "PER"]]']
    for answer in ('[[0, 4, "PER"]]', '[[1, 5, "PER"]]', '[[0, 5, "ORG"]]', "[]", "PER"):
        assert score("spans", reference, [answer], LABELS).metrics["span_f1"] == 0
    assert score("spans", reference, ['[[0, 5, "per"], [0, 5, "PER"]]'], LABELS).metrics["span_f1"] == 1


def test_a_span_of_no_known_label_is_wrong() -> None:
    found = score("spans", ['[[0, 5, "PER"]]'], ['[[0, 5, "PER"], [6, 8, "DOG"]]'], LABELS)
    assert found.metrics["span_precision"] == 0.5
    assert found.metrics["span_exact"] == 0


def test_rows_without_spans() -> None:
    found = score("spans", ["[]", "[]", "[]"], ["[]", '[[0, 1, "PER"]]', "none"], LABELS)
    assert found.per_row["span_exact"].tolist() == [1, 0, 0]
    assert found.per_row["span_row_f1"].tolist() == [1, 0, 0]
    assert found.metrics["valid_spans"] == pytest.approx(2 / 3)
    assert found.answers[2] is None


@pytest.mark.parametrize(
    ("answer", "spans"),
    [
        ('[[3, 5, "b"], [0, 2, " a "], [0, 2, "a"]]', [(0, 2, "a"), (3, 5, "b")]),
        ("[]", []),
        ('```\n[[0, 2, "a"]]\n```', [(0, 2, "a")]),
        ('[[2, 2, "a"]]', None),
        ('[[-1, 2, "a"]]', None),
        ('[[0, true, "a"]]', None),
        ('[[0, 2.0, "a"]]', None),
        ("[[0, 2, 1]]", None),
        ("[[0, 2]]", None),
        ('{"start": 0}', None),
        ("", None),
    ],
)
def test_what_is_a_list_of_spans(answer: str, spans: list[tuple] | None) -> None:
    assert parse_spans(answer) == spans


def test_known_labels_and_errors() -> None:
    assert known_classes("spans", ['[[0, 1, "PER"]]', "[]"], ["LOC"]) == ("LOC", "PER")
    with pytest.raises(DataError, match="reference of row 0 is 'x'"):
        score("spans", ["x"], ["[]"], LABELS)
    with pytest.raises(DataError, match=r"row 1 has a span of 'PERS'(.|\n)*did you mean 'PER'"):
        score("spans", ["[]", '[[0, 1, "PERS"]]'], ["[]", "[]"], LABELS)
