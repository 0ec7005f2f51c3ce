"""Texts cut before their special tokens: what many rows have in common there is encoded once.

A special token cuts a text in two before anything else is done with it, so the tokens of a text are those of its
pieces, one after another, where each piece begins with its special token: no tokenizer then takes the rest for the
beginning of a text. Of a template's rows most pieces are alike (the end of a prompt, the end of a turn, a class).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Protocol

from tunesmith.data.backend import encode_all


class Encoded(Protocol):
    """A text's tokens."""

    @property
    def ids(self) -> list[int]: ...

    def token_at(self, char: int) -> int:
        """The first token that begins at the character or behind it."""


class CutEncoding:
    """ids: token ids of a text. pieces: of each the character and the token at which it begins, and its encoding."""

    __slots__ = ("ids", "pieces")

    def __init__(self, ids: list[int], pieces: list[tuple[int, int, Any]]) -> None:
        self.ids = ids
        self.pieces = pieces

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """The characters of each token."""
        return [(at + a, at + b) for at, _, encoding in self.pieces for a, b in encoding.offsets]

    def token_at(self, char: int) -> int:
        at: int
        token: int
        for at, token, encoding in reversed(self.pieces):
            if at == char and at > 0:  # the special token itself
                return token
            if at <= char:
                return token + bisect_left([start for start, _ in encoding.offsets], char - at)
        return 0


def cutter(tokenizer: Any) -> re.Pattern[str] | None:
    """Finds the places before special tokens; None where cutting there might change tokens.

    It does where a special token takes white space before it, asks for a word's end, or is written as a part of
    another added token, which may be found in its place.
    """
    added = tokenizer.added_tokens_decoder.values()
    cuts = [token for token in added if token.special and not token.normalized]
    if not cuts or any(token.lstrip or token.single_word for token in cuts):
        return None
    for cut in cuts:
        if any(_meet(other.content, cut.content) for other in added if other.content != cut.content):
            return None
    return re.compile(f"(?={'|'.join(re.escape(token.content) for token in cuts)})")


def _meet(first: str, second: str) -> bool:
    """Whether a text may hold both so that they share characters, the first before or around the second."""
    ends = range(1, min(len(first), len(second)))
    return second in first or any(first.endswith(second[:length]) for length in ends)


def encode_cut(
    tokenizer: Any, texts: Sequence[str], cut: re.Pattern[str] | None, *, typed: bool
) -> list[CutEncoding]:
    """What `encode_all` gives for texts without special tokens around them."""
    split = [[piece for piece in cut.split(text) if piece] or [""] if cut else [text] for text in texts]
    unlike = list(dict.fromkeys(piece for pieces in split for piece in pieces))
    made = {
        piece: (encoding.ids, encoding)
        for piece, encoding in zip(
            unlike, encode_all(tokenizer, unlike, around=False, typed=typed), strict=True
        )
    }
    out = []
    for pieces in split:
        ids: list[int] = []
        found = []
        at = 0
        for piece in pieces:
            more, encoding = made[piece]
            found.append((at, len(ids), encoding))
            ids += more
            at += len(piece)
        out.append(CutEncoding(ids, found))
    return out
