"""NEFTune (arXiv:2310.05914): uniform noise on the token embeddings while a model is trained.

A token's embedding e (d,) becomes e + alpha / sqrt(L d) u, u uniform in [-1, 1]. L counts the tokens of its own row: of
the longest path from the root to a leaf that it lies on, where a row is a tree. (The paper's own code takes the padded
length of the micro-batch.) A prompt that several completions of a row share has one noise, on every path alike.

u is drawn from (seed, line of the row, its tokens), so it is the same however a step is split into micro-batches and
whichever path the rows take; not from the file's name, which a resumed run may have changed. The same row twice in a
step has the same noise twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from tunesmith.core.batch import Batch
from tunesmith.core.layout import Layout
from tunesmith.errors import ModelError
from tunesmith.types import TokenRow


@dataclass(frozen=True)
class EmbeddingNoise:
    """seed: of the step, 0 <= seed < 2**63."""

    alpha: float
    seed: int

    def of(self, row: TokenRow, width: int) -> Tensor:
        """(n, d) float32: what is added to the embeddings of the row's tokens, its segments one after another."""
        digest = hashlib.blake2b(f"{self.seed} {row.ref.line}".encode(), digest_size=8)
        for segment in row.segments:
            digest.update(segment.ids.tobytes())
        generator = torch.Generator().manual_seed(int.from_bytes(digest.digest()) >> 1)
        noise = torch.empty(row.num_tokens, width).uniform_(-1, 1, generator=generator)
        lengths = torch.tensor([len(s.ids) for s in row.segments])
        paths = torch.tensor(_longest_paths(row)).repeat_interleave(lengths)
        return noise * (self.alpha / (paths * width).sqrt())[:, None]

    @contextmanager
    def on(self, embedding: nn.Module, batch: Batch, places: Tensor) -> Iterator[None]:
        """The embedding's next output carries the noise. places (B, L): index of the flat token at each place, or -1.

        Raises ModelError unless the embedding runs exactly once inside.
        """
        assert batch.layout.num_tokens == batch.num_tokens, "rows with noise share no beginning"
        calls = 0

        def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            flat = torch.cat([self.of(row, output.shape[-1]) for row in batch.rows])
            return output + functional.pad(flat, (0, 0, 0, 1))[places].to(output)  # -1: the row of zeros

        handle = embedding.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()
        if calls != 1:
            raise ModelError(
                f"the token embeddings ran {calls} times in one pass",
                "once, so that train.neftune_alpha can add its noise there",
                "leave train.neftune_alpha out",
            )


def flat_places(layout: Layout, filled: int) -> Tensor:
    """(1, filled): the flat tokens in their order, then -1."""
    return functional.pad(torch.arange(layout.num_tokens), (0, filled - layout.num_tokens), value=-1)[None]


def padded_places(layout: Layout) -> Tensor:
    """(B, L): a root-to-leaf row for each leaf, as `PaddedBatch` has them, then -1."""
    paths = [layout.path_tokens(leaf) for leaf in layout.leaves()]
    return pad_sequence(paths, batch_first=True, padding_value=-1)


def _longest_paths(row: TokenRow) -> list[int]:
    """For each segment the tokens of the longest root-to-leaf path through it."""
    depth: list[int] = []
    for segment in row.segments:
        depth.append((depth[segment.parent] if segment.parent >= 0 else 0) + len(segment.ids))
    longest = list(depth)
    for index in range(len(row.segments) - 1, -1, -1):  # children come after their parent
        parent = row.segments[index].parent
        if parent >= 0:
            longest[parent] = max(longest[parent], longest[index])
    return longest
