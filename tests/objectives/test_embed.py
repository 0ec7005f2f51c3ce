"""Losses of embeddings, against the formulas written out anchor by anchor; and no split of a step changes them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import fakes
from tunesmith.config.methods import EmbedConfig
from tunesmith.config.run import TrainConfig
from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.core.objective import WholeStep
from tunesmith.models.heads import HeadSpec
from tunesmith.objectives.embed import Embed, row_losses
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.engine import Engine
from tunesmith.train.optim import Optimizer
from tunesmith.train.state import Progress, TrainState
from tunesmith.types import RowRef, Segment, TokenRow, silent

Text = tuple[int, ...]
MEAN = HeadSpec("embed", (), "mean")
CRITERIA = (EmbedConfig(temperature=0.3), EmbedConfig(criterion="triplet", margin=0.4))
OWN = tuple(config.model_copy(update={"candidates": "own"}) for config in CRITERIA)


def group(*texts: Text, index: int = 0, label: int | None = None) -> TokenRow:
    """anchor, positive, negatives"""
    segments = tuple(Segment(np.array(t, np.int64), np.zeros(len(t), np.float32)) for t in texts)
    return TokenRow(
        RowRef("fake.jsonl", index + 1), segments, None if label is None else np.array([label]), alone=True
    )


def groups(count: int, negatives: bool = True, seed: int = 0) -> list[TokenRow]:
    rng = np.random.default_rng(seed)

    def text() -> Text:
        return tuple(rng.integers(3, fakes.VOCAB, int(rng.integers(2, 9))).tolist())

    return [
        group(text(), text(), *(text() for _ in range(1 + i % 2 if negatives else 0)), index=i)
        for i in range(count)
    ]


def vectors(rows: list[TokenRow], seed: int = 1) -> np.ndarray:
    """Unit vectors of all texts, equal for equal texts."""
    rng = np.random.default_rng(seed)
    known: dict[bytes, np.ndarray] = {}
    found = []
    for row in rows:
        for segment in row.segments:
            vector = rng.normal(size=3)
            found.append(known.setdefault(segment.ids.tobytes(), vector / np.linalg.norm(vector)))
    return np.stack(found)


def written_out(
    config: EmbedConfig, rows: list[TokenRow], embeddings: np.ndarray
) -> tuple[list[float], list[float]]:
    """Losses, and whether the positive is nearest."""
    at, texts = 0, []
    for row in rows:
        texts.append([(tuple(s.ids.tolist()), embeddings[at + i]) for i, s in enumerate(row.segments)])
        at += len(row.segments)
    labels = [None if row.target is None else int(row.target[0]) for row in rows]
    losses, nearest = [], []
    for label, ((anchor, a), (positive, p), *own) in zip(labels, texts, strict=True):
        unlike = [
            rest for other, (_, *rest) in zip(labels, texts, strict=True) if label is None or other != label
        ]
        pool = own if config.candidates == "own" else own + [t for rest in unlike for t in rest]
        others = {t: v for t, v in pool if t not in (anchor, positive)}
        wrong = [float(a @ v) for v in others.values()]
        right = float(a @ p)
        nearest.append(float(all(right > w for w in wrong)))
        if config.criterion == "triplet":
            losses.append(max(0.0, config.margin - right + max(wrong)) if wrong else 0.0)
        else:
            scores = np.exp(np.array([right, *wrong]) / config.temperature)
            losses.append(float(-np.log(scores[0] / scores.sum())))
    return losses, nearest


@pytest.mark.parametrize("config", [*CRITERIA, *OWN], ids=lambda c: f"{c.criterion}-{c.candidates}")
def test_the_loss_is_the_formula(config: EmbedConfig) -> None:
    same = (7, 8, 9)
    rows = [
        *groups(6),
        group(same, (4, 4), (5, 5)),
        group((6, 6), (4, 4), same),
        group((9, 3), same, (5, 5), (5, 5)),
        group((10, 3), (11, 3), (12, 3), label=2),
        group((13, 3), (14, 3), (15, 3), label=2),
        group((16, 3), (17, 3), (18, 3), label=4),
    ]
    embeddings = vectors(rows)
    losses, nearest = row_losses(config, rows, torch.from_numpy(embeddings))
    expected, first = written_out(config, rows, embeddings)
    assert losses.tolist() == pytest.approx(expected, rel=1e-10)
    assert nearest.tolist() == first


@pytest.mark.parametrize("config", CRITERIA, ids=lambda c: c.criterion)
def test_a_row_alone_without_negatives_has_no_loss_and_a_gradient_that_is_a_number(
    config: EmbedConfig,
) -> None:
    rows = groups(1, negatives=False)
    embeddings = torch.from_numpy(vectors(rows)).requires_grad_()
    losses, _ = row_losses(config, rows, embeddings)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert losses.tolist() == [0.0]
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def step(
    model: Model, config: EmbedConfig, rows: list[TokenRow], sizes: list[int]
) -> tuple[float, torch.Tensor]:
    """Loss and gradient of one step in micro-batches of so many rows."""
    objective = Embed(config)
    assert isinstance(objective, WholeStep)
    starts = np.cumsum([0, *sizes])
    batches = [Batch.from_rows(rows[a:b]) for a, b in itertools.pairwise(starts)]
    model.module.zero_grad()
    torch.manual_seed(3)
    objective.begin_step(model, batches)
    total = 0.0
    for batch in batches:
        loss = objective.loss(model, batch).terms["embed"] / len(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.module.parameters() if p.grad is not None])


@pytest.mark.parametrize("path", ["layout", "padded"])
@pytest.mark.parametrize("config", [*CRITERIA, *OWN], ids=lambda c: f"{c.criterion}-{c.candidates}")
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_row_1_every_split_gives_the_gradient_of_one_batch(
    family: str, config: EmbedConfig, path: str
) -> None:
    spec = MEAN if family == "bert" else HeadSpec("embed", (), "last")
    model = fakes.headed(family, spec, path=path, dtype=torch.float64)  # type: ignore[arg-type]
    rows = groups(8)
    whole, gradient = step(model, config, rows, [8])
    assert gradient.abs().max() > 1e-3
    for sizes in ([4, 4], [3, 3, 2], [1] * 8):
        loss, split = step(model, config, rows, sizes)
        assert loss == pytest.approx(whole, rel=1e-10)
        assert (split - gradient).abs().max() <= 1e-10 * gradient.abs().max()


def test_both_passes_of_a_split_step_drop_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fakes.headed("bert", MEAN, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    model.module.train()
    objective, batches = Embed(CRITERIA[0]), [Batch.from_rows(groups(3)), Batch.from_rows(groups(3, seed=5))]
    objective.begin_step(model, batches)
    ahead = [other.embeddings for other in objective._step]
    torch.rand(17)
    for batch, before in zip(batches, ahead, strict=True):
        live = []
        compute = Model.outputs
        monkeypatch.setattr(Model, "outputs", lambda m, b: live.append(compute(m, b)) or live[-1])  # noqa: B023
        objective.loss(model, batch)
        monkeypatch.undo()
        assert torch.equal(live[0], before)
        assert not torch.equal(before, compute(model, batch))


def test_the_loop_tells_the_objective_of_the_whole_step(tmp_path: Path) -> None:
    """One micro-batch or many: the same weights after a step."""
    rows, after = groups(8, negatives=False), []
    for sizes in ([8], [2, 2, 2, 2]):
        model = fakes.headed("bert", MEAN, dtype=torch.float64)
        starts = np.cumsum([0, *sizes])
        batches = [Batch.from_rows(rows[a:b]) for a, b in itertools.pairwise(starts)]

        class Fixed:
            total_steps = 1

            def epoch(self, step: int) -> float:
                return 0.0

            def micro_batches(self, step: int, budget: int, batches: list[Batch] = batches) -> list[Batch]:
                return batches

        config = TrainConfig(eval_every=10, save_every=10, weight_decay=0.0)
        optimizer = Optimizer(model.module, config, {n: 1.0 for n, _ in model.module.named_parameters()})
        state = TrainState(Progress(micro_batch_tokens=64, threads=1), optimizer, "")
        engine = Engine(
            model,
            Embed(CRITERIA[0]),
            Fixed(),
            state,
            config,
            0,
            Checkpoints(tmp_path, 1),
            silent,
            None,
            lambda: "",
        )
        engine.train_step(1e-2)
        after.append(torch.cat([p.detach().flatten() for p in model.module.parameters()]))
    assert (after[0] - after[1]).abs().max() < 1e-9


def test_a_knob_of_the_other_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="margin has no meaning with criterion contrastive"):
        EmbedConfig(margin=0.3)
    with pytest.raises(ValueError, match="temperature has no meaning with criterion triplet"):
        EmbedConfig(criterion="triplet", temperature=0.3)
