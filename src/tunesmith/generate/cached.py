"""Answers by a model's own forward pass and transformers' cache, for models without fast layers.

Prompts go together, padded on the left, each computed once; its samples begin with copies of its part of the cache. A
row that is finished leaves the cache; the next prompts come in when all have.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import Cache

from tunesmith.core.model import Model
from tunesmith.errors import ModelError
from tunesmith.generate.slots import Choose, Row


def write_by_cache(
    model: Model,
    prompts: Sequence[Sequence[int]],
    count: int,
    limits: Sequence[int],
    end_ids: Sequence[int],
    pad_id: int,
    num_rows: int,
    choose: Choose,
) -> Iterator[tuple[Row, bool]]:
    """Yield each finished row, `count` of each prompt, and whether an end token ended it. limits: tokens of an answer,
    for each prompt. num_rows: at the same time.

    The model must be a decoder in evaluation mode.
    """
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    together = max(1, num_rows // count)
    for start in range(0, len(order), together):
        indices = order[start : start + together]
        prefilled = _Cached.of(model, [prompts[i] for i in indices], pad_id)
        rows = [Row(i, s, len(prompts[i])) for i in indices for s in range(count)]
        places = [place for place in range(len(indices)) for _ in range(count)]
        for first in range(0, len(rows), num_rows):  # more than once where one prompt's samples are too many
            part = slice(first, first + num_rows)
            state = prefilled.select(places[part], last=first + num_rows >= len(rows))
            yield from _write(state, rows[part], limits, set(end_ids), choose)


def _write(
    state: _Cached, rows: list[Row], limits: Sequence[int], ends: set[int], choose: Choose
) -> Iterator[tuple[Row, bool]]:
    while True:
        for row, token in zip(rows, choose(state.logits, rows), strict=True):
            row.ids.append(token)
        going = []
        for place, row in enumerate(rows):
            ended = row.ids[-1] in ends
            if ended or len(row.ids) >= limits[row.prompt]:
                yield row, ended
            else:
                going.append(place)
        if not going:
            return
        if len(going) < len(rows):
            rows = [rows[place] for place in going]
            state = state.select(going, last=True)
        state.step(torch.tensor([row.ids[-1] for row in rows], device=state.mask.device))


class _Cached:
    """Rows that have been computed: mask (B, L), their cache, and logits (B, V) of what follows."""

    def __init__(self, model: Model, mask: Tensor, cache: Cache | None, logits: Tensor) -> None:
        self.model, self.mask, self.cache, self.logits = model, mask, cache, logits

    @classmethod
    def of(cls, model: Model, prompts: Sequence[Sequence[int]], pad_id: int) -> _Cached:
        width = max(map(len, prompts))
        ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
        state = cls(model, mask, None, torch.empty(0))
        state._forward(ids)
        return state

    def select(self, places: Sequence[int], *, last: bool = False) -> _Cached:
        """The rows at these places, any of them several times. last: this one is not needed any more."""
        index = torch.tensor(places, device=self.mask.device)
        cache = self.cache if last else copy.deepcopy(self.cache)
        assert cache is not None
        cache.reorder_cache(index)
        return _Cached(self.model, self.mask[index], cache, self.logits[index])

    def step(self, tokens: Tensor) -> None:
        """tokens (B,): one more for each row."""
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        self._forward(tokens[:, None])

    def _forward(self, ids: Tensor) -> None:
        module = self.model.module
        positions = (self.mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        more: dict[str, Any] = {"position_ids": positions} if _takes_positions(module) else {}
        with torch.no_grad():
            output = module(
                input_ids=ids,
                attention_mask=self.mask,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
                **more,
            )
        cache = output.get("past_key_values")
        if not isinstance(cache, Cache):
            raise ModelError(
                f"{type(module).__name__} keeps no keys and values that its samples could share",
                "a model with a cache of transformers",
                "choose another model",
            )
        self.cache, self.logits = cache, output.logits[:, -1]


def _takes_positions(module: Any) -> bool:
    """Whether it can be told positions; a model that cannot finds them by the mask."""
    inner = module.get_base_model() if isinstance(module, PeftModel) else module
    return "position_ids" in inspect.signature(inner.forward).parameters
