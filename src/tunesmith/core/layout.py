"""The shared-prefix layout: the tokens of a batch lie flat, without padding, as a forest of segments.

A prompt is computed once; each completion attends to its prompt and to itself and to nothing else;
positions continue from the parent. Shapes: T tokens, S segments, G rows of an attention group,
Q/K its query/key columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from tunesmith.core.device import CPU

# Segments are padded inside a group to the longest of it; a group closes when its padding passes this share.
MAX_GROUP_PADDING = 0.15


@dataclass
class AttentionGroup:
    """Segments of similar length that one attention call computes.

    queries: (G, Q) flat token indices; keys: (G, K) flat indices of the ancestors and then of the segment
    itself. Short rows repeat their own last token, so a row never reads another document.
    before: (G,) tokens of the ancestors; lengths: (G,) keys that are real; both on the CPU.
    """

    queries: Tensor
    keys: Tensor
    before: Tensor
    lengths: Tensor
    _masks: dict[tuple[bool, int | None], Tensor | None] = field(default_factory=dict)

    def mask(self, causal: bool, window: int | None) -> Tensor | None:
        """(G, 1, Q, K) bool, True where a query sees a key; None where plain causal attention says the same."""
        if (causal, window) not in self._masks:
            mask = self._make_mask(causal, window)
            self._masks[causal, window] = None if mask is None else mask.to(self.queries.device)
        return self._masks[causal, window]

    def _make_mask(self, causal: bool, window: int | None) -> Tensor | None:
        num_keys = self.keys.shape[1]
        windowed = window is not None and num_keys > window
        if causal and not windowed and not bool(self.before.any()):
            return None
        query = self.before[:, None, None] + torch.arange(self.queries.shape[1])[None, :, None]  # (G, Q, 1)
        key = torch.arange(num_keys)[None, None, :]
        # A padded query keeps its own column, so that no row of the mask is empty.
        seen = key <= query if causal else (key < self.lengths[:, None, None]) | (key == query)
        if windowed:
            assert window is not None
            seen &= (key > query - window) if causal else (key - query).abs() < window
        return seen[:, None]


# Queries of one block: more would compute more of the upper half of a long row's square, fewer make small products.
BLOCK = 256


@dataclass(frozen=True)
class Block:
    """Pieces of segments that one batched product computes, all with their keys from the root on.

    queries: (G, Q) flat token indices, of which real (G,) count; before: (G,) the first query's place in its path.
    keys: (G, K) flat indices of the path, of which real_keys (G,) count.
    """

    queries: Tensor
    before: Tensor
    real: Tensor
    keys: Tensor
    real_keys: Tensor


@dataclass(frozen=True)
class Pieces:
    """Segments with their paths, a tree after another: no two trees have a token in common.

    table: (P, 5) of each the first query's token, how many queries there are, one after another; the first one's place
    in its path, where the path begins in `tokens`, and how many keys of it any of them sees. units: (U + 1,) where the
    pieces of each tree begin.
    """

    table: Tensor
    tokens: Tensor
    units: Tensor


@dataclass(frozen=True)
class Spans:
    """Segments one after another, each with its path from the root. query_starts, key_starts (S + 1,) int32: where the
    queries and keys of each begin. keys: flat indices of the paths; None where each segment's path is itself."""

    query_starts: Tensor
    key_starts: Tensor
    most_queries: int
    most_keys: int
    keys: Tensor | None


@dataclass
class Layout:
    """A forest of segments over T flat tokens.

    offsets: S + 1 starts; parents: index of the segment that each continues, -1 for a root.
    positions: (T,) index of each token in its root-to-leaf path. depth: S, tokens of the ancestors.
    """

    offsets: list[int]
    parents: list[int]
    positions: Tensor = field(init=False)
    depth: list[int] = field(init=False)
    _blocks: dict[bool, list[Block]] = field(default_factory=dict)
    _pieces: dict[bool, Pieces] = field(default_factory=dict)
    _turns: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    """Cosines and sines as they were given, and in float32."""
    device: torch.device = CPU
    """Where the indices are that a forward pass reads."""
    calls: int = 0
    """Attention calls that received this layout; the gate and the model compare it with the layers."""

    def __post_init__(self) -> None:
        self.depth = []
        for segment, parent in enumerate(self.parents):
            assert -1 <= parent < segment, "a parent comes before its children"
            self.depth.append(0 if parent < 0 else self.depth[parent] + self.length(parent))
        starts = [d - o for d, o in zip(self.depth, self.offsets, strict=False)]
        lengths = torch.tensor([self.length(s) for s in range(len(self.parents))])
        self.positions = torch.arange(self.offsets[-1]) + torch.tensor(starts).repeat_interleave(lengths)

    @cached_property
    def groups(self) -> list[AttentionGroup]:
        return [self._group(members) for members in self._plan_groups()]

    def to(self, device: torch.device) -> Layout:
        """The same with its indices on the device, and no calls yet."""
        moved = copy(self)
        for name in ("groups", "gather", "starts", "spans"):
            moved.__dict__.pop(name, None)
        moved.device, moved.positions, moved.calls = device, self.positions.to(device), 0
        return moved

    @cached_property
    def starts(self) -> Tensor:
        """(S + 1,) the offsets."""
        return torch.tensor(self.offsets, device=self.device)

    @cached_property
    def spans(self) -> Spans:
        segments = range(len(self.parents))
        starts = self.starts.int()
        most = max(map(self.length, segments))
        if max(self.parents) < 0:
            return Spans(starts, starts, most, most, None)
        paths = [self.path_tokens(s) for s in segments]
        lengths = torch.tensor([0, *map(len, paths)])
        return Spans(
            query_starts=starts,
            key_starts=lengths.cumsum(0).int().to(self.device),
            most_queries=most,
            most_keys=int(lengths.max()),
            keys=torch.cat(paths).to(self.device),
        )

    @cached_property
    def gather(self) -> Tensor:
        """(T,) where each token's output stands among the groups' outputs, one after another."""
        return self._inverse().to(self.device)

    @classmethod
    def of(cls, lengths: Sequence[int], parents: Sequence[int]) -> Layout:
        offsets = [0]
        for length in lengths:
            assert length > 0, "a segment has at least one token"
            offsets.append(offsets[-1] + length)
        return cls(offsets, list(parents))

    def length(self, segment: int) -> int:
        return self.offsets[segment + 1] - self.offsets[segment]

    @property
    def num_tokens(self) -> int:
        return self.offsets[-1]

    def path(self, segment: int) -> list[int]:
        """Segments from the root down to this one."""
        path = [segment]
        while self.parents[path[-1]] >= 0:
            path.append(self.parents[path[-1]])
        return path[::-1]

    def leaves(self) -> list[int]:
        inner = set(self.parents)
        return [s for s in range(len(self.parents)) if s not in inner]

    def path_tokens(self, segment: int) -> Tensor:
        """(depth + length,) flat indices of the root-to-segment row, on the CPU."""
        return torch.cat([torch.arange(self.offsets[s], self.offsets[s + 1]) for s in self.path(segment)])

    def _plan_groups(self) -> list[list[int]]:
        """Roots and children apart (roots need no mask), each by length, longest first."""
        groups: list[list[int]] = []
        for is_root in (True, False):
            members = [s for s in range(len(self.parents)) if (self.parents[s] < 0) == is_root]
            members.sort(key=lambda s: (-self.length(s), -self.depth[s], s))
            current: list[int] = []
            real = 0
            for segment in members:
                keys = self.depth[segment] + self.length(segment)
                widest = max([self.depth[s] + self.length(s) for s in current] + [keys])
                if current and (real + keys) < (1 - MAX_GROUP_PADDING) * widest * (len(current) + 1):
                    groups.append(current)
                    current, real = [], 0
                current.append(segment)
                real += keys
            if current:
                groups.append(current)
        return groups

    def _group(self, members: list[int]) -> AttentionGroup:
        paths = [self.path_tokens(s) for s in members]
        num_queries = max(self.length(s) for s in members)
        # Room for the padded queries' own columns as well (see AttentionGroup.mask).
        num_keys = max(self.depth[s] + num_queries for s in members)

        def stretch(indices: Tensor, width: int) -> Tensor:
            return torch.cat([indices, indices[-1:].expand(width - len(indices))])

        return AttentionGroup(
            queries=torch.stack(
                [stretch(p[self.depth[s] :], num_queries) for s, p in zip(members, paths, strict=True)]
            ).to(self.device),
            keys=torch.stack([stretch(p, num_keys) for p in paths]).to(self.device),
            before=torch.tensor([self.depth[s] for s in members]),
            lengths=torch.tensor([len(p) for p in paths]),
        )

    def _inverse(self) -> Tensor:
        """The last writer wins where padding repeats a token, so write the first occurrence last."""
        flat = torch.cat([g.queries.flatten() for g in self.groups]).cpu()
        inverse = torch.empty(self.num_tokens, dtype=torch.long)
        order = torch.arange(len(flat) - 1, -1, -1)
        inverse[flat[order]] = order
        return inverse

    def turns(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Both in float32 and contiguous. All layers of a pass get the same, so they are made once."""
        given = (cos, sin)
        if self._turns is None or any(
            a.data_ptr() != b.data_ptr() or a.shape != b.shape
            for a, b in zip(self._turns[0], given, strict=True)
        ):
            self._turns = given, (cos.float().contiguous(), sin.float().contiguous())
        return self._turns[1]

    def blocks(self, causal: bool) -> list[Block]:
        """Every token is a query of one block; its keys go as far as any of the piece's queries sees."""
        if causal not in self._blocks:
            self._blocks[causal] = self._make_blocks(causal)
        return self._blocks[causal]

    def pieces(self, causal: bool) -> Pieces:
        """The trees with most to compute first."""
        if causal not in self._pieces:
            trees: dict[int, list[tuple[int, ...]]] = {}
            paths = [self.path_tokens(segment) for segment in range(len(self.parents))]
            begins = [0, *accumulate(map(len, paths))]
            for segment, path in enumerate(paths):
                of_queries = (self.offsets[segment], self.length(segment), self.depth[segment])
                of_keys = (begins[segment], len(path))
                trees.setdefault(self.path(segment)[0], []).append((*of_queries, *of_keys))
            largest = sorted(trees.values(), key=lambda of: -sum(piece[1] * piece[4] for piece in of))
            self._pieces[causal] = Pieces(
                table=torch.tensor([piece for of in largest for piece in of]),
                tokens=torch.cat(paths),
                units=torch.tensor([0, *accumulate(map(len, largest))]),
            )
        return self._pieces[causal]

    def _cut(self, causal: bool) -> list[tuple[int, int, int, int]]:
        """Of each piece keys, queries, segment, first query in it."""
        pieces = []
        for segment in range(len(self.parents)):
            length = self.length(segment)
            for start in range(0, length, BLOCK):
                size = min(BLOCK, length - start)
                pieces.append(
                    (self.depth[segment] + (start + size if causal else length), size, segment, start)
                )
        return pieces

    def _make_blocks(self, causal: bool) -> list[Block]:
        pieces = self._cut(causal)
        pieces.sort(key=lambda p: (-p[0], -p[1], p[2], p[3]))
        groups: list[list[tuple[int, int, int, int]]] = []
        real = 0
        for piece in pieces:
            area, most = (
                piece[0] * piece[1],
                max(piece[1], max((p[1] for p in groups[-1]), default=0) if groups else 0),
            )
            if not groups or real + area < (1 - MAX_GROUP_PADDING) * groups[-1][0][0] * most * (
                len(groups[-1]) + 1
            ):
                groups.append([])
                real = 0
            groups[-1].append(piece)
            real += area
        paths = {p[2]: self.path_tokens(p[2]) for p in pieces}
        return [self._block(group, paths) for group in groups]

    def _block(self, pieces: Sequence[tuple[int, int, int, int]], paths: dict[int, Tensor]) -> Block:
        num_queries, num_keys = max(p[1] for p in pieces), pieces[0][0]
        queries = torch.zeros(len(pieces), num_queries, dtype=torch.long)
        keys = torch.zeros(len(pieces), num_keys, dtype=torch.long)
        for row, (seen, size, segment, start) in enumerate(pieces):
            first = self.depth[segment] + start
            queries[row, :size] = paths[segment][first : first + size]
            keys[row, :seen] = paths[segment][:seen]
        return Block(
            queries=queries,
            before=torch.tensor([self.depth[p[2]] + p[3] for p in pieces]),
            real=torch.tensor([p[1] for p in pieces]),
            keys=keys,
            real_keys=torch.tensor([p[0] for p in pieces]),
        )
