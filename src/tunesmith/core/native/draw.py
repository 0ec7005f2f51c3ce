"""A token drawn from each row of logits by inverse CDF, and what the distribution that it came from says of it.

Shapes: K rows, V tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith.core.native.call import call, takes


def draw(
    logits: Tensor, uniforms: Tensor, temperature: float, least: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """logits (K, V), uniforms (K,) float64 in [0, 1), least (K,) from `least_logit` -> tokens, logps, entropies (K,).

    Tokens are drawn from softmax(logits / temperature) over those whose logit is at least `least`; log-probabilities
    and entropies (nats) are of softmax(logits / temperature) over all, in float32 or better. The running sum goes over
    tokens in their order, so a number draws the same token whatever else stands in the batch. A row that holds a NaN
    has NaN for its log-probability.
    """
    if takes(logits):
        tokens, (logps, entropies) = torch.empty(len(logits), dtype=torch.long), torch.empty(2, len(logits))
        out = (tokens, logps, entropies)
        call("draw", logits.dtype, logits.contiguous(), uniforms, least, *out, *logits.shape, 1 / temperature)
        return out
    of_all = (_wide(logits) / temperature).log_softmax(-1)
    shares = of_all.exp()
    finite = of_all.clamp_min(torch.finfo(of_all.dtype).min)  # 0 times -inf would be NaN
    entropies = -(shares * finite).sum(-1)
    kept = shares if least is None else shares.where(_wide(logits) >= least[:, None], 0)
    sums = kept.double().cumsum(-1)
    targets = uniforms * sums[:, -1]
    tokens = torch.searchsorted(sums, targets[:, None], right=True).clamp_max(logits.shape[1] - 1)
    return tokens[:, 0], of_all.gather(1, tokens)[:, 0], entropies


def least_logit(logits: Tensor, temperature: float, top_k: int | None, top_p: float) -> Tensor | None:
    """(K,) the lowest logit that may be drawn; None where all may.

    First the top_k likeliest, then of these the fewest whose shares of softmax(logits / temperature) make up top_p, as
    in transformers' warpers; of equal logits all or none (there, for top_p, whichever the sort puts first).
    """
    least = None
    if top_k is not None and top_k < logits.shape[1]:
        least = _wide(logits.topk(top_k).values[:, -1]).contiguous()
    if top_p == 1:
        return least
    if takes(logits):
        least = torch.full((len(logits),), -torch.inf) if least is None else least
        call("nucleus", logits.dtype, logits.contiguous(), least, *logits.shape, 1 / temperature, top_p)
        return least
    scaled = logits.double() / temperature  # running sums of float32 err by tokens at the edge
    if least is not None:
        scaled = scaled.masked_fill(_wide(logits) < least[:, None], -torch.inf)
    shares, order = scaled.softmax(-1).sort(descending=True)
    before = (shares.cumsum(-1)[:, :-1] < top_p).sum(
        -1
    )  # as many as stand before the last one of the nucleus
    return _wide(logits).gather(1, order.gather(1, before[:, None]))[:, 0]


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
