"""Several classes a row: scikit-learn on indicator matrices is the reference."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, hamming_loss, jaccard_score, precision_recall_fscore_support

from tunesmith.errors import DataError
from tunesmith.scoring import known_classes, score
from tunesmith.scoring.multi_label import parse_names

CLASSES = ["a", "b", "c", "d"]  # d is never in a reference


def random_rows(seed: int = 0, num: int = 60) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """(wanted (N, 4), got (N, 4), the same as answers)."""
    rng = np.random.default_rng(seed)
    wanted = rng.random((num, 4)) < [0.5, 0.3, 0.2, 0.0]
    got = np.where(rng.random((num, 4)) < 0.8, wanted, rng.random((num, 4)) < 0.4)

    def texts(rows: np.ndarray) -> list[str]:
        return [json.dumps([CLASSES[i] for i in rng.permutation(np.flatnonzero(row))]) for row in rows]

    return wanted, got, texts(wanted), texts(got)


def test_metrics_are_scikit_learns() -> None:
    wanted, got, references, predictions = random_rows()
    found = score("labels", references, predictions, CLASSES).metrics
    assert found["subset_accuracy"] == pytest.approx(accuracy_score(wanted, got))
    assert found["hamming_loss"] == pytest.approx(hamming_loss(wanted, got))
    # scikit-learn has no value for a row without classes on both sides; here it is right
    assert found["jaccard"] == pytest.approx(jaccard_score(wanted, got, average="samples", zero_division=1))
    for average in ("micro", "macro", "weighted"):
        which = [0, 1, 2, 3] if average == "micro" else [0, 1, 2]  # macro: classes that occur
        values = precision_recall_fscore_support(wanted, got, labels=which, average=average, zero_division=0)
        names = ("precision", "recall", "f1")
        assert [found[f"{average}_{m}"] for m in names] == pytest.approx(list(values[:3]))


def test_per_class_is_scikit_learns() -> None:
    wanted, got, references, predictions = random_rows(1)
    table = score("labels", references, predictions, CLASSES).per_class
    values = precision_recall_fscore_support(wanted, got, average=None, zero_division=0)
    for i, name in enumerate(CLASSES):
        one = table[name]
        assert [one[m] for m in ("precision", "recall", "f1", "support")] == pytest.approx(
            [v[i] for v in values]
        )
        assert one["predicted"] == got[:, i].sum()


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ('["a", " b "]', ["a", "b"]),
        ('["a", "a"]', ["a"]),
        ("[]", []),
        ('```json\n["a"]\n```', ["a"]),
        ("a, b", None),
        ('"a"', None),
        ('["a", 1]', None),
        ('{"a": 1}', None),
        ("", None),
        ("null", None),
    ],
)
def test_what_is_a_list_of_names(answer: str, names: list[str] | None) -> None:
    assert parse_names(answer) == names


def test_an_answer_that_is_no_list_is_wholly_wrong_even_where_nothing_was_wanted() -> None:
    found = score("labels", ["[]", '["a"]'], ["nothing", ""], ["a", "b"])
    assert found.metrics["valid_labels"] == 0
    assert found.metrics["subset_accuracy"] == found.metrics["jaccard"] == found.metrics["micro_f1"] == 0
    assert found.metrics["hamming_loss"] == 1
    assert found.answers == (None, None)
    empty = score("labels", ["[]", '["a"]'], ["[]", "[]"], ["a", "b"])
    assert empty.per_row["subset_accuracy"].tolist() == [1, 0]
    assert empty.per_row["jaccard"].tolist() == [1, 0]


def test_an_unknown_name_is_a_wrong_answer_and_names_match_as_labels_do() -> None:
    found = score("labels", ['["a"]', '["b"]'], ['["A", "new"]', '["b."]'], ["a", "b"])
    assert found.metrics["micro_precision"] == pytest.approx(2 / 3)
    assert found.metrics["micro_recall"] == 1
    assert found.metrics["jaccard"] == pytest.approx((1 / 2 + 1) / 2)
    assert found.per_row["subset_accuracy"].tolist() == [0, 1]
    assert found.per_row["hamming_loss"].tolist() == [0.5, 0]


def test_the_known_classes_are_those_given_and_those_of_the_references() -> None:
    assert known_classes("labels", ['["b", "a"]', "[]"], ["c"]) == ("a", "b", "c")


def test_errors_name_the_row() -> None:
    with pytest.raises(DataError, match="reference of row 1 is 'x'"):
        score("labels", ["[]", "x"], ["[]", "[]"], ["a"])
    with pytest.raises(DataError, match=r"row 0 names 'biling'(.|\n)*did you mean 'billing'"):
        score("labels", ['["biling"]'], ["[]"], ["billing"])
    with pytest.raises(DataError, match="no labels"):
        score("labels", ["[]"], ["[]"])
