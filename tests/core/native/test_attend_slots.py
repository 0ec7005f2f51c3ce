"""Attention of rows that are being written: equal to softmax(scale * q k^T) v over what stands in their slots."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tunesmith.core import native
from tunesmith.core.native.attend import Shape, turned
from tunesmith.core.native.cache import Decode, Slots
from tunesmith.core.packed import product

pytestmark = pytest.mark.skipif(native.library() is None, reason=native.why_not())

ROWS, PLACES, LENGTH = [3, 0, 4], [36, 0, 15], 40


def formula(q: Tensor, keys: Tensor, values: Tensor, row: int, place: int, shape: Shape) -> Tensor:
    """(heads, dim) in float64."""
    first = max(0, place + 1 - shape.window) if shape.window else 0
    out = []
    for head in range(shape.heads):
        of = head // (shape.heads // shape.key_heads)
        k, v = (x[row, of, first : place + 1].double() for x in (keys, values))
        out.append((k @ q[head].double() * shape.scale).softmax(0) @ v)
    return torch.stack(out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("heads", "key_heads", "dim", "window"),
    [
        (6, 2, 64, 0),
        (9, 3, 64, 7),
        (5, 5, 128, 0),
        (17, 1, 64, 0),
        (4, 2, 32, 3),
        (2, 1, 10, 0),
        (32, 2, 64, 0),
    ],
)
def test_tokens_see_their_slots_up_to_themselves(
    dtype: torch.dtype, heads: int, key_heads: int, dim: int, window: int
) -> None:
    torch.manual_seed(0)
    shape = Shape(heads, key_heads, dim, dim**-0.5, True, window)
    slots = Slots(5, LENGTH, torch.device("cpu"), product)
    query, key, value = (torch.randn(4, n * dim).to(dtype) for n in (heads, key_heads, key_heads))
    keys, values = slots.of(0, shape, key)
    before = torch.randn(2, *keys.shape).to(dtype)
    for held, was in zip((keys, values), before, strict=True):
        held.copy_(was)
    angles = torch.randn(4, dim // 2).repeat(1, 2)
    rotary = (angles.cos(), angles.sin())
    out = torch.full_like(query, 7.0)
    state = Decode(slots, torch.tensor(ROWS), torch.tensor(PLACES))
    state.attending(0, query, key, value, shape, rotary, out)()
    q, k = (turned(x.view(4, -1, dim), *rotary) for x in (query, key))
    for i, (row, place) in enumerate(zip(ROWS, PLACES, strict=True)):
        before[0, row, :, place], before[1, row, :, place] = k[i], value[i].view(-1, dim)
        wanted = formula(q[i], *before, row, place, shape)
        bound = 1e-5 if dtype == torch.float32 else 0.02
        torch.testing.assert_close(out[i].view(heads, dim).double(), wanted, rtol=bound, atol=bound)
    assert (out[3] == 7).all()  # no row's
    bound = 1e-6 if dtype == torch.float32 else 1e-2  # what was turned is rounded
    torch.testing.assert_close(keys, before[0], rtol=bound, atol=bound)
    assert torch.equal(values, before[1])  # nothing else was written


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_none(dtype: torch.dtype) -> None:
    shape = Shape(2, 1, 64, 1.0, True, 0)
    slots = Slots(1, 40, torch.device("cpu"), product)
    query, key = torch.randn(1, 128).to(dtype), torch.randn(1, 64).to(dtype)
    keys, values = slots.of(0, shape, key)
    keys.normal_()
    values.normal_()
    keys[0, 0, 3, 5] = torch.nan
    out = torch.zeros_like(query)
    turns = (torch.ones(1, 64), torch.zeros(1, 64))
    state = Decode(slots, torch.tensor([0]), torch.tensor([36]))
    state.attending(0, query, key, key, shape, turns, out)()
    assert out.isnan().all()
