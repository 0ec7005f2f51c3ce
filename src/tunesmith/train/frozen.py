"""Whether a run may keep the states above its frozen layers, and keeping them; see `tunesmith.core.frozen`.

The states are computed before the first step, in batches of the rows' own order: what is kept does not depend on the
steps, so a resumed run, which computes them again, has the same bits.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from tunesmith.config.run import TrainConfig
from tunesmith.core.batch import Batch
from tunesmith.core.device import KEPT
from tunesmith.core.frozen import FrozenStates
from tunesmith.core.model import Model
from tunesmith.core.native.sums import tiles
from tunesmith.data.pack import pack
from tunesmith.errors import ConfigError
from tunesmith.generate.batched import evaluating
from tunesmith.models.tune import LAYER
from tunesmith.train.unfreeze import depths_of
from tunesmith.types import EventSink, TokenRow


@contextmanager
def frozen_states(
    model: Model, config: TrainConfig, rows: Sequence[TokenRow], passes: float, folder: Path, sink: EventSink
) -> Iterator[None]:
    """Inside, the frozen layers' states of `rows` are kept where that holds and pays, and a note says so.

    passes: over the training rows. Raises ConfigError where `train.keep_frozen` asks for what does not hold.
    """
    layers = frozen_layers(model)
    frozen = FrozenStates(layers, folder)
    with frozen.on():
        problem = _problem(model, config, passes, frozen, rows)
        if problem and config.keep_frozen:
            raise ConfigError(
                f"train.keep_frozen=true, but {problem}",
                "frozen layers whose states can be kept",
                "leave it out",
            )
        if not problem:
            _fill(model, frozen, rows, config.micro_batch_tokens or 0, sink)
            model.frozen = frozen
        elif layers:
            sink("note", text=f"the {len(layers)} frozen layers run in every step: {problem}")
        try:
            yield
        finally:
            model.frozen = None


def frozen_layers(model: Model) -> list[nn.Module]:
    """The layers below the lowest that has something to train, from the lowest; none where layers cannot be told
    apart."""
    trained = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    lowest = model.num_layers - max(depths_of(model, trained).values())
    backbone = model.module if model.head is None else model.head.backbone
    numbered = {}
    for name, module in backbone.named_modules():
        found = LAYER.search(f"{name}.")
        if found and found.end() == len(name) + 1:
            numbered[int(found[1])] = module
    return [numbered[i] for i in range(lowest)] if set(numbered) == set(range(model.num_layers)) else []


def _problem(
    model: Model, config: TrainConfig, passes: float, frozen: FrozenStates, rows: Sequence[TokenRow]
) -> str:
    """Why the states are not kept."""
    if config.keep_frozen is False:
        return "train.keep_frozen=false"
    if not frozen.layers:
        return "no layer below a trained one is frozen"
    if config.keep_frozen is None and passes <= 1:
        return "each row is seen once"
    if model.path != "layout":
        return "rows are padded (model.path)"
    if config.neftune_alpha is not None:
        return "train.neftune_alpha changes what they read"
    if config.unfreeze_every is not None:
        return "train.unfreeze_every trains them later"
    return _check(model, frozen, rows)


def _check(model: Model, frozen: FrozenStates, rows: Sequence[TokenRow]) -> str:
    """What is wrong with keeping the states of these rows, tried on the first ones and by room on the disk."""
    few = Batch.from_rows(rows[:2], share=False)
    model.module.train()
    states = [model.frozen_states(frozen, few) for _ in range(2)]
    if not torch.equal(*states):
        return "they have dropout (set model.dropout=0 to have them run once)"
    num_bytes = sum(r.num_tokens for r in rows) * states[0].shape[1] * states[0].element_size()
    if shutil.disk_usage(frozen.folder).free < 2 * num_bytes:
        return f"their states take {num_bytes / 1e9:.1f} GB, and the disk has not twice that"
    with evaluating(model.module):
        wanted = _last(model, few)
        frozen.keep(few, states[0])
        model.frozen = frozen
        found = _last(model, few)
        model.frozen = None
    return "" if torch.equal(wanted, found) else "the model's layers do more than pass states on"


def _last(model: Model, batch: Batch) -> torch.Tensor:
    return model.logits(batch) if model.head is None else model.states(batch)


def _in_one_block(model: Model) -> int:
    """Tokens whose states are a block that the C library keeps: the more in a pass the fewer times weights are laid out
    for tiles. 0 where other tensors of a layer are larger, since tiles do not compute it as a chain."""
    module = model.module if model.head is None else model.head.backbone
    weight = module.get_input_embeddings().weight
    return KEPT // (weight.shape[1] * weight.element_size()) if model.fast_head and tiles(weight) else 0


def _fill(model: Model, frozen: FrozenStates, rows: Sequence[TokenRow], budget: int, sink: EventSink) -> None:
    started, done = time.monotonic(), 0
    for bin_ in pack([r.num_tokens for r in rows], max(budget, _in_one_block(model)), padded=False):
        batch = Batch.from_rows([rows[i] for i in bin_], share=False)
        frozen.keep(batch, model.frozen_states(frozen, batch))
        done += len(bin_)
        sink("progress", name="frozen layers", done=done, total=len(rows))
    seconds = time.monotonic() - started
    sink("frozen", layers=len(frozen.layers), rows=len(rows), bytes=frozen.size, seconds=seconds)
    sink(
        "note",
        text=f"the {len(frozen.layers)} frozen layers have run once for all {len(rows):,} rows "
        f"({frozen.size / 1e9:.2f} GB on disk, {seconds:.0f} s)",
    )
