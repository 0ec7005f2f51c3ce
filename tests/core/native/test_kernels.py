"""Each kernel against its formula in float64, in float32 and bfloat16, values and gradients."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.core.native.formulas import DTYPES, both, near, needs_library
from tunesmith.core import native
from tunesmith.core.layout import BLOCK, Layout
from tunesmith.core.native import attend as attending
from tunesmith.core.native import head as heads
from tunesmith.core.native.attend import Shape, attend
from tunesmith.core.native.call import takes, takes_each
from tunesmith.core.native.head import linear_cross_entropy, linear_losses
from tunesmith.core.native.ops import embed, rms_norm, swiglu
from tunesmith.core.native.sums import product


def normed(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 8), (37, 50), (130, 576)])
def test_rms_norm(dtype: torch.dtype, rows: int, width: int) -> None:
    inputs = [torch.randn(rows, width, dtype=dtype), torch.randn(width, dtype=dtype)]
    both(lambda x, w: rms_norm(x, w, 1e-5)[0], normed, inputs)


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_adds_the_gradient_that_goes_past_it(dtype: torch.dtype) -> None:
    def ours(x: Tensor, w: Tensor) -> Tensor:
        out, past = rms_norm(x, w, 1e-5)
        return out + 3 * past

    both(
        ours,
        lambda x, w: normed(x, w) + 3 * x,
        [torch.randn(9, 20, dtype=dtype), torch.randn(20, dtype=dtype)],
    )


@needs_library
def test_only_what_goes_past_a_norm_may_have_a_gradient() -> None:
    x = torch.randn(3, 8, requires_grad=True)
    rms_norm(x, torch.ones(8, requires_grad=True), 1e-5)[1].sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(3, 8))


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 4095, 9001])
def test_swiglu(dtype: torch.dtype, size: int) -> None:
    inputs = [4 * torch.randn(1, size, dtype=dtype), torch.randn(1, size, dtype=dtype)]
    both(swiglu, lambda g, u: g * g.sigmoid() * u, inputs)


@needs_library
def test_swiglu_far_from_zero() -> None:
    gate = torch.tensor([[-1000.0, -90.0, -20.0, 0.0, 20.0, 1000.0]])
    assert torch.allclose(swiglu(gate, torch.ones_like(gate)), gate * gate.sigmoid(), atol=1e-30, rtol=1e-6)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (T, H, D); the halves of a head are paired."""
    first, second = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    shape: Shape,
    rotary: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """One token and one head at a time."""
    q = query.view(len(query), shape.heads, shape.dim)
    k, v = (x.view(len(x), shape.key_heads, shape.dim) for x in (key, value))
    if rotary is not None:
        q, k = (turned(x, *(r.double() for r in rotary)) for x in (q, k))
    k, v = (x.repeat_interleave(shape.heads // shape.key_heads, 1) for x in (k, v))
    out = [torch.zeros(shape.heads * shape.dim, dtype=q.dtype)] * len(query)
    for segment in range(len(layout.parents)):
        path = layout.path_tokens(segment)
        for token in range(layout.offsets[segment], layout.offsets[segment + 1]):
            at = int(layout.positions[token])
            far = (torch.arange(len(path)) - at).abs() >= (shape.window or len(path))
            hidden = far | ((torch.arange(len(path)) > at) & shape.causal)
            scores = torch.einsum("hd,khd->hk", q[token], k[path]) * shape.scale
            shares = scores.masked_fill(hidden, float("-inf")).softmax(-1)
            out[token] = torch.einsum("hk,khd->hd", shares, v[path]).flatten()
    return torch.stack(out)


LAYOUTS = {
    "rows": ([9, 3, 1, 7], [-1, -1, -1, -1]),
    "prompts and completions": ([6, 5, 7, 9, 3, 2], [-1, 0, 0, -1, 1, 3]),
    "longer than a block": ([BLOCK + 40, 30, 5], [-1, 0, -1]),
}


@needs_library
@pytest.mark.parametrize(
    ("dtype", "dim"), [(torch.float32, 8), (torch.bfloat16, 8), (torch.bfloat16, 64)]
)  # heads of 64 by tiles, where the processor has them
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize(
    ("heads", "key_heads", "causal", "window"),
    [(4, 2, True, 0), (3, 3, True, 4), (2, 1, False, 0), (2, 2, False, 3)],
)
def test_attention(
    dtype: torch.dtype, dim: int, name: str, rotated: bool, heads: int, key_heads: int, causal: bool, window: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lengths, parents = LAYOUTS[name]
    if not causal and max(parents) >= 0:
        parents = [-1] * len(parents)
    monkeypatch.setattr(attending, "KEPT", 8)  # so that some shares are kept and some computed again
    layout, scale = Layout.of(lengths, parents), 0.3 if dim == 8 else 0.1
    shape = Shape(heads, key_heads, dim, scale, causal, window)
    rotary = (torch.randn(layout.num_tokens, dim), torch.randn(layout.num_tokens, dim)) if rotated else None
    widths = (heads * dim, key_heads * dim, key_heads * dim)
    both(
        lambda q, k, v: attend(q, k, v, layout, shape, rotary),
        lambda q, k, v: attention(q, k, v, layout, shape, rotary),
        [torch.randn(layout.num_tokens, width, dtype=dtype) for width in widths],
        times=4,
    )


@needs_library
@pytest.mark.parametrize(("dtype", "dim"), [(torch.float32, 8), (torch.bfloat16, 32)])
def test_attention_takes_parts_of_wider_rows_and_leaves_filler_zero(dtype: torch.dtype, dim: int) -> None:
    layout, shape = Layout.of([5, 4], [-1, 0]), Shape(2, 2, dim, 0.3, True, 0)
    wide = torch.randn(12, 6 * dim, dtype=dtype)
    parts = wide.split(2 * dim, 1)
    out = attend(*parts, layout, shape)
    assert torch.equal(out, attend(*(p.contiguous() for p in parts), layout, shape))
    assert not out[9:].any()
    apart = [p.contiguous().requires_grad_() for p in parts]
    attend(*apart, layout, shape).sum().backward()
    assert all(p.grad is not None and not p.grad[9:].any() for p in apart)


@needs_library
def test_threads_change_no_bit_of_attention() -> None:
    before = torch.get_num_threads()
    layout, shape = Layout.of([300, 20, 30, 50], [-1, 0, 0, -1]), Shape(4, 2, 32, 0.2, True, 0)
    inputs = [torch.randn(layout.num_tokens, width).bfloat16() for width in (128, 64, 64)]
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            mine = [x.clone().requires_grad_() for x in inputs]
            out = attend(*mine, layout, shape)
            out.square().sum().backward()
            found.append([out.detach(), *(x.grad for x in mine if x.grad is not None)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@needs_library
@pytest.mark.parametrize(("dtype", "dim"), [(torch.float32, 8), (torch.bfloat16, 32)])
def test_a_number_that_is_not_finite_is_not_hidden_by_attention(dtype: torch.dtype, dim: int) -> None:
    layout, shape = Layout.of([4], [-1]), Shape(1, 1, dim, 0.3, True, 0)
    query, key, value = torch.randn(3, 4, dim, dtype=dtype)
    query[2, 0] = float("nan")
    out = attend(query, key, value, layout, shape)
    assert out[2].isnan().all()
    assert out[:2].isfinite().all()


@needs_library
def test_a_number_that_is_not_finite_is_not_hidden() -> None:
    states = torch.randn(3, 8)
    states[1, 1] = float("inf")
    _, losses, _ = linear_cross_entropy(states, torch.randn(5, 8), torch.tensor([0, 1, 2]), torch.ones(3))
    assert not losses[1].isfinite()
    assert losses[[0, 2]].isfinite().all()
    assert not swiglu(torch.tensor([[float("nan")]]), torch.ones(1, 1)).isfinite().any()


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [4, 1000])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_head_and_its_cross_entropy(
    dtype: torch.dtype, smoothing: float, chunk: int, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "CHUNK", chunk)
    states, weight = torch.randn(11, 16, dtype=dtype), torch.randn(37, 16, dtype=dtype)
    targets, weights = torch.randint(37, (11,)), torch.rand(11)
    mine = states.clone().requires_grad_(), weight.clone().requires_grad_(not frozen)
    total, losses, best = linear_cross_entropy(*mine, targets, weights, smoothing)
    exact = states.double().requires_grad_(), weight.double().requires_grad_()
    logits = exact[0] @ exact[1].t()
    wanted = torch.nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    near(losses, wanted.detach(), 1 if dtype == torch.float32 else 1e4)
    assert not losses.requires_grad
    assert torch.equal(logits.gather(1, best[:, None])[:, 0], logits.max(1).values) or dtype == torch.bfloat16
    (total / 7).backward()
    ((wanted * weights).sum() / 7).backward()
    for got, exactly in zip(mine, exact, strict=True):
        assert (got.grad is None) == (not got.requires_grad)
        if got.grad is not None:
            assert exactly.grad is not None
            near(got.grad, exactly.grad)


@needs_library
def test_a_second_way_back_through_the_head_is_refused() -> None:
    """Its gradient is scaled where it lies: twice would be a wrong number."""
    states, weight = torch.randn(4, 8, requires_grad=True), torch.randn(9, 8, requires_grad=True)
    total, _, _ = linear_cross_entropy(states, weight, torch.randint(9, (4,)), torch.ones(4))
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward pass"):
        total.backward()


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", [None, 3])
def test_embeddings_have_a_gradient_of_the_rows_that_there_were(
    dtype: torch.dtype, padding: int | None
) -> None:
    ids = torch.tensor([[3, 5, 3], [8, 8, 8]])
    mine, exact = torch.randn(11, 16, dtype=dtype), torch.randn(11, 16, dtype=torch.float64)
    mine.requires_grad_(), exact.data.copy_(mine.data), exact.requires_grad_()
    upstream = torch.randn(2, 3, 16, dtype=dtype)
    out = embed(ids, mine, padding)
    assert torch.equal(out, mine.detach()[ids])
    out.backward(upstream)
    torch.nn.functional.embedding(ids, exact, padding).backward(upstream.double())
    assert mine.grad is not None
    assert exact.grad is not None
    assert mine.grad.coalesce().indices().tolist() == [[3, 5, 8]]
    near(mine.grad.to_dense(), exact.grad)
    with torch.no_grad():
        assert torch.equal(embed(ids, mine, padding), mine[ids])


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunk", [4, 1000])
@pytest.mark.parametrize("frozen", [False, True])
def test_each_loss_of_the_head_has_a_gradient_of_its_own(
    dtype: torch.dtype, chunk: int, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their sum may weigh them by what is known only after all of them, as preferences do."""
    monkeypatch.setattr(heads, "CHUNK", chunk)
    states, weight = torch.randn(11, 16, dtype=dtype), torch.randn(37, 16, dtype=dtype)
    targets = torch.randint(37, (11,))
    mine = states.clone().requires_grad_(), weight.clone().requires_grad_(not frozen)
    losses = linear_losses(*mine, targets)
    exact = states.double().requires_grad_(), weight.double().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(exact[0] @ exact[1].t(), targets, reduction="none")
    near(losses.detach(), wanted.detach(), 1 if dtype == torch.float32 else 1e4)
    for each in (losses, wanted):
        (each[:5].sum() - each[5:].sum()).square().backward()
    for got, exactly in zip(mine, exact, strict=True):
        assert (got.grad is None) == (not got.requires_grad)
        if got.grad is not None:
            assert exactly.grad is not None
            near(got.grad, exactly.grad, 1 if dtype == torch.float32 else 2)


@needs_library
@pytest.mark.parametrize("chunk, rows", [(4, [3, 4, 4, 3, 4]), (11, [11]), (1000, [11])])
def test_the_logits_of_the_last_chunk_are_computed_once_and_it_is_whole(
    chunk: int, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is more than one chunk, only the rest is computed twice."""
    calls: list[int] = []
    cross_entropy = heads._cross_entropy
    monkeypatch.setattr(heads, "_cross_entropy", lambda *a: (calls.append(len(a[0])), cross_entropy(*a)))
    monkeypatch.setattr(heads, "CHUNK", chunk)
    states, weight = torch.randn(11, 16), torch.randn(37, 16, requires_grad=True)
    linear_losses(states, weight, torch.randint(37, (11,))).square().sum().backward()
    assert calls == rows


@needs_library
def test_the_head_makes_no_gradient_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight that is trained says so outside training too: its gradient would take two thirds of the time."""
    outs: list[tuple[int, ...]] = []

    def counted(left: Tensor, right: Tensor) -> Tensor:
        outs.append((len(left), right.shape[1]))
        return product(left, right)

    monkeypatch.setattr(heads, "fill", lambda *sums: outs.extend(tuple(one.out.shape) for one in sums))
    monkeypatch.setattr(heads, "product", counted)
    states, weight = torch.randn(4, 8), torch.randn(9, 8, requires_grad=True)
    targets, weights = torch.randint(9, (4,)), torch.ones(4)
    with torch.no_grad():
        total, losses, _ = linear_cross_entropy(states, weight, targets, weights)
    wanted = torch.nn.functional.cross_entropy(states @ weight.detach().t(), targets, reduction="none")
    near(losses, wanted.double())
    assert outs == [(4, 9)], "the logits alone"
    assert not total.requires_grad


def test_what_the_kernels_take() -> None:
    assert not takes(torch.zeros(1, dtype=torch.float64))
    assert not takes(torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16))
    assert takes(torch.zeros(1), torch.zeros(1)) == (native.library() is not None)
    assert not takes_each(torch.zeros(1), torch.zeros(1, dtype=torch.float64))
    assert takes_each(torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)) == (native.library() is not None)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TUNESMITH_NATIVE": "0"}, "TUNESMITH_NATIVE=0"),
        ({"PATH": ""}, "no C++ compiler (g++ or clang++) was found"),
        ({"CXX": "/nowhere/g++"}, "could not be used"),
        ({"CXX": "/bin/false"}, "/bin/false failed"),
    ],
)
def test_without_a_compiler_it_is_said(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CXX", "TUNESMITH_NATIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    native._load.cache_clear()
    try:
        assert native.library() is None
        assert said in native.why_not()
    finally:
        native._load.cache_clear()


def test_processes_that_start_together_compile_once(tmp_path: Path) -> None:
    """A lock of the file, which threads hold as processes do."""
    compiler = tmp_path / "slow"
    compiler.write_text(
        '#!/bin/sh\necho called >> "$0.log"\nsleep 0.3\n'
        'while [ "$1" != -o ]; do shift; done\necho built > "$2"\n'
    )
    compiler.chmod(0o755)
    library = tmp_path / "cache" / "kernels.so"
    library.parent.mkdir()
    with ThreadPoolExecutor(3) as together:
        list(together.map(lambda _: native._compile_once(str(compiler), library), range(3)))
    assert library.read_text() == "built\n"
    assert Path(f"{compiler}.log").read_text() == "called\n" * (len(native.SOURCES) + 1)
