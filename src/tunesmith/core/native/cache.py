"""Keys and values of rows that are being written, in slots of one length, and attention over them.

A slot holds a row's keys (turned to their positions) and values of every layer. `Prefill` fills slots from prompts that
lie flat in a layout; `Decode` adds one token to each of some slots. Both stand in for a layout in a fast layer's call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.core.layout import Layout
from tunesmith.core.native.attend import Shape, attend, gather, turned
from tunesmith.core.native.call import ready, takes
from tunesmith.core.packed import MakeProduct

T = TypeVar("T")


class Slots:
    """keys, values: of each layer (slots, key_heads, length, dim), made at the first use. product: what multiplies by a
    weight and adds a bias as long as rows are being written, made of them (`tunesmith.core.packed.product`)."""

    def __init__(self, num_slots: int, length: int, device: torch.device, product: MakeProduct) -> None:
        self.num_slots, self.length, self.device, self.product = num_slots, length, device, product
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self._ready: dict[int, Any] = {}
        self.step: Any = None
        """What computes the next token of as many rows as the last time, where it was made ready."""

    def ready(self, part: object, make: Callable[[], T]) -> T:
        """What is made of a part's weights, once: none changes as long as rows are being written."""
        if id(part) not in self._ready:
            self._ready[id(part)] = make()
        return self._ready[id(part)]  # type: ignore[no-any-return]

    def of(self, layer: int, shape: Shape, like: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self.keys:
            size = (self.num_slots, shape.key_heads, self.length, shape.dim)
            # What is masked counts nothing, but nothing times what memory happens to hold may be no number.
            make = like.new_empty if takes(like) else like.new_zeros
            self.keys[layer], self.values[layer] = make(size), make(size)
        return self.keys[layer], self.values[layer]

    def copy(self, sources: Sequence[int], targets: Sequence[int], width: int) -> None:
        """What stands at the first `width` places of each source, into its target."""
        source, target = (torch.tensor(list(x), device=self.device) for x in (sources, targets))
        for held in (*self.keys.values(), *self.values.values()):
            held[target, :, :width] = held[source, :, :width]


@dataclass
class Prefill:
    """The prompts of `layout`: the paths down to `leaves` go to the slots `into`, one each."""

    layout: Layout
    slots: Slots
    leaves: Sequence[int]
    into: Tensor
    calls: int = 0

    def __post_init__(self) -> None:
        paths = [self.layout.path_tokens(leaf) for leaf in self.leaves]
        index = torch.zeros(len(paths), max(map(len, paths)), dtype=torch.long)
        for row, path in enumerate(paths):
            index[row, : len(path)] = path
        self.index, self.into = (x.to(self.slots.device) for x in (index, self.into))
        self.real = torch.tensor([len(p) for p in paths], device=self.slots.device)

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        shape: Shape,
        rotary: tuple[Tensor, Tensor],
    ) -> Tensor:
        self.calls += 1
        keys, values = self.slots.of(layer, shape, key)
        turned = [r.float().contiguous() for r in rotary]
        width = self.index.shape[1]
        keys[self.into, :, :width] = gather(key, self.index, self.real, shape.key_heads, shape.dim, *turned)
        values[self.into, :, :width] = gather(
            value, self.index, self.real, shape.key_heads, shape.dim, None, None
        )
        return attend(query, key, value, self.layout, shape, rotary)


@dataclass
class Decode:
    """Token i goes to place `places[i]` of slot `rows[i]` and sees what stands there up to itself."""

    slots: Slots
    rows: Tensor
    places: Tensor
    calls: int = 0

    def __post_init__(self) -> None:
        self.rows, self.places = (x.to(self.slots.device) for x in (self.rows, self.places))

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        shape: Shape,
        rotary: tuple[Tensor, Tensor],
    ) -> Tensor:
        self.calls += 1
        out = query.new_zeros(query.shape)
        turns = tuple(r.float().contiguous() for r in rotary)
        query, key, value = (x.contiguous() for x in (query, key, value))
        self.attending(layer, query, key, value, shape, turns, out)()
        return out

    def attending(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        shape: Shape,
        rotary: tuple[Tensor, ...],
        out: Tensor,
    ) -> Callable[[], None]:
        """What fills the first rows of `out` (T, heads * dim), any number of times; all tensors contiguous, cosines and
        sines in float32."""
        keys, values = self.slots.of(layer, shape, key)
        count = len(self.rows)
        if not takes(query):
            return partial(
                self._attend_plain,
                query[:count],
                key[:count],
                value[:count],
                keys,
                values,
                shape,
                rotary,
                out,
            )
        heads = (shape.key_heads, shape.heads // shape.key_heads)
        read = (query, key, value, *rotary, keys, values, self.rows, self.places)
        sizes = (count, *heads, self.slots.length, shape.dim, shape.window, shape.scale)
        return ready("attend_slots", query.dtype, *read, out, *sizes)

    def _attend_plain(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        keys: Tensor,
        values: Tensor,
        shape: Shape,
        rotary: tuple[Tensor, ...],
        out: Tensor,
    ) -> None:
        q, k, v = (x.view(len(x), -1, shape.dim) for x in (query, key, value))
        cos, sin = (r[: len(q)] for r in rotary)
        keys[self.rows, :, self.places] = turned(k, cos, sin)
        values[self.rows, :, self.places] = v
        width = int(self.places.max()) + 1
        seen_k, seen_v = (x[:, :, :width].index_select(0, self.rows) for x in (keys, values))
        gap = self.places[:, None] - torch.arange(width, device=query.device)
        seen = (gap >= 0) & (gap < (shape.window or width))
        found = functional.scaled_dot_product_attention(
            turned(q, cos, sin)[:, :, None],
            seen_k,
            seen_v,
            seen[:, None, None],
            scale=shape.scale,
            enable_gqa=shape.heads != shape.key_heads,
        )
        out[: len(q)] = found.flatten(1)
