"""Losses of heads, against the formulas written out with numpy in float64."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax

from tunesmith.config.methods import ClassifyConfig, RegressConfig, TagConfig
from tunesmith.core.batch import Batch
from tunesmith.objectives.classify import Classify
from tunesmith.objectives.regress import Regress
from tunesmith.objectives.tag import Tag
from tunesmith.types import IGNORED, RowRef, Segment, TokenRow

LABELS = ["a", "b", "c"]
RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(5, 3))
CLASSES = np.array([0, 2, 1, 1, 2])


@dataclass
class Says:
    """Stands for a model whose head says these outputs of the rows of a batch."""

    values: np.ndarray
    tensor: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.tensor = torch.tensor(self.values, requires_grad=True)

    def outputs(self, batch: Batch) -> torch.Tensor:
        return self.tensor


def batch(targets: list[Any], length: int = 3) -> Batch:
    ids, weights = np.arange(3, 3 + length), np.zeros(length, np.float32)
    return Batch.from_rows(
        [
            TokenRow(RowRef("f", i), (Segment(ids, weights),), np.asarray(t), alone=True)
            for i, t in enumerate(targets)
        ]
    )


def one_class() -> Batch:
    return batch([np.array([c], np.int64) for c in CLASSES])


def test_rows_with_weights_of_their_own_count_so_much() -> None:
    own = {1: 3.0, 4: 0.25}  # the others count once
    rows = one_class().rows
    weighted = [
        replace(row, given={"sample_weight": np.array([own[i]], np.float32)}) if i in own else row
        for i, row in enumerate(rows)
    ]
    config = ClassifyConfig(labels=LABELS, class_weights={"a": 2.0})
    found, batch_ = Classify(config), Batch.from_rows(weighted)
    w = np.array([2.0, 1.0, 1.0])[CLASSES] * [own.get(i, 1.0) for i in range(5)]
    losses = -w * log_softmax(OUTPUTS, -1)[np.arange(5), CLASSES]
    loss = found.loss(Says(OUTPUTS), batch_)  # type: ignore[arg-type]
    assert float(loss.terms["classify"].detach()) == pytest.approx(losses.sum())
    assert float(found.weights(batch_)["classify"]) == pytest.approx(w.sum())


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("given", [None, {"a": 3.0, "c": 0.5}])
def test_one_class_with_weights_and_focus(gamma: float, given: dict[str, float] | None) -> None:
    config = ClassifyConfig(labels=LABELS, class_weights=given, focal_gamma=gamma)
    objective, model = Classify(config), Says(OUTPUTS)
    w = np.array([(given or {}).get(label, 1.0) for label in LABELS])
    logp = log_softmax(OUTPUTS, -1)[np.arange(5), CLASSES]
    expected = (w[CLASSES] * (1 - np.exp(logp)) ** gamma * -logp).sum()
    out = objective.loss(model, one_class())  # type: ignore[arg-type]
    assert out.terms["classify"].item() == pytest.approx(expected, rel=1e-10)
    assert objective.weights(one_class())["classify"].item() == pytest.approx(w[CLASSES].sum())
    assert out.metrics["accuracy"].item() == (OUTPUTS.argmax(-1) == CLASSES).sum()


def test_label_smoothing_spreads_a_share_over_all_classes() -> None:
    e, logp = 0.3, log_softmax(OUTPUTS, -1)
    expected = -((1 - e) * logp[np.arange(5), CLASSES] + e * logp.mean(-1)).sum()
    out = Classify(ClassifyConfig(labels=LABELS, label_smoothing=e)).loss(Says(OUTPUTS), one_class())  # type: ignore[arg-type]
    assert out.terms["classify"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_several_classes_are_a_sigmoid_each(gamma: float) -> None:
    wanted = RNG.integers(0, 2, (5, 3)).astype(np.float32)
    p = expit(OUTPUTS)
    right = np.where(wanted > 0, p, 1 - p)
    expected = (-np.log(right) * (1 - right) ** gamma).sum()
    objective = Classify(ClassifyConfig(labels=LABELS, multi_label=True, focal_gamma=gamma))
    given = batch(list(wanted))
    assert objective.loss(Says(OUTPUTS), given).terms["classify"].item() == pytest.approx(expected, rel=1e-6)  # type: ignore[arg-type]
    assert objective.weights(given)["classify"].item() == 15


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_numbers(loss: str) -> None:
    wanted = RNG.normal(size=(5, 3)).astype(np.float32) * 2
    error = np.abs(OUTPUTS - wanted)
    expected = {
        "mse": error**2,
        "mae": error,
        "huber": np.where(error <= 1, 0.5 * error**2, error - 0.5),
    }[loss]
    config = RegressConfig.model_validate({"labels": LABELS, "loss": loss})
    given = batch(list(wanted))
    found = Regress(config).loss(Says(OUTPUTS), given).terms["regress"]  # type: ignore[arg-type]
    assert found.item() == pytest.approx(expected.sum(), rel=1e-6)
    assert Regress(config).weights(given)["regress"].item() == 15


def test_tags_are_counted_where_there_is_one() -> None:
    rows = [np.array([IGNORED, 0, 2], np.int64), np.array([1, IGNORED, IGNORED], np.int64)]
    outputs = RNG.normal(size=(3, 3))
    expected = -log_softmax(outputs, -1)[np.arange(3), [0, 2, 1]].sum()
    objective, given = Tag(TagConfig(labels=["O", "B-x", "I-x"])), batch(rows)
    assert objective.loss(Says(outputs), given).terms["tag"].item() == pytest.approx(expected, rel=1e-10)  # type: ignore[arg-type]
    assert objective.weights(given)["tag"].item() == 3


def test_focus_and_smoothing_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="both bend"):
        ClassifyConfig(focal_gamma=1.0, label_smoothing=0.1)
