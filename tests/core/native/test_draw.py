"""Tokens drawn by inverse CDF, by the kernel and by PyTorch, against the formula in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper

from tests.core.native.formulas import needs_library
from tunesmith.core.native import draw as drawing
from tunesmith.core.native.draw import draw, least_logit

WAYS = [pytest.param(True, marks=needs_library, id="kernel"), pytest.param(False, id="torch")]
EDGE = 2.0**-53


@pytest.fixture(params=WAYS)
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(drawing, "takes", lambda *tensors: False)
    return bool(request.param)


def check(logits: Tensor, uniforms: Tensor, temperature: float, least: Tensor | None) -> None:
    """Each token's piece of the running sum holds its uniform, up to rounding."""
    tokens, logps, entropies = draw(logits, uniforms, temperature, least)
    of_all = (logits.double() / temperature).log_softmax(-1)
    shares = of_all.exp()
    torch.testing.assert_close(logps.double(), of_all.gather(1, tokens[:, None])[:, 0], rtol=1e-5, atol=1e-5)
    wanted = -(shares * of_all).nan_to_num(0.0).sum(-1)
    torch.testing.assert_close(entropies.double(), wanted, rtol=1e-5, atol=1e-5)
    kept = shares if least is None else shares * (logits.float() >= least[:, None])
    assert bool((kept.gather(1, tokens[:, None]) > 0).all())
    ends = (kept.cumsum(-1) / kept.sum(-1, keepdim=True)).gather(1, tokens[:, None])[:, 0]
    begins = ends - (kept / kept.sum(-1, keepdim=True)).gather(1, tokens[:, None])[:, 0]
    assert bool(((begins - 1e-6 <= uniforms) & (uniforms <= ends + 1e-6)).all())


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 7, 512, 513, 3000])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("cut", [False, True])
def test_the_formula(dtype: torch.dtype, width: int, temperature: float, cut: bool) -> None:
    logits = (torch.randn(40, width) * 3).to(dtype)
    uniforms = torch.rand(40, dtype=torch.float64)
    uniforms[:4] = torch.tensor([0.0, EDGE, 1 - EDGE, 0.5], dtype=torch.float64)
    check(logits, uniforms, temperature, logits.float().quantile(0.9, dim=1) if cut else None)


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize("place", [0, 511, 512, 1300])
def test_tokens_without_a_share_are_never_drawn(place: int) -> None:
    """All others have -inf, or logits so low that float32 has no share for them."""
    uniforms = torch.tensor([0.0, 0.5, 1 - EDGE], dtype=torch.float64)
    for other in (-math.inf, -1e4):
        logits = torch.full((3, 1301), other)
        logits[:, place] = 2.0
        tokens, logps, entropies = draw(logits, uniforms, 1.0, None)
        assert tokens.tolist() == [place] * 3
        assert logps.tolist() == entropies.tolist() == [0.0] * 3


@pytest.mark.usefixtures("by")
def test_what_is_no_number_shows() -> None:
    logits = torch.randn(3, 900)
    logits[1, 600] = torch.nan
    logits[2] = -torch.inf
    tokens, logps, _ = draw(logits, torch.rand(3).double(), 1.0, None)
    assert logps.isnan().tolist() == [False, True, True]
    assert bool(((tokens >= 0) & (tokens < 900)).all())


@pytest.mark.usefixtures("by")
def test_many_draws_of_one_row_have_its_shares() -> None:
    logits = torch.randn(1, 1000) * 2
    uniforms = (torch.arange(100_000).double() + 0.5) / 100_000
    tokens = torch.cat([draw(logits.expand(1000, -1), part, 0.7, None)[0] for part in uniforms.split(1000)])
    counts = tokens.bincount(minlength=1000) / 100_000
    assert (
        counts - (logits[0].double() / 0.7).softmax(-1)
    ).abs().max() < 1.1e-5  # an even grid: one in 100,000


CUTS = [
    (1, 1.0),
    (5, 1.0),
    (None, 0.3),
    (None, 0.95),
    (None, 1e-6),
    (None, 0.99),
    (40, 0.8),
    (2999, 0.5),
    (5000, 0.99),
]


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize(("top_k", "top_p"), CUTS)
@pytest.mark.parametrize("temperature", [0.1, 1.0, 30.0])
def test_the_tokens_allowed_are_those_of_transformers(
    top_k: int | None, top_p: float, temperature: float
) -> None:
    logits = torch.randn(30, 3000) * 3
    scores, ids = logits.double() / temperature, torch.empty(0)
    if top_k is not None:
        scores = TopKLogitsWarper(top_k)(ids, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(ids, scores)
    least = least_logit(logits, temperature, top_k, top_p)
    assert least is not None
    assert torch.equal(logits >= least[:, None], scores.isfinite())
    check(logits, torch.rand(30, dtype=torch.float64), temperature, least)


@pytest.mark.usefixtures("by")
def test_equal_logits_are_allowed_together() -> None:
    """In bfloat16 many are equal; of a nucleus that ends among them transformers' sort decides which belong to it."""
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, -1.0]]).bfloat16()
    least = least_logit(logits, 1.0, None, 0.6)
    assert least is not None
    assert least.tolist() == [2.0]
    least = least_logit(logits, 1.0, 3, 0.999)
    assert least is not None
    assert least.tolist() == [2.0]


def test_nothing_is_cut_without_being_asked() -> None:
    assert least_logit(torch.randn(2, 5), 1.0, None, 1.0) is None
    assert least_logit(torch.randn(2, 5), 1.0, 5, 1.0) is None
