"""Greedy answers in batches, and the likelihood of given answers.

Prompts of similar length go together, padded on the left; a batch ends when every row has ended.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig

from tunesmith.core.batch import Batch
from tunesmith.core.model import Model
from tunesmith.data.pack import pack
from tunesmith.generate.slots import write
from tunesmith.types import RowRef, Segment, TokenRow


@dataclass(frozen=True)
class Generated:
    """ids: the answer's tokens, without the end token. ended: False where max_new_tokens cut it."""

    ids: list[int]
    ended: bool


@contextmanager
def evaluation_mode(module: Any) -> Iterator[None]:
    """No dropout inside; the mode before comes back. Gradients stay as they are, for a generator that yields inside."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """No gradient and no dropout inside; the mode before comes back."""
    with evaluation_mode(module), torch.no_grad():
        yield


@contextmanager
def _plainly_greedy(module: Any) -> Iterator[None]:
    """Inside, the model's own generation settings (a repetition penalty, a least length ...) do not apply."""
    inner = module.get_base_model() if hasattr(module, "get_base_model") else module
    own = inner.generation_config
    inner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = own


@contextmanager
def _no_word_of_positions() -> Iterator[None]:
    """PEFT warns that prompt tuning leaves out position ids: without padding they are those that the model counts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Position ids are not supported", category=UserWarning)
        yield


def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_ids: Sequence[int],
    pad_id: int,
    batch_size: int,
) -> Iterator[tuple[int, Generated]]:
    """Yield (index of the prompt, answer) as they finish, longest prompts first; greedy.

    Models with fast layers write by slots (`tunesmith.generate.slots`), others by transformers' `generate`.
    """
    if model.writes_by_slots:
        yield from _by_slots(model, prompts, max_new_tokens, end_ids, batch_size)
        return
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    for indices in _batches(order, [len(p) for p in prompts], batch_size, alike=model.virtual_tokens > 0):
        answers = _generate_batch(model, [prompts[i] for i in indices], max_new_tokens, end_ids, pad_id)
        yield from zip(indices, answers, strict=True)


def _by_slots(
    model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int, end_ids: Sequence[int], size: int
) -> Iterator[tuple[int, Generated]]:
    with evaluation_mode(model.module):
        for index, ids, ended in write(
            model, prompts, max_new_tokens=max_new_tokens, end_ids=end_ids, num_slots=size
        ):
            yield index, Generated(ids, ended)


def _batches(
    order: Sequence[int], lengths: Sequence[int], size: int, *, alike: bool
) -> Iterator[Sequence[int]]:
    """The order in pieces of `size`; alike: of one length each, for padding would come between learned tokens before a
    row and the row."""
    start = 0
    while start < len(order):
        end = min(start + size, len(order))
        while alike and lengths[order[end - 1]] != lengths[order[start]]:
            end -= 1
        yield order[start:end]
        start = end


def _generate_batch(
    model: Model, prompts: list[Sequence[int]], max_new_tokens: int, end_ids: Sequence[int], pad_id: int
) -> list[Generated]:
    width = max(len(p) for p in prompts)
    input_ids = torch.full((len(prompts), width), pad_id)
    attention_mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        # On the left: an answer goes on where its prompt ends. An encoder reads sources that begin at position 0.
        start = width - len(prompt) if model.start_id is None else 0
        input_ids[row, start : start + len(prompt)] = torch.tensor(prompt)
        attention_mask[row, start : start + len(prompt)] = 1
    begin = {} if model.start_id is None else {"decoder_start_token_id": model.start_id}
    with evaluating(model.module), _plainly_greedy(model.module), _no_word_of_positions():
        output = model.module.generate(
            input_ids=input_ids.to(model.device),
            attention_mask=attention_mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=list(end_ids),
            pad_token_id=pad_id,
            use_cache=True,
            **begin,
        )
    width = width if model.start_id is None else 1  # what stands before the answer
    ends = set(end_ids)
    answers = []
    for row in output[:, width:].tolist():
        stop = next((i for i, token in enumerate(row) if token in ends), None)
        answers.append(Generated(row if stop is None else row[:stop], stop is not None))
    return answers


def label_logps(
    model: Model, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], budget: int
) -> np.ndarray:
    """(N prompts, K labels) float64: the summed log-probability of each label's tokens after each prompt.

    Each prompt is computed once for all labels: its row is a tree with one completion a label.
    """
    scores = np.zeros((len(prompts), len(labels)))
    rows = [_tree(prompt, labels, index) for index, prompt in enumerate(prompts)]
    is_padded = model.path == "padded"  # there the prompt is computed again for each label
    longest = max(len(label) for label in labels)
    costs = [
        len(labels) * (len(p) + longest) if is_padded else r.num_tokens
        for p, r in zip(prompts, rows, strict=True)
    ]
    for bin_ in pack(costs, budget, padded=is_padded):
        batch = Batch.from_rows([rows[i] for i in bin_])
        with evaluating(model.module):
            logps = -model.nll(batch)[1].double()
        sums = torch.zeros(len(batch.layout.parents), dtype=torch.float64).index_add(
            0, batch.segment_of, logps
        )
        own = sums[-len(bin_) * (1 + len(labels)) :]  # a beginning that all rows share stands before them
        per_row = own.view(len(bin_), 1 + len(labels))[:, 1:]
        scores[bin_] = per_row.numpy()
    return scores


def _tree(prompt: Sequence[int], labels: Sequence[Sequence[int]], index: int) -> TokenRow:
    root = Segment(np.array(prompt, dtype=np.int64), np.zeros(len(prompt), dtype=np.float32))
    leaves = [
        Segment(np.array(label, dtype=np.int64), np.ones(len(label), dtype=np.float32), 0) for label in labels
    ]
    return TokenRow(RowRef("prompt", index), (root, *leaves))


def nll(model: Model, rows: Sequence[TokenRow], budget: int) -> tuple[np.ndarray, np.ndarray]:
    """((N,), (N,)) float64: each row's summed weighted negative log-likelihood, and its summed weights."""
    totals, weights = np.zeros(len(rows)), np.zeros(len(rows))
    for bin_ in pack([r.num_tokens for r in rows], budget, padded=model.path == "padded"):
        batch = Batch.from_rows([rows[i] for i in bin_])
        with evaluating(model.module):
            losses = model.nll(batch)[1].double() * batch.weights
        zero = torch.zeros(len(bin_), dtype=torch.float64)
        totals[bin_] = zero.index_add(0, batch.row_of, losses).numpy()
        weights[bin_] = zero.index_add(0, batch.row_of, batch.weights.double()).numpy()
    return totals, weights


Numbers = NDArray[np.float64]
"""(K,) or (K, H): of a row's completions."""
Told = Callable[[int, int], None]


def untold(done: int, total: int) -> None:
    """For work that nobody watches."""


def of_completions(
    model: Model,
    rows: Sequence[TokenRow],
    compute: Callable[[Batch], Tensor],
    budget: int,
    progress: Told = untold,
) -> list[Numbers]:
    """compute(batch) -> (C, ...), row by row, without gradient or dropout."""
    found: list[Numbers] = [np.zeros(0)] * len(rows)
    done = 0
    for bin_ in pack([r.num_tokens for r in rows], budget, padded=model.path == "padded"):
        batch = Batch.from_rows([rows[i] for i in bin_])
        with evaluating(model.module):
            values = compute(batch).double().numpy()
        pieces = np.split(values, np.cumsum(batch.completions_of_rows)[:-1])
        for i, piece in zip(bin_, pieces, strict=True):
            found[i] = piece
        done += len(bin_)
        progress(done, len(rows))
    return found


def completion_sums(
    model: Model, rows: Sequence[TokenRow], budget: int, progress: Told = untold
) -> list[Numbers]:
    """Of each row (K,): the summed log-probability of each of its completions, in nats."""

    def sums(batch: Batch) -> Tensor:
        losses = model.token_losses(batch).double()
        return losses.new_zeros(len(batch.completions)).index_add(0, batch.completion_of, -losses)

    return of_completions(model, rows, sums, budget, progress)
