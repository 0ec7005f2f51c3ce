"""Before speed, correctness: the first step's loss and gradient beside those of stock layers in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tunesmith.config.run import Run
from tunesmith.core.batch import Batch
from tunesmith.train.build import build
from tunesmith.types import TokenRow

COSINE, LOSS = 0.999, 1e-3


def gate(run: Run, rows: Sequence[TokenRow]) -> dict[str, float]:
    """cosine: of the whole gradients; loss: difference a token, relative. Raises SystemExit beyond the bounds."""
    loss, gradient = first_step(run, rows, dtype=run.model.dtype, path="layout")
    exact_loss, exact = first_step(run, rows, dtype="float32", path="padded")
    found = {
        "cosine": torch.nn.functional.cosine_similarity(gradient, exact, dim=0).item(),
        "loss": abs(loss / exact_loss - 1),
    }
    if not (found["cosine"] >= COSINE and found["loss"] <= LOSS):
        raise SystemExit(f"the first step is not that of stock layers in float32: {found}")
    return found


def in_dtype(run: Run, dtype: str, path: str) -> Run:
    """A resolved run on another path, with an optimizer that any dtype has."""
    model = run.model.model_copy(update={"dtype": dtype, "path": path})
    train = run.train.model_copy(update={"optimizer_state": "float32"})
    return run.model_copy(update={"model": model, "train": train})


def first_step(run: Run, rows: Sequence[TokenRow], *, dtype: str, path: str) -> tuple[float, torch.Tensor]:
    """Of a resolved run: the loss a token, and the gradient of everything that trains, flat."""
    built = build(in_dtype(run, dtype, path), rows, {})
    built.loaded.model.module.train()
    batch = Batch.from_rows(rows)
    total = built.objective.loss(built.loaded.model, batch).terms["sft"]
    total.backward()
    optimizer = built.state.optimizer
    gradients = [optimizer.gradient(name) for name in sorted(optimizer.parameters)]
    flat = torch.cat([g.flatten().double() for g in gradients if g is not None])
    return total.item() / batch.weights.sum().item(), flat
