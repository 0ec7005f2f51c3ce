"""A micro-batch: rows (trees of segments) flattened, and which hidden states predict which tokens.

Shapes: T tokens, M loss positions, S segments, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.layout import Layout
from tunesmith.types import RowRef, Segment, TokenRow

# Rows that begin alike (an instruction, a system prompt) share those tokens when they are this share of the rows:
# less would not repay the masks that children need.
MIN_SHARED = 0.1


@dataclass
class Batch:
    """input_ids (T,) int64. Loss position m: the hidden state at flat index predict_from[m] predicts
    targets[m] with weight weights[m] > 0; it belongs to segment segment_of[m] and row row_of[m].
    Several completions of one prompt share the prompt's last hidden state, so predict_from may repeat.
    token_types (T,): 1 in the second text of a pair, 0 elsewhere; None where no row is a pair. shared: tokens with
    which every row begins and that stand only once, at the start. All on the CPU, but for what `to` gives."""

    input_ids: Tensor
    layout: Layout
    predict_from: Tensor
    targets: Tensor
    weights: Tensor
    segment_of: Tensor
    row_of: Tensor
    rows: tuple[TokenRow, ...]
    token_types: Tensor | None = None
    shared: int = 0

    def to(self, device: torch.device) -> Batch:
        """The same with all that a forward pass reads on the device."""
        if device == self.input_ids.device:
            return self
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {n: x.to(device) for n, x in parts.items() if isinstance(x, Tensor | Layout)}
        return replace(self, **moved)

    @cached_property
    def completions(self) -> list[int]:
        """(C,) the segments that are completions of the rows, row by row."""
        first = np.cumsum([int(self.shared > 0), *(len(row.segments) for row in self.rows)]).tolist()
        return [start + i for start, row in zip(first, self.rows, strict=False) for i in row.completions]

    @cached_property
    def completions_of_rows(self) -> list[int]:
        """(R,) how many completions each row has."""
        return [len(row.completions) for row in self.rows]

    @cached_property
    def completion_of(self) -> Tensor:
        """(M,) the completion that each loss position belongs to; a supervised token of a prompt has none."""
        number = torch.full((len(self.layout.parents),), -1)
        number[self.completions] = torch.arange(len(self.completions))
        return number[self.segment_of]

    def after_completions(self) -> Batch:
        """The same tokens, with the state after the last of each completion as (C,) loss positions. Their targets, that
        last token, mean nothing."""
        ends = torch.tensor([self.layout.offsets[segment + 1] - 1 for segment in self.completions])
        return replace(
            self,
            predict_from=ends,
            targets=self.input_ids[ends],
            weights=torch.ones(len(ends)),
            segment_of=torch.tensor(self.completions),
            row_of=torch.arange(len(self.rows)).repeat_interleave(torch.tensor(self.completions_of_rows)),
        )

    def given(self, name: str) -> Tensor:
        """What the rows carry under this name, one after another."""
        return torch.from_numpy(np.concatenate([row.given[name] for row in self.rows]))

    @property
    def refs(self) -> tuple[RowRef, ...]:
        return tuple(row.ref for row in self.rows)

    @property
    def num_tokens(self) -> int:
        """Of the rows, each counted whole; `layout.num_tokens` are computed, fewer where rows begin alike."""
        return sum(row.num_tokens for row in self.rows)

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    @classmethod
    def from_rows(cls, rows: Sequence[TokenRow], *, share: bool = True) -> Batch:
        """share: compute what rows begin with alike once, where it pays."""
        ids: list[np.ndarray] = []
        weights: list[np.ndarray] = []
        parents: list[int] = []
        row_of_segment: list[int] = []
        shared = num_shared(rows) if share else 0
        if shared:
            ids.append(rows[0].segments[0].ids[:shared])
            weights.append(rows[0].segments[0].weights[:shared])
            parents.append(-1)
            row_of_segment.append(0)
        for index, row in enumerate(rows):
            base = len(parents)
            for segment in row.segments:
                start = shared if segment.parent < 0 else 0
                ids.append(segment.ids[start:])
                weights.append(segment.weights[start:])
                parents.append(base + segment.parent if segment.parent >= 0 else 0 if shared else -1)
                row_of_segment.append(index)
        layout = Layout.of([len(i) for i in ids], parents)
        flat_weights = torch.from_numpy(np.concatenate(weights).astype(np.float32))
        input_ids = torch.from_numpy(np.concatenate(ids).astype(np.int64))
        before = _predecessors(layout)
        supervised = torch.nonzero(flat_weights > 0)[:, 0]
        assert bool((before[supervised] >= 0).all()), "the first token of a root has nothing to predict it"
        lengths = torch.tensor([layout.length(s) for s in range(len(parents))])
        segments = torch.arange(len(parents)).repeat_interleave(lengths)[supervised]
        return cls(
            input_ids=input_ids,
            layout=layout,
            predict_from=before[supervised],
            targets=input_ids[supervised],
            weights=flat_weights[supervised],
            segment_of=segments,
            row_of=torch.tensor(row_of_segment)[segments],
            rows=tuple(rows),
            token_types=_token_types(rows),
            shared=shared,
        )


def num_shared(rows: Sequence[TokenRow]) -> int:
    """Unsupervised tokens with which every row begins, if they are worth sharing; each root keeps one of its own.

    Not of rows that are to stay alone.
    """
    if any(row.alone for row in rows):
        return 0
    roots = [row.segments[0] for row in rows]
    shortest = min(map(_bare, roots))
    same = (np.stack([root.ids[:shortest] for root in roots]) == roots[0].ids[:shortest]).all(0)
    shared = shortest if same.all() else int(same.argmin())
    worth = len(rows) > 1 and shared * len(rows) >= MIN_SHARED * sum(row.num_tokens for row in rows)
    return shared if worth else 0


def _token_types(rows: Sequence[TokenRow]) -> Tensor | None:
    if all(row.second is None for row in rows):
        return None
    types = [
        np.arange(len(segment.ids)) >= (len(segment.ids) if row.second is None else row.second)
        for row in rows
        for segment in row.segments
    ]
    return torch.from_numpy(np.concatenate(types).astype(np.int64))


def _bare(root: Segment) -> int:
    """Unsupervised tokens at its start, but never all of it."""
    supervised = root.weights > 0
    start = int(supervised.argmax()) if supervised.any() else len(root.ids)
    return min(start, len(root.ids) - 1)


def _predecessors(layout: Layout) -> Tensor:
    """(T,) the flat index of the token before each, through the parent; -1 at the start of a root."""
    before = torch.arange(layout.num_tokens) - 1
    for segment, parent in enumerate(layout.parents):
        before[layout.offsets[segment]] = -1 if parent < 0 else layout.offsets[parent + 1] - 1
    return before


@dataclass
class PaddedBatch:
    """The same micro-batch as one padded root-to-leaf row a completion, for stock attention.

    input_ids, attention_mask: (B, L), padded on the right. Loss position m stands at (row[m], column[m]), token t
    of the flat batch at (row_of_token[t], layout.positions[t]).
    """

    input_ids: Tensor
    attention_mask: Tensor
    row: Tensor
    column: Tensor
    row_of_token: Tensor

    @classmethod
    def of(cls, batch: Batch) -> PaddedBatch:
        layout = batch.layout
        leaves = layout.leaves()
        paths = [layout.path_tokens(leaf) for leaf in leaves]
        width = max(len(p) for p in paths)
        index = torch.zeros(len(paths), width, dtype=torch.long)
        attention_mask = torch.zeros(len(paths), width, dtype=torch.long)
        row_of_token = torch.empty(layout.num_tokens, dtype=torch.long)
        for row in range(len(paths) - 1, -1, -1):  # a shared token belongs to its first row
            path = paths[row]
            index[row, : len(path)] = path
            attention_mask[row, : len(path)] = 1
            row_of_token[path] = row
        # The row of the *target* (its own completion), the column of the state before it.
        first_leaf = row_of_token[torch.tensor(layout.offsets[:-1])].to(layout.device)
        mask = attention_mask.to(layout.device)
        return cls(
            input_ids=batch.input_ids[index.to(layout.device)] * mask,
            attention_mask=mask,
            row=first_leaf[batch.segment_of],
            column=layout.positions[batch.predict_from],
            row_of_token=row_of_token.to(layout.device),
        )
