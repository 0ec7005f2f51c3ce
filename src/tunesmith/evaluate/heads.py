"""Running a model with a head on rows: what it says of each text, how sure it is, and its loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, logsumexp, softmax

from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.data.backend import one
from tunesmith.data.encode import HeadEncoder, spans_from, texts_of
from tunesmith.data.pack import pack
from tunesmith.evaluate.answers import Answers
from tunesmith.evaluate.report import Losses
from tunesmith.generate.batched import evaluating
from tunesmith.types import IGNORED, UNSEEN, Example, TokenRow

Outputs = NDArray[np.float64]
"""Of one row: (C,), (M, C) for the tokens that have a tag, or (K, H) embeddings of its texts."""

HEAD_TOKENS = 8192
"""Tokens computed at once without gradients."""


@dataclass(frozen=True)
class HeadAnswerer:
    """abstain_below: an answer whose probability is lower is left empty."""

    model: Model
    encoder: HeadEncoder
    max_length: int
    abstain_below: float = 0.0

    def answer(
        self,
        examples: Sequence[Example],
        shots: Sequence[Example] = (),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Answers:
        """In the order of the examples; `shots` are for models that read prompts, and there are none here."""
        assert not shots, "a head reads no worked examples"
        rows = [one([row]) for row in self.encoder.rows_of(examples, self.max_length)]
        return self.read(examples, self.outputs(rows, progress))

    def read(self, examples: Sequence[Example], outputs: Sequence[Outputs]) -> Answers:
        return read(self.encoder, self.max_length, examples, outputs, self.abstain_below)

    def log_odds(self, examples: Sequence[Example], label: int) -> list[float]:
        """Of each text log(p / (1 - p)), p the probability of a class by its number; where a text may have several
        classes, whether it has this one."""
        rows = [one([row]) for row in self.encoder.rows_of(examples, self.max_length)]
        logits = np.stack(self.outputs(rows))
        if self.encoder.kind == "classify_many":
            return [float(value) for value in logits[:, label]]
        others = logsumexp(np.delete(logits, label, axis=1), axis=1)
        return [float(value) for value in logits[:, label] - others]

    def outputs(
        self, rows: Sequence[TokenRow], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Outputs]:
        """What the head says of each row, in their order."""
        return _over(self.model, rows, self.model.outputs, progress)

    def features(self, rows: Sequence[TokenRow]) -> list[Outputs]:
        """The states that the head reads: (H,), or (M, H), of each row."""
        return _over(self.model, rows, self.model.features)

    def losses(self, rows: Sequence[TokenRow]) -> Losses:
        return self.losses_of(rows, self.outputs(rows))

    def losses_of(self, rows: Sequence[TokenRow], outputs: Sequence[Outputs]) -> Losses:
        """Nats a row (classes), nats summed over its tags, or squared scaled error; a class that training has
        not seen counts nothing."""
        found = [_loss(self.encoder.kind, row, out) for row, out in zip(rows, outputs, strict=True)]
        return Losses(np.array([f[0] for f in found]), np.array([f[1] for f in found], np.int64))

    def mean_loss(self, rows: Sequence[TokenRow]) -> float:
        return mean(self.losses(rows))


def mean(losses: Losses) -> float:
    return float(losses.nll.sum() / max(losses.tokens.sum(), 1))


def _over(
    model: Model,
    rows: Sequence[TokenRow],
    compute: Callable[[Batch], object],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outputs]:
    assert model.head is not None
    found: list[Outputs] = [np.zeros(0)] * len(rows)
    done = 0
    for bin_ in pack([r.num_tokens for r in rows], HEAD_TOKENS, padded=model.path == "padded"):
        batch = Batch.from_rows([rows[i] for i in bin_])
        with evaluating(model.module):
            values = compute(batch).double().numpy()  # type: ignore[attr-defined]
        counts = [COUNTS[model.head.kind](rows[i]) for i in bin_]
        for i, piece in zip(bin_, np.split(values, np.cumsum(counts)[:-1]), strict=True):
            found[i] = piece[0] if model.head.kind == "sequence" else piece
        done += len(bin_)
        progress(done, len(rows))
    return found


def _num_tagged(row: TokenRow) -> int:
    return int(np.count_nonzero(np.asarray(row.target) != IGNORED))


COUNTS: dict[str, Callable[[TokenRow], int]] = {
    "sequence": lambda row: 1,
    "token": _num_tagged,
    "embedding": lambda row: len(row.segments),
}
"""Kind of head -> how many outputs a row has."""


def _loss(kind: str, row: TokenRow, output: Outputs) -> tuple[float, int]:
    assert row.target is not None
    if kind == "regress":
        return float(((output - row.target) ** 2).sum()), len(row.target)
    if kind == "classify_many":
        return float((np.logaddexp(0, output) - row.target * output).sum()), len(row.target)
    said = row.target[row.target != IGNORED]  # one for each output, but for a class that is not known
    known = said != UNSEEN
    wanted = said[known]
    logp = log_softmax(np.atleast_2d(output)[: len(said)], axis=-1)[known]
    return float(-logp[np.arange(len(wanted)), wanted].sum()), len(wanted)


def read(
    encoder: HeadEncoder,
    max_length: int,
    examples: Sequence[Example],
    outputs: Sequence[Outputs],
    abstain_below: float = 0.0,
) -> Answers:
    """Outputs -> answers as the rows would have them, with the probability of each class where there are
    classes."""
    none = [False] * len(examples)
    if encoder.kind == "classify":
        shares = softmax(np.stack(outputs), axis=-1)
        best = shares.argmax(-1)
        texts = [
            encoder.labels[int(i)] if row[i] >= abstain_below else ""
            for i, row in zip(best, shares, strict=True)
        ]
        return Answers(texts, none, shares, shares.max(-1).tolist())
    if encoder.kind == "classify_many":
        shares = expit(np.stack(outputs))
        chosen = [sorted(encoder.labels[int(i)] for i in np.flatnonzero(row > 0.5)) for row in shares]
        sure = np.maximum(shares, 1 - shares).min(-1)
        return Answers(
            [json.dumps(names, ensure_ascii=False) for names in chosen], none, shares, sure.tolist()
        )
    if encoder.kind == "regress":
        scale = np.array(encoder.scale)
        values = np.stack(outputs) * scale[:, 1] + scale[:, 0]
        return Answers([repr(float(v[0])) if len(v) == 1 else json.dumps(v.tolist()) for v in values], none)
    said = [_spans(encoder, max_length, e, out) for e, out in zip(examples, outputs, strict=True)]
    return Answers([text for text, _ in said], none, confidence=[sure for _, sure in said])


def _spans(encoder: HeadEncoder, max_length: int, example: Example, output: Outputs) -> tuple[str, float]:
    """The spans that the tags say, and the mean probability of the tags."""
    offsets = [(a, b) for a, b in encoder.offsets(example, max_length) if a < b]
    shares = softmax(output, axis=-1)
    tags = [encoder.labels[i] for i in shares.argmax(-1)]
    spans = spans_from(tags, offsets, texts_of(example)[0])
    return json.dumps([list(span) for span in spans], ensure_ascii=False), float(shares.max(-1).mean())
