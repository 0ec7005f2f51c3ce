"""What encoders' layers compute beside their products: dropout by its generator and its statistics, norms, GELU."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.core.native.formulas import DTYPES, both, near, needs_library, needs_tiles
from tunesmith.core.layout import BLOCK, Layout
from tunesmith.core.native import attend as attending
from tunesmith.core.native import ops, short
from tunesmith.core.native.attend import Shape, attend
from tunesmith.core.native.ops import add_norm, dropout, dropped, gelu

pytestmark = needs_library
SEED = 0x1234_5678_9ABC_DEF1 >> 1


def philox(counters: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """(n, 4) words -> (n, 4) words: Philox 4x32-10 of Salmon et al., SC 2011."""
    a, b, c, d = counters.astype(np.uint64).T
    k, low = [np.uint64(x) for x in key], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        x, y = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (y >> np.uint64(32)) ^ b ^ k[0], y & low, (x >> np.uint64(32)) ^ d ^ k[1], x & low
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return np.stack([a, b, c, d], 1)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_the_reference_gives_the_published_answers(counter: str, key: str, words: str) -> None:
    c, k, w = ([int(x, 16) for x in text.split()] for text in (counter, key, words))
    assert philox(np.array([c]), (k[0], k[1])).tolist() == [w]


def kept(count: int, first: int, seed: int, p: float) -> Tensor:
    """(count,) 0 or 1 / (1 - p): lower halves of the counters' first words, their upper ones, then of the second ..."""
    counters = np.zeros((-(-count // 8), 4), dtype=np.uint64)
    counters[:, 0] = (first & 0xFFFFFFFF) + np.arange(len(counters))
    counters[:, 1] = first >> 32
    words = philox(counters, (seed & 0xFFFFFFFF, seed >> 32)).T
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], 1)
    return kept_of(halves.flatten()[:count], p)


def kept_of(halves: np.ndarray, p: float) -> Tensor:
    below = round(p * 65536)
    return torch.from_numpy(np.where(halves < below, 0.0, 65536 / max(65536 - below, 1)))


def mask(shape: tuple[int, ...], seed: int, p: float) -> Tensor:
    """Of a whole tensor, drawn in pieces of 4,096 elements."""
    total = math.prod(shape)
    parts = [kept(min(4096, total - start), start // 8, seed, p) for start in range(0, total, 4096)]
    return torch.cat(parts).view(shape)


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ops, attending, short):
        monkeypatch.setattr(module, "seed", lambda: SEED)


@pytest.mark.parametrize("size", [1, 5, 4096, 9001])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_masks_are_those_of_the_generator(size: int, p: float) -> None:
    near(dropped(torch.ones(size), SEED, p), mask((size,), SEED, p))


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_has_one_mask_both_ways(dtype: torch.dtype) -> None:
    both(
        lambda x: dropout(x, 0.3), lambda x: x * mask((70, 90), SEED, 0.3), [torch.randn(70, 90, dtype=dtype)]
    )


def test_statistics_of_dropout() -> None:
    """Shares of a million draws have a standard error of 0.0003; of pairs that are both dropped, 0.0001."""
    p, count = 0.1, 1_000_000
    first, other = ((dropped(torch.ones(count), seed, p) == 0).double() for seed in (SEED, SEED + 1))
    assert abs(first.mean() - p) < 0.0015
    assert abs(dropped(torch.ones(count), SEED, p).mean() - 1) < 0.0015
    for distance in (1, 2, 512, 1024, 4096):  # neighbours, halves and words of one counter, chunks
        assert abs((first[distance:] * first[:-distance]).mean() - p * p) < 0.0006
    assert abs((first * other).mean() - p * p) < 0.0006
    assert dropped(torch.ones(100), SEED, 1.0).abs().max() == 0


def test_masks_follow_the_seed_and_not_the_threads() -> None:
    x, norm, threads = torch.randn(300, 50), nn.LayerNorm(50), torch.get_num_threads()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        torch.manual_seed(7)
        found.append(torch.stack([dropout(x, 0.2), add_norm(x, x, norm, 0.2), dropout(x, 0.2)]).detach())
    torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0][0], found[0][2])


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("rows", "width"), [(1, 8), (37, 50), (130, 384)])
def test_add_norm(dtype: torch.dtype, p: float, rows: int, width: int) -> None:
    row = [kept(width, i * (-(-width // 8)), SEED, p) for i in range(rows)]
    keep = torch.stack(row) if p else torch.ones(())

    def ours(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return add_norm(x, past, SimpleNamespace(weight=weight, bias=bias, eps=1e-6), p)  # type: ignore[arg-type]

    def formula(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        s = past + keep * x
        centred = s - s.mean(-1, keepdim=True)
        return weight * centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() + bias

    shapes = ((rows, width), (rows, width), (width,), (width,))
    both(ours, formula, [torch.randn(shape, dtype=dtype) for shape in shapes], times=2)


def test_frozen_norms_get_no_gradient() -> None:
    norm = nn.LayerNorm(8).requires_grad_(False)
    x = torch.randn(3, 8, requires_grad=True)
    add_norm(x, torch.randn(3, 8), norm, 0.0).square().sum().backward()
    assert x.grad is not None
    assert norm.weight.grad is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 16, 9001])
def test_gelu(dtype: torch.dtype, size: int) -> None:
    both(gelu, functional.gelu, [4 * torch.randn(size, dtype=dtype)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_far_from_zero(dtype: torch.dtype) -> None:
    """Relative to each value, as far as the type's smallest normal number; of infinities and of what is no number."""
    x = torch.linspace(-12, 12, 4001).to(dtype).requires_grad_()
    wide = x.detach().double()
    wanted = wide * torch.special.erfc(-wide / math.sqrt(2)) / 2
    found = gelu(x)
    tolerance = 1e-5 if dtype is torch.float32 else 2**-8
    assert ((found.double() - wanted).abs() <= tolerance * wanted.abs()).all()
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert (x.grad[x > 6] - 1).abs().max() < 1e-6
    assert x.grad[x < -6].abs().max() < 1e-6
    edge = gelu(torch.tensor([math.inf, math.nan, 40.0, -40.0], dtype=dtype))
    assert edge[0] == math.inf
    assert edge[1].isnan()
    assert edge[2] == 40
    assert edge[3].abs() < 1e-37


def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, shape: Shape) -> Tensor:
    """Rows that see themselves or what comes before, their shares dropped as the blocks draw it."""
    out = torch.zeros(len(q), shape.heads, shape.dim, dtype=q.dtype)
    repeated = shape.heads // shape.key_heads
    keys, values = (
        x.view(len(x), -1, shape.dim).repeat_interleave(repeated, 1).transpose(0, 1) for x in (k, v)
    )
    for number, block in enumerate(layout.blocks(shape.causal)):
        size = (*block.queries.shape, block.keys.shape[1])
        keep = mask((size[0], shape.heads, *size[1:]), SEED + number, shape.dropout)
        for g in range(size[0]):
            seen = block.keys[g, : block.real_keys[g]]
            for place in range(int(block.real[g])):
                token, last = block.queries[g, place], int(block.before[g]) + place + 1
                use = seen[:last] if shape.causal else seen
                scores = torch.einsum("hd,hkd->hk", q[token].view(-1, shape.dim), keys[:, use]) * shape.scale
                shares = scores.softmax(-1) * keep[g, :, place, : len(use)]
                out[token] = torch.einsum("hk,hkd->hd", shares, values[:, use])
    return out.flatten(1)


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("most", [8, 1000])
def test_attention_with_dropout(
    dtype: torch.dtype, causal: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attending, "KEPT", most)
    layout = Layout.of([9, BLOCK + 9, 1, 7], [-1, -1, -1, 0 if causal else -1])
    shape = Shape(4, 2 if causal else 4, 8, 0.3, causal, 0, dropout=0.3)
    widths = (32, 8 * shape.key_heads, 8 * shape.key_heads)
    both(
        lambda q, k, v: attend(q, k, v, layout, shape),
        lambda q, k, v: attention(q, k, v, layout, shape),
        [torch.randn(layout.num_tokens, width, dtype=dtype) for width in widths],
        times=4,
    )


def kept_in_tiles(token: int, head: int, queries: int, keys: int, p: float) -> Tensor:
    """(queries, keys) 0 or 1 / (1 - p) of a piece's head: eight queries get the halves of one counter's words."""
    places = np.arange(keys)
    rows = []
    for query in range(0, queries, 8):
        counters = np.stack([places, *(np.full(keys, x) for x in (query, head, token))], 1)
        words = philox(counters, (SEED & 0xFFFFFFFF, SEED >> 32)).T
        rows += [words & np.uint64(0xFFFF), words >> np.uint64(16)]
    return kept_of(np.concatenate(rows)[:queries], p)


def attention_by_pieces(q: Tensor, k: Tensor, v: Tensor, layout: Layout, shape: Shape) -> Tensor:
    out = torch.zeros(len(q), shape.heads, shape.dim, dtype=q.dtype)
    shared, pieces = shape.heads // shape.key_heads, layout.pieces(shape.causal)
    for token, queries, before, path, count in pieces.table.tolist():
        keys = pieces.tokens[path : path + count]
        place, other = before + torch.arange(queries)[:, None], torch.arange(count)
        seen = (other <= place) if shape.causal else torch.ones(queries, count, dtype=torch.bool)
        for head in range(shape.heads):
            of_q, of_k = (slice(h * shape.dim, (h + 1) * shape.dim) for h in (head, head // shared))
            scores = q[token : token + queries, of_q] @ k[keys, of_k].T * shape.scale
            shares = scores.masked_fill(~seen, -math.inf).softmax(-1)
            keep = kept_in_tiles(token, head, queries, count, shape.dropout) if shape.dropout else 1
            out[token : token + queries, head] = (shares * keep) @ v[keys, of_k]
    return out.flatten(1)


@needs_tiles
@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dim", [32, 64])
def test_attention_with_dropout_in_tiles(causal: bool, dropout: float, dim: int) -> None:
    layout = Layout.of([9, 70, 1, 33, 20], [-1, -1, -1, 0 if causal else -1, 3 if causal else -1])
    shape = Shape(4, 2, dim, 0.3, causal, 0, dropout)

    def ours(wide: Tensor) -> Tensor:
        return attend(*wide.split([4 * dim, 2 * dim, 2 * dim], 1), layout, shape)

    def formula(wide: Tensor) -> Tensor:
        return attention_by_pieces(*wide.split([4 * dim, 2 * dim, 2 * dim], 1), layout, shape)

    rows = torch.randn(layout.num_tokens, 8 * dim).bfloat16()
    if dropout < 1:
        both(ours, formula, [rows], times=2)
    else:
        rows.requires_grad_()
        ours(rows).sum().backward()
        assert not ours(rows).any()
        assert rows.grad is not None
        assert not rows.grad.any()


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dim", [8, 32, 50])
def test_attention_of_short_rows(
    dtype: torch.dtype, dropout: float, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attending, "tiles", lambda *_: False)
    lengths, heads = [9, 1, short.LONGEST, 33, 16], 3
    layout, shape = Layout.of(lengths, [-1] * 5), Shape(heads, heads, dim, 0.3, False, 0, dropout)

    def ours(wide: Tensor) -> Tensor:
        out = attend(*wide.split(heads * dim, 1), layout, shape)
        assert not out[layout.num_tokens :].any(), "filler"
        return out

    def formula(wide: Tensor) -> Tensor:
        parts = (x.view(-1, heads, dim).transpose(0, 1) for x in wide.split(heads * dim, 1))
        rows = zip(*(x[:, : layout.num_tokens].split(lengths, 1) for x in parts), strict=True)
        out = []
        for row, (q, k, v) in enumerate(rows):
            shares = (q @ k.transpose(1, 2) * shape.scale).softmax(-1)
            size = lengths[row]
            first = [(row * heads + h) << 32 for h in range(heads)]
            keep = torch.stack([kept(size * size, f, SEED, dropout).view(size, size) for f in first])
            out.append(((shares * keep if dropout else shares) @ v).transpose(0, 1).flatten(1))
        return torch.cat([*out, wide.new_zeros(5, heads * dim)])

    both(ours, formula, [torch.randn(layout.num_tokens + 5, 3 * heads * dim, dtype=dtype)], times=2)


def test_short_rows_on_any_number_of_threads() -> None:
    layout, threads = Layout.of([9, 40, 3], [-1] * 3), torch.get_num_threads()
    parts, found = torch.randn(52, 48).split(16, 1), []
    for count in (1, 2):
        torch.set_num_threads(count)
        torch.manual_seed(7)
        found.append(attend(*parts, layout, Shape(2, 2, 8, 0.3, False, 0, 0.2)))
    torch.set_num_threads(threads)
    assert torch.equal(*found)
    query = torch.randn(52, 16)
    query[2, 0] = float("nan")
    out = attend(query, *parts[1:], layout, Shape(2, 2, 8, 0.3, False, 0))
    assert out[2, :8].isnan().all()
    assert out[:2].isfinite().all()
