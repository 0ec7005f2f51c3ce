"""Greedy answers by fast layers: each row in a slot of its own, finished rows leave, the next prompts take their slots.

Prompts are prefilled together through the layout, without padding, what they begin with alike computed once. Keys and
values lie in memory that is there from the start. Equal to transformers' `generate`, token for token in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.core.native.cache import Decode, Prefill, Slots
from tunesmith.types import RowRef, Segment, TokenRow

REFILL = 0.25
"""Share of the slots that are free before prompts are taken in again: a few at a time would make small products."""


@dataclass
class _Row:
    index: int
    ids: list[int]
    prompt: int


def write(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | Sequence[int],
    end_ids: Sequence[int],
    num_slots: int,
) -> Iterator[tuple[int, list[int], bool]]:
    """Yield (index of the prompt, the answer's ids, whether an end token ended it) as rows finish.

    max_new_tokens: of every answer, or of each.

    The model must be one of which `Model.writes_by_slots` is true, and in evaluation mode.
    """
    waiting = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))  # the longest are taken first
    if not waiting:
        return
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    length = max(len(p) + n for p, n in zip(prompts, limits, strict=True))
    slots = Slots(min(num_slots, len(prompts)), length)
    active: dict[int, _Row] = {}
    free = list(range(slots.num_slots))
    ends = set(end_ids)
    while waiting or active:
        fresh: dict[int, _Row] = {}
        if waiting and (not active or len(free) >= REFILL * slots.num_slots):
            taken = [waiting.pop() for _ in range(min(len(free), len(waiting)))]
            into = [free.pop() for _ in taken]
            first = _prefill(model, slots, [prompts[i] for i in taken], into)
            fresh = {
                slot: _Row(i, [token], len(prompts[i]))
                for slot, i, token in zip(into, taken, first, strict=True)
            }
        if active:
            for row, token in zip(active.values(), _decode(model, slots, active), strict=True):
                row.ids.append(token)
        active |= fresh
        for slot, row in list(active.items()):
            ended = row.ids[-1] in ends
            if ended or len(row.ids) >= limits[row.index]:
                yield row.index, row.ids[:-1] if ended else row.ids, ended
                del active[slot]
                free.append(slot)


def _prefill(model: Model, slots: Slots, prompts: Sequence[Sequence[int]], into: Sequence[int]) -> list[int]:
    """The first token of each answer."""
    rows = [
        TokenRow(RowRef("prompt", i), (Segment(np.array(p, np.int64), np.zeros(len(p), np.float32)),))
        for i, p in enumerate(prompts)
    ]
    batch = Batch.from_rows(rows)
    layout = batch.layout
    leaves = range(len(layout.parents) - len(rows), len(layout.parents))
    last = torch.tensor([layout.offsets[leaf + 1] - 1 for leaf in leaves])
    state = Prefill(layout, slots, leaves, torch.tensor(into))
    return _likeliest(model, batch.input_ids, layout.positions, state, last)


def _decode(model: Model, slots: Slots, active: dict[int, _Row]) -> list[int]:
    """The next token of each active row, in their order."""
    ids = torch.tensor([row.ids[-1] for row in active.values()])
    places = torch.tensor([row.prompt + len(row.ids) - 1 for row in active.values()])
    return _likeliest(model, ids, places, Decode(slots, torch.tensor(list(active)), places), None)


def _likeliest(
    model: Model, ids: Tensor, positions: Tensor, state: Prefill | Decode, kept: Tensor | None
) -> list[int]:
    with torch.no_grad():
        logits = model.next_logits(ids, positions, state, kept)
    found: list[int] = logits.max(
        -1
    ).indices.tolist()  # four times as fast as argmax in bfloat16, the same of equals
    return found
