"""Examples -> token rows of bounded length, all accounted for; and how to show them to a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np

from tunesmith.data.account import Account
from tunesmith.data.ahead import accounted
from tunesmith.data.flat import sizes
from tunesmith.data.making import Making, OnLongRow
from tunesmith.data.render import Renderer, Supervise
from tunesmith.data.shares import Sharing
from tunesmith.types import Example, Segment, TokenRow


def chats(renderer: Renderer, supervise: Supervise, max_length: int, on_long_row: OnLongRow) -> Making:
    """Rows of at most `max_length` tokens, each with supervised tokens.

    Notes count prompt_cut, answer_cut, text_split, split_by_turn and turns_too_long.
    """

    def fit(example: Example, made: list[TokenRow], notes: Counter[str]) -> list[TokenRow]:
        fitting = [row for row in made if row.num_tokens <= max_length]
        if len(fitting) == len(made):
            return made
        if on_long_row == "cut":
            return _cut_all(example, made, max_length, renderer, notes)
        if fitting:
            notes["turns_too_long"] += len(made) - len(fitting)
        return fitting

    return Making(
        lambda some: renderer.rows_of(some, supervise),
        fit,
        _size,
        max_length,
        counted=lambda: renderer.split_rows,
        note="split_by_turn",
    )


def tokenise(
    examples: Sequence[Example],
    renderer: Renderer,
    supervise: Supervise,
    max_length: int,
    on_long_row: OnLongRow,
    account: Account,
    sharing: Sharing | None = None,
) -> Sequence[TokenRow]:
    """`accounted` rows of `chats`."""
    return accounted(examples, chats(renderer, supervise, max_length, on_long_row), account, sharing)


def _size(row: TokenRow) -> int:
    return row.num_tokens


def _cut_all(
    example: Example, rows: Sequence[TokenRow], max_length: int, renderer: Renderer, notes: Counter[str]
) -> list[TokenRow]:
    if example.text is not None:
        notes["text_split"] += 1
        return [window for row in rows for window in windows(row, max_length)]
    out = []
    keep_first = renderer.tokenizer.bos_token_id
    for row in rows:
        short, what = cut(row, max_length, keep_first)
        if what:
            notes[what] += 1
        out.append(short)
    return out


def windows(row: TokenRow, max_length: int) -> list[TokenRow]:
    """Plain text in consecutive pieces of at most `max_length` tokens; a last piece of one token is left out."""
    ids, weights = row.segments[0].ids, row.segments[0].weights
    starts = [at for at in range(0, len(ids), max_length) if len(ids) - at > 1]
    return [_piece(row, ids[at : at + max_length], weights[at : at + max_length]) for at in starts]


def cut(
    row: TokenRow, max_length: int, keep_first: int | None = None
) -> tuple[TokenRow, Literal["", "prompt_cut", "answer_cut"]]:
    """The row in at most `max_length` (at least MIN_LENGTH) tokens, and what was cut.

    The last answer (its last run of supervised tokens) is kept, and as much as fits of what precedes it; a
    begin token (`keep_first`) stays. Only an answer that does not fit with one token before it loses its end.
    """
    ids, weights = row.segments[0].ids, row.segments[0].weights
    supervised = np.flatnonzero(weights > 0)
    stop = int(supervised[-1]) + 1  # what follows the last supervised token teaches nothing
    if stop <= max_length:
        return _piece(row, ids[:stop], weights[:stop]), ""
    gaps = np.flatnonzero(np.diff(supervised) > 1)
    start = int(supervised[gaps[-1] + 1] if len(gaps) else supervised[0])
    head = 1 if keep_first is not None and ids[0] == keep_first and start > 1 else 0
    room = max_length - head
    first = min(stop - room, start - 1)
    what: Literal["prompt_cut", "answer_cut"] = "prompt_cut" if first + room >= stop else "answer_cut"
    kept = np.r_[0:head, first : min(stop, first + room)]
    return _piece(row, ids[kept], weights[kept]), what


def _piece(row: TokenRow, ids: np.ndarray, weights: np.ndarray) -> TokenRow:
    weights = weights.copy()
    weights[0] = 0.0  # nothing precedes it any more
    return TokenRow(row.ref, (Segment(ids.copy(), weights),))


@dataclass(frozen=True)
class Preview:
    """One decoded row. spans: (text, supervised) in order, for a page that colours them."""

    spans: tuple[tuple[str, bool], ...]

    def __str__(self) -> str:
        """The text with supervised stretches in [[ ]]."""
        return "".join(f"[[{text}]]" if supervised else text for text, supervised in self.spans)


class Tokenizing(Protocol):
    @property
    def tokenizer(self) -> Any: ...


def preview(renderer: Tokenizing, row: TokenRow) -> Preview:
    """The row as text, with the tokens that carry loss marked; before each judged completion its score."""
    if "scores" in row.given:
        return _judged(renderer, row)
    ids = np.concatenate([segment.ids for segment in row.segments])
    weights = np.concatenate([segment.weights for segment in row.segments])
    return Preview(tuple(_spans(renderer, ids, weights)))


def _spans(renderer: Tokenizing, ids: np.ndarray, weights: np.ndarray) -> list[tuple[str, bool]]:
    on = weights > 0
    edges = [0, *(np.flatnonzero(np.diff(on)) + 1).tolist(), len(ids)]
    return [(str(renderer.tokenizer.decode(ids[a:b].tolist())), bool(on[a])) for a, b in pairwise(edges)]


def _judged(renderer: Tokenizing, row: TokenRow) -> Preview:
    """The prompt where it stands by itself, then a paragraph for each completion, or step."""
    answers = set(row.completions)
    scores = iter(row.given["scores"].tolist())
    spans: list[tuple[str, bool]] = []
    for index, segment in enumerate(row.segments):
        if index in answers:
            spans.append((f"\n\nscore {next(scores):g}: " if spans else f"score {next(scores):g}: ", False))
        spans += _spans(renderer, segment.ids, segment.weights)
    if "margin" in row.given:
        spans.append((f"\n\nmargin {row.given['margin'].item():g}", False))
    return Preview(tuple(spans))


def lengths(rows: Sequence[TokenRow]) -> dict[str, float]:
    """Tokens in a row: min, mean, p95, max; `supervised`: share of all tokens that carry loss. Empty: all 0."""
    if not rows:
        return {"min": 0, "mean": 0.0, "p95": 0, "max": 0, "supervised": 0.0}
    tokens, supervised = sizes(rows)
    return {
        "min": int(tokens.min()),
        "mean": float(tokens.mean()),
        "p95": int(np.percentile(tokens, 95, method="higher")),
        "max": int(tokens.max()),
        "supervised": float(supervised.sum() / tokens.sum()),
    }
