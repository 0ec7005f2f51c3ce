"""Reference log-probabilities: of the model as a run starts, computed once and kept."""

from __future__ import annotations

import pytest

from tests import fakes
from tunesmith.core.batch import Batch
from tunesmith.errors import RunError
from tunesmith.train.reference import FILE, with_reference
from tunesmith.types import TokenRow, silent

SPLITS = {"train": fakes.judged_rows(5, 1), "test": fakes.judged_rows(3, 2), "empty": []}


def sums(model: object, row: TokenRow) -> list[float]:
    batch = Batch.from_rows([row])
    logps = -model.token_losses(batch).detach()  # type: ignore[attr-defined]
    return [part.sum().item() for part in logps.split([len(leaf.ids) for leaf in row.segments[1:]])]


def test_each_row_of_each_split_has_what_the_model_says_of_its_completions(tmp_path) -> None:
    model = fakes.model("gpt2")
    found = with_reference(SPLITS, model, tmp_path, 60, silent)
    assert found.keys() == SPLITS.keys()
    for name, rows in SPLITS.items():
        for row, before in zip(found[name], rows, strict=True):
            assert row.given["reference"].tolist() == pytest.approx(sums(model, before), rel=1e-10)
            assert row.given["scores"].tolist() == before.given["scores"].tolist()


def test_it_is_computed_once(tmp_path) -> None:
    """Another model at the second time: what the first said is read, by the splits' names."""
    found = with_reference(SPLITS, fakes.model("gpt2"), tmp_path, 60, silent)
    turned = dict(reversed(SPLITS.items()))
    again = with_reference(turned, fakes.model("gpt2", seed=1), tmp_path, 60, silent)
    for name in SPLITS:
        for row, before in zip(again[name], found[name], strict=True):
            assert row.given["reference"].tolist() == before.given["reference"].tolist()


def test_that_of_other_rows_is_refused(tmp_path) -> None:
    model = fakes.model("gpt2")
    with_reference(SPLITS, model, tmp_path, 60, silent)
    with pytest.raises(RunError, match=f"{FILE} is of .* answers, but the rows have"):
        with_reference(SPLITS | {"train": SPLITS["train"][:-1]}, model, tmp_path, 60, silent)
