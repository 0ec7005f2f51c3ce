"""How many tokens a row is to a model: as training counts them, with all that a template writes around the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.backend import encode_all
from tunesmith.data.columns import JUDGED
from tunesmith.data.pairs import PairEncoder
from tunesmith.data.render import Renderer
from tunesmith.data.trees import longest_path, trees_of
from tunesmith.errors import RowError
from tunesmith.types import Example, TokenRow


@dataclass(frozen=True, slots=True)
class Size:
    """In tokens. prompt: what carries no loss. answer: what does; of several judged answers the longest. whole: all of
    the row. longest: what must fit the model's context."""

    prompt: int
    answer: int
    whole: int
    longest: int


class Measure(Protocol):
    @property
    def context(self) -> int:
        """Tokens that the model takes."""
        ...

    def describe(self) -> str: ...

    def of(self, kind: str, examples: Sequence[Example]) -> list[Size | RowError]:
        """kind: of their rows (`data.columns`). A RowError of a row that training would drop."""
        ...


@dataclass(frozen=True)
class Rendered:
    """Conversations under a chat template."""

    renderer: Renderer
    model: str
    context: int

    def describe(self) -> str:
        return f"{self.model}, {self.renderer.describe()}"

    def of(self, kind: str, examples: Sequence[Example]) -> list[Size | RowError]:
        if kind in (*JUDGED, "asked"):
            return [_of_tree(row) for row in trees_of(self.renderer, examples)]
        return [_of_rows(rows) for rows in self.renderer.rows_of(examples, "assistant")]


@dataclass(frozen=True)
class Paired:
    """A question for the encoder, an answer for the decoder."""

    encoder: PairEncoder
    model: str

    @property
    def context(self) -> int:
        return self.encoder.context

    def describe(self) -> str:
        return f"{self.model}, {self.encoder.describe()}"

    def of(self, kind: str, examples: Sequence[Example]) -> list[Size | RowError]:
        return [_of_sides(row) for row in self.encoder.rows_of(examples)]


@dataclass(frozen=True)
class Read:
    """Texts that a model reads as they are; what it answers are no tokens."""

    tokenizer: Any
    model: str
    context: int

    def describe(self) -> str:
        return f"{self.model}, which reads texts as they are"

    def of(self, kind: str, examples: Sequence[Example]) -> list[Size | RowError]:
        # `pairs` rows are two texts that are each read alone.
        texts = [[*e.texts, e.answer] if kind == "pairs" else [_one_or_two(e)] for e in examples]
        flat = [text for of_row in texts for text in of_row]
        made = iter(len(one.ids) for one in encode_all(self.tokenizer, flat, around=True, typed=True))
        sizes = [[next(made) for _ in of_row] for of_row in texts]
        return [Size(sum(n), 0, sum(n), max(n)) for n in sizes]


def _one_or_two(example: Example) -> str | tuple[str, str]:
    first, *rest = example.texts
    return (first, rest[0]) if rest else first


def _of_rows(rows: list[TokenRow] | RowError) -> Size | RowError:
    if isinstance(rows, RowError):
        return rows
    whole = sum(row.num_tokens for row in rows)
    answer = sum(row.num_supervised for row in rows)
    return Size(whole - answer, answer, whole, max(row.num_tokens for row in rows))


def _of_tree(row: TokenRow | RowError) -> Size | RowError:
    if isinstance(row, RowError):
        return row
    prompt, *answers = (len(segment.ids) for segment in row.segments)
    return Size(prompt, max(answers, default=0), row.num_tokens, longest_path(row))


def _of_sides(row: TokenRow | RowError) -> Size | RowError:
    if isinstance(row, RowError):
        return row
    source, target = (len(segment.ids) for segment in row.segments)
    return Size(source, target, source + target, max(source, target))


def figures(tokens: NDArray[np.int64]) -> dict[str, Any]:
    """Of tokens in rows (n,): least, mean, percentiles (a row's own number), most, and all together."""
    if not len(tokens):
        return {"least": 0, "mean": 0.0, "p50": 0, "p90": 0, "p99": 0, "most": 0, "all": 0}
    p50, p90, p99 = (int(x) for x in np.percentile(tokens, (50, 90, 99), method="higher"))
    return {
        "least": int(tokens.min()),
        "mean": round(float(tokens.mean()), 1),
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "most": int(tokens.max()),
        "all": int(tokens.sum()),
    }


BINS = 28


def binned(tokens: NDArray[np.int64]) -> dict[str, list[int]]:
    """edges, which are whole and stand as far apart as their ratios, and counts (one less)."""
    low, high = (max(1, int(tokens.min())), int(tokens.max()) + 1) if len(tokens) else (1, 2)
    edges = np.unique(np.geomspace(low, max(high, low + 1), BINS + 1).round().astype(np.int64))
    counts, _ = np.histogram(np.maximum(tokens, 1), edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
