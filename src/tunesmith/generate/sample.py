"""Answers drawn from a model's distribution, with what it said of each token.

A token is drawn by inverse CDF with one number of Philox (Salmon et al., SC 2011) that is keyed by the seed, the
prompt's stream, the sample and the token's place: what is drawn depends neither on which rows share a batch nor on the
order or the number of slots, up to rounding of the logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunesmith.core.model import Model
from tunesmith.core.native.draw import draw, least_logit
from tunesmith.errors import ConfigError, ModelError, NonFiniteError
from tunesmith.generate.batched import evaluation_mode
from tunesmith.generate.cached import write_by_cache
from tunesmith.generate.slots import Row, write_rows


@dataclass(frozen=True)
class Sampling:
    """Tokens are drawn from softmax(logits / temperature): of the top_k likeliest, of these from the fewest that make
    up a share of top_p."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            fix = "set a temperature above 0; the likeliest token each time is what `generate` writes"
            raise ConfigError(f"temperature {self.temperature}", "a number above 0", fix)
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p {self.top_p}", "above 0, up to 1", "1 draws from all tokens")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k {self.top_k}", "at least 1", "leave top_k out to draw from all tokens")


@dataclass(frozen=True)
class Sample:
    """ids: the tokens drawn, with the end token where one ended it (`ended`). logps, entropies (len(ids),): of each
    token's distribution, softmax(logits / temperature) before top_k and top_p, in nats; no entropies where the writer
    does not say them."""

    ids: list[int]
    ended: bool
    logps: NDArray[np.float32]
    entropies: NDArray[np.float32] | None


class Sampler(Protocol):
    """Who writes answers: `count` to each prompt, as `sample` yields them. seed, streams: what decides the draws."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], count: int, seed: int, streams: Sequence[int] | None = None
    ) -> Iterator[tuple[int, int, Sample]]: ...


@dataclass(frozen=True)
class OwnSampler:
    """By `sample`, here. num_slots: answers that are written at the same time."""

    model: Model
    sampling: Sampling
    max_new_tokens: int
    end_ids: Sequence[int]
    pad_id: int
    num_slots: int

    def __call__(
        self, prompts: Sequence[Sequence[int]], count: int, seed: int, streams: Sequence[int] | None = None
    ) -> Iterator[tuple[int, int, Sample]]:
        return sample(
            self.model,
            prompts,
            count=count,
            sampling=self.sampling,
            seed=seed,
            max_new_tokens=self.max_new_tokens,
            end_ids=self.end_ids,
            pad_id=self.pad_id,
            num_slots=self.num_slots,
            streams=streams,
        )


def sample(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    count: int,
    sampling: Sampling,
    seed: int,
    max_new_tokens: int,
    end_ids: Sequence[int],
    pad_id: int,
    num_slots: int,
    streams: Sequence[int] | None = None,
) -> Iterator[tuple[int, int, Sample]]:
    """Yield (index of the prompt, number of the sample, sample) as they finish, `count` of each prompt, longest prompts
    first. Each prompt is computed once for all its samples.

    streams: a number for each prompt that decides with the seed what is drawn, by default its index; all of them and
    the seed in [0, 2**64). num_slots: rows that are written at the same time.

    Raises ModelError for encoder-decoder models and those with learned tokens before each row (prompt and prefix
    tuning), NonFiniteError where logits are not numbers.
    """
    refuse(model)
    draws = _Draws(sampling, seed, range(len(prompts)) if streams is None else streams, max_new_tokens)
    limits = [max_new_tokens] * len(prompts)
    with evaluation_mode(model.module):
        if model.writes_by_slots:
            rows = write_rows(model, prompts, count, limits, end_ids, num_slots, draws)
        else:
            rows = write_by_cache(model, prompts, count, limits, end_ids, pad_id, num_slots, draws)
        for row, ended in rows:
            yield row.prompt, row.sample, draws.finished(row, ended)


def refuse(model: Model) -> None:
    """Raises ModelError where `sample` would."""
    if model.start_id is not None:
        raise ModelError("sampling from an encoder-decoder model", "a decoder", "choose another model")
    if model.virtual_tokens:
        raise ModelError(
            f"sampling from a model with {model.virtual_tokens} learned tokens before each row",
            "a model without prompt or prefix tuning",
            "choose another tuning, such as lora",
        )


@dataclass
class _Drawn:
    """What a row's tokens are drawn with (max_new_tokens,), and what was said of those it has."""

    uniforms: NDArray[np.float64]
    logps: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)


class _Draws:
    """Chooses the tokens of rows; remembers of each what its sample will tell until it is finished."""

    def __init__(self, sampling: Sampling, seed: int, streams: Sequence[int], longest: int) -> None:
        self.sampling, self.seed, self.streams, self.longest = sampling, seed, streams, longest
        self.rows: dict[tuple[int, int], _Drawn] = {}

    def __call__(self, logits: Tensor, rows: Sequence[Row]) -> list[int]:
        own, logits = [self._of(row) for row in rows], logits.cpu()
        values = [o.uniforms[len(r.ids)] for o, r in zip(own, rows, strict=True)]
        uniforms = torch.tensor(values, dtype=torch.float64)
        temperature = self.sampling.temperature
        least = least_logit(logits, temperature, self.sampling.top_k, self.sampling.top_p)
        tokens, logps, entropies = draw(logits, uniforms, temperature, least)
        found = zip(own, rows, logps.tolist(), entropies.tolist(), strict=True)
        for drawn, row, logp, entropy in found:
            if not np.isfinite(logp):
                raise NonFiniteError(
                    f"logits that are no numbers at token {len(row.ids)} of sample {row.sample} of prompt {row.prompt}",
                    "finite logits",
                    "train with a lower learning rate, or in float32",
                )
            drawn.logps.append(logp)
            drawn.entropies.append(entropy)
        return tokens.tolist()

    def finished(self, row: Row, ended: bool) -> Sample:
        drawn = self.rows.pop((row.prompt, row.sample))
        return Sample(
            row.ids, ended, np.array(drawn.logps, np.float32), np.array(drawn.entropies, np.float32)
        )

    def _of(self, row: Row) -> _Drawn:
        key = (row.prompt, row.sample)
        if key not in self.rows:
            # The counter's first word goes up by one every four tokens; its second tells the samples apart.
            words = np.array([self.seed, self.streams[row.prompt]], np.uint64)
            numbers = np.random.Philox(key=words, counter=np.array([0, row.sample, 0, 0], np.uint64))
            self.rows[key] = _Drawn(np.random.Generator(numbers).random(self.longest))
        return self.rows[key]
