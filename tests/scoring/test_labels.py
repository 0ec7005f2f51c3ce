"""Labels: what an answer names, and averages against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from tunesmith.errors import DataError
from tunesmith.scoring import labels

NAMES = ["billing", "C", "C++", "outage"]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("billing", "billing"),
        (" Billing.\n", "billing"),
        ("c++", "C++"),
        ("c", "C"),
        ("billing, I think", None),
        ("", None),
        ("bill", None),
    ],
)
def test_an_answer_names_a_label_or_none(answer: str, label: str | None) -> None:
    assert labels.match_label(answer, NAMES) == label


def test_labels_that_differ_in_case_only_need_the_exact_text() -> None:
    assert labels.match_label("us", ["us", "US"]) == "us"
    assert labels.match_label("Us", ["us", "US"]) is None


def test_a_reference_outside_the_labels_is_an_error_with_the_near_miss() -> None:
    with pytest.raises(DataError, match="did you mean 'billing'"):
        labels.label_codes(["biling"], ["billing"], NAMES)


def test_confusion_has_a_column_for_invalid_answers() -> None:
    codes = labels.label_codes(["a", "a", "b"], ["a", "what?", "a"], ["a", "b"])
    assert labels.confusion(codes).tolist() == [[1, 0, 1], [1, 0, 0]]


def test_averages_by_hand() -> None:
    # a: 2 of 3 found, 2 named; b: 1 of 1 found, 2 named; c never occurs but is named once; one invalid
    codes = labels.label_codes(
        ["a", "a", "a", "b", "b", "b"], ["a", "a", "?", "b", "c", "b"], ["a", "b", "c"]
    )
    found = labels.averages(codes)
    f1_a, f1_b = 2 * 2 / (3 + 2), 2 * 2 / (3 + 2)
    assert found["macro_f1"] == pytest.approx((f1_a + f1_b) / 2)
    assert found["micro_precision"] == pytest.approx(4 / 5)
    assert found["micro_recall"] == pytest.approx(4 / 6)


@pytest.mark.parametrize("seed", range(20))
def test_averages_and_classes_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, classes = int(rng.integers(1, 12)), int(rng.integers(1, 6))  # some classes occur nowhere
    reference, predicted = rng.integers(0, classes, rows), rng.integers(0, classes + 1, rows)
    codes = labels.Codes(reference, predicted, tuple("abcdef"[:classes]), np.arange(rows))
    found, every = labels.averages(codes), list(range(classes))
    for average in ("macro", "micro", "weighted", None):
        asked = sorted(set(reference.tolist())) if average in ("macro", "weighted") else every
        values = precision_recall_fscore_support(
            reference, predicted, labels=asked, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), values, strict=False):
            of = [c[name] for c in labels.per_class(codes).values()]
            assert (found[f"{average}_{name}"] if average else of) == pytest.approx(value, abs=1e-12)


def test_macro_f1_of_reweighted_rows_is_scikit_learns_on_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    reference, predicted = rng.integers(0, 3, 40), rng.integers(0, 5, 40)  # 4 = invalid, class 3 is absent
    weights = rng.integers(0, 3, (6, 40)).astype(float)
    weights[0, reference == 2] = 0  # a class that a resample misses
    found = labels.weighted_macro_f1(reference, predicted, weights, 4)
    for row, value in zip(weights, found, strict=True):
        repeated = np.repeat(np.arange(40), row.astype(int))
        r, p = reference[repeated], predicted[repeated]
        wanted = f1_score(r, p, labels=sorted(set(r.tolist())), average="macro", zero_division=0)
        assert value == pytest.approx(wanted)


def test_per_class_counts_answers_and_support() -> None:
    codes = labels.label_codes(["a", "a", "b"], ["a", "b", "b"], ["a", "b"])
    table = labels.per_class(codes)
    assert table["a"] == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
        "predicted": 1,
    }
