"""Answers by fast layers: each row in a slot of its own, finished rows leave, the next ones take their slots.

Prompts are prefilled together through the layout, without padding, what they begin with alike computed once; several
answers to one prompt begin with copies of its keys and values. These lie in memory that is there from the start. What
chooses the tokens comes from outside: greedy answers equal transformers' `generate`, token for token in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tunesmith.core import packed
from tunesmith.core.batch import Batch
from tunesmith.core.device import pass_tokens
from tunesmith.core.model import Model
from tunesmith.core.native.cache import Decode, Prefill, Slots
from tunesmith.types import RowRef, Segment, TokenRow

REFILL = 0.25
"""Share of the slots that are free before prompts are taken in again: a few at a time would make small products."""


@dataclass
class Row:
    """An answer that is being written: the sample-th to this prompt, which has `length` tokens. ids: so far, with the
    end token."""

    prompt: int
    sample: int
    length: int
    ids: list[int] = field(default_factory=list)


Choose = Callable[[Tensor, Sequence[Row]], list[int]]
"""Logits (K, V) and the K rows that they continue -> the next token of each."""


def write(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | Sequence[int],
    end_ids: Sequence[int],
    num_slots: int,
) -> Iterator[tuple[int, list[int], bool]]:
    """Greedy: yield (index of the prompt, the answer's ids, whether an end token ended it) as rows finish.

    max_new_tokens: of every answer, or of each.

    The model must be one of which `Model.writes_by_slots` is true, and in evaluation mode.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    for row, ended in write_rows(model, prompts, 1, limits, end_ids, num_slots, _likeliest):
        yield row.prompt, row.ids[:-1] if ended else row.ids, ended


def write_rows(
    model: Model,
    prompts: Sequence[Sequence[int]],
    count: int,
    limits: Sequence[int],
    end_ids: Sequence[int],
    num_slots: int,
    choose: Choose,
) -> Iterator[tuple[Row, bool]]:
    """Yield each finished row, `count` of each prompt, and whether an end token ended it. limits: tokens of an answer,
    for each prompt. The model as for `write`."""
    if not prompts:
        return
    length = max(len(p) + n for p, n in zip(prompts, limits, strict=True))
    writing = _Writing(model, prompts, count, length, num_slots)
    ends = set(end_ids)
    while writing.waiting or writing.active:
        begun = writing.begin()
        if writing.active:
            _extend(list(writing.active.values()), writing.decode(), choose)
        for slots, logits in begun:
            _extend(list(slots.values()), logits, choose)
            writing.active |= slots
        for slot, row in list(writing.active.items()):
            ended = row.ids[-1] in ends
            if ended or len(row.ids) >= limits[row.prompt]:
                yield row, ended
                del writing.active[slot]
                writing.free.append(slot)


def _extend(rows: Sequence[Row], logits: Tensor, choose: Choose) -> None:
    for row, token in zip(rows, choose(logits, rows), strict=True):
        row.ids.append(token)


def _likeliest(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    found: list[int] = logits.max(
        -1
    ).indices.tolist()  # four times as fast as argmax in bfloat16, the same of equals
    return found


Begun = tuple[dict[int, Row], Tensor]
"""Rows by their slots, and the logits (K, V) of their first tokens."""


class _Writing:
    """waiting: rows to come, the next one last, those of one prompt side by side. active: by their slots."""

    def __init__(
        self, model: Model, prompts: Sequence[Sequence[int]], count: int, length: int, num_slots: int
    ) -> None:
        self.model, self.prompts = model, prompts
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))  # the longest are taken first
        self.waiting = [Row(i, s, len(prompts[i])) for i in order for s in reversed(range(count))]
        self.active: dict[int, Row] = {}
        make = packed.product if packed.affordable(model.module) else packed.stock_product
        self.slots = Slots(min(num_slots, len(self.waiting)), length, model.device, make)
        self.free = list(range(self.slots.num_slots))
        # The prompt taken in last. Its slot holds it as long as rows of it are waiting: they are the next to begin, so
        # only they get the slot, and what they write stands behind the prompt.
        self.last, self.home, self.first = -1, -1, torch.empty(0)

    def begin(self) -> list[Begun]:
        """Rows of the last prompt at once, other prompts only when they are enough to be worth a pass."""
        begun = []
        more = self._take(lambda row: row.prompt == self.last)
        if more:
            self.slots.copy([self.home] * len(more), list(more), len(self.prompts[self.last]))
            begun.append((more, self.first.expand(len(more), -1)))
        idle = not self.active and not more
        if self.waiting and (idle or len(self.free) >= REFILL * self.slots.num_slots):
            begun.append(self._prefill(self._take(lambda row: True)))
        return begun

    def _take(self, wanted: Callable[[Row], bool]) -> dict[int, Row]:
        """The next rows, as long as they are wanted and slots are free."""
        taken = {}
        while self.free and self.waiting and wanted(self.waiting[-1]):
            taken[self.free.pop()] = self.waiting.pop()
        return taken

    def _prefill(self, taken: dict[int, Row]) -> Begun:
        """Each prompt once, into the slot of its first row and from there into those of its others."""
        homes: dict[int, int] = {}
        for slot, row in taken.items():
            homes.setdefault(row.prompt, slot)
        logits = torch.cat([self._prompts(part) for part in self._parts(list(homes.items()))])
        self.last, self.home = list(homes.items())[-1]
        self.first = logits[-1:]
        if len(taken) == len(homes):
            return taken, logits
        copies = {slot: homes[row.prompt] for slot, row in taken.items() if homes[row.prompt] != slot}
        width = max(len(self.prompts[index]) for index in homes)
        self.slots.copy(list(copies.values()), list(copies), width)
        places = {prompt: place for place, prompt in enumerate(homes)}
        return taken, logits[[places[row.prompt] for row in taken.values()]]

    def _parts(self, homes: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """As many prompts as one pass takes, in their order."""
        parts: list[list[tuple[int, int]]] = [[]]
        tokens, most = 0, pass_tokens(self.model.device)
        for prompt, slot in homes:
            tokens += len(self.prompts[prompt])
            if parts[-1] and tokens > most:
                parts.append([])
                tokens = len(self.prompts[prompt])
            parts[-1].append((prompt, slot))
        return parts

    def _prompts(self, homes: Sequence[tuple[int, int]]) -> Tensor:
        """Prompts into their slots -> (K, V), what follows each."""
        rows = [
            TokenRow(RowRef("prompt", i), (Segment(np.array(p, np.int64), np.zeros(len(p), np.float32)),))
            for i, p in enumerate(self.prompts[prompt] for prompt, _ in homes)
        ]
        batch = Batch.from_rows(rows).to(self.model.device)
        layout = batch.layout
        leaves = range(len(layout.parents) - len(rows), len(layout.parents))
        last = torch.tensor([layout.offsets[leaf + 1] - 1 for leaf in leaves])
        state = Prefill(layout, self.slots, leaves, torch.tensor([slot for _, slot in homes]))
        return self._next_logits(batch.input_ids, layout.positions, state, last)

    def decode(self) -> Tensor:
        """(K, V): what follows the last token of each active row, in their order."""
        ids = torch.tensor([row.ids[-1] for row in self.active.values()])
        places = torch.tensor([row.length + len(row.ids) - 1 for row in self.active.values()])
        return self._next_logits(
            ids, places, Decode(self.slots, torch.tensor(list(self.active)), places), None
        )

    def _next_logits(
        self, ids: Tensor, positions: Tensor, state: Prefill | Decode, kept: Tensor | None
    ) -> Tensor:
        with torch.no_grad():
            return self.model.next_logits(ids, positions, state, kept)
