"""Texts cut between their words: the tokens of a word are looked up, and only new words go through the tokenizer.

A tokenizer cuts a text into words before its model sees any, and the model sees each by itself. So where a blank
between two printable characters of ASCII always begins a word, the tokens of a text are those of what stands between
such blanks, one after another. Whether it does is asked of the tokenizer's own cutting, about every two such
characters; and what comes of the first texts is held against what the tokenizer makes of them whole.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from tunesmith.data.backend import Text, encode_all

LEAST = 500
"""Texts asked for at a time from which this pays: what is asked of the tokenizer first takes as long as a thousand."""
MAX_LETTERS, OF_A_WORD = 2**23, 32
"""Characters of all words that are kept of a kind, each counted as so many more: some 50 MB of short ones."""

PROBES = (
    *(string.digits + string.ascii_letters + string.punctuation),
    *("the", "The", "THE", "000", "12345", "a1", "'s", "...", "(a)"),
)
"""What stands on both sides of the blanks that a tokenizer is asked about: printable characters, and short words."""
_BLANK = re.compile(" (?=[!-~])(?<=[!-~] )")


@dataclass(slots=True)
class Ids:
    """The token ids of a text, as of `tokenizers.Encoding`."""

    ids: list[int]


@dataclass(slots=True)
class _Kind:
    """Words that begin a text, or that follow a `blank`, with their ids, and what they count."""

    blank: str
    ids: dict[str, list[int]] = field(default_factory=dict)
    letters: int = 0


class Words:
    """What `encode_all` gives for texts without the tokens' places, by one tokenizer. around, typed: see there."""

    def __init__(self, tokenizer: Any, *, around: bool, typed: bool) -> None:
        self._tokenizer, self._around, self._typed = tokenizer, around, typed
        self._first, self._later = _Kind(""), _Kind(" ")
        self._ends: tuple[list[int], list[int]] = [], []
        self._cuts: bool | None = None

    def encode(self, texts: Sequence[Text]) -> list[Any]:
        """Of each text its `Ids`, or its encoding (a pair's always)."""
        unlike = list(dict.fromkeys(texts))
        single = [text for text in unlike if isinstance(text, str)]
        if self._cuts is None and len(single) >= LEAST:
            self._cuts = self._settled(single[:LEAST])
        made: dict[Text, Any] = dict(zip(single, self._looked_up(single), strict=True)) if self._cuts else {}
        whole = [text for text in unlike if text not in made]
        made.update(zip(whole, self._whole(whole, self._around), strict=True))
        return [made[text] for text in texts]

    def _whole(self, texts: Sequence[Text], around: bool = False) -> list[Any]:
        return (
            encode_all(self._tokenizer, texts, around=around, typed=self._typed, places=False)
            if texts
            else []
        )

    def _looked_up(self, texts: Sequence[str]) -> Iterator[Ids]:
        cut = [_BLANK.split(text) for text in texts]
        self._learn(self._first, {words[0] for words in cut})
        self._learn(self._later, set(chain.from_iterable([words[1:] for words in cut])))
        (begin, end), first, later = self._ends, self._first.ids, self._later.ids.__getitem__
        for words in cut:
            ids = chain.from_iterable(map(later, islice(words, 1, None)))
            yield Ids([*begin, *first[words[0]], *ids, *end])

    def _learn(self, kind: _Kind, words: set[str]) -> None:
        """The kind has these words at least."""
        if kind.letters > MAX_LETTERS:
            kind.ids.clear()
            kind.letters = 0
        new = sorted(words - kind.ids.keys())
        made = self._whole([kind.blank + word for word in new])
        kind.ids.update((word, encoding.ids) for word, encoding in zip(new, made, strict=True))
        kind.letters += sum(map(len, new)) + OF_A_WORD * len(new)

    def _settled(self, texts: Sequence[str]) -> bool:
        """Whether texts can be cut, by what the tokenizer says of itself and by these texts."""
        ends = self._ends_of("a")
        if ends is None or not begins_words(self._tokenizer):
            return False
        self._ends = ends
        whole = self._whole(texts, self._around)
        return all(one.ids == other.ids for one, other in zip(self._looked_up(texts), whole, strict=True))

    def _ends_of(self, probe: str) -> tuple[list[int], list[int]] | None:
        """What the tokenizer puts around a text; None where that cannot be told."""
        ids: list[int] = self._whole([probe])[0].ids
        around: list[int] = self._whole([probe], self._around)[0].ids
        places = [at for at in range(len(around)) if around[at : at + len(ids)] == ids]
        return (around[: places[0]], around[places[0] + len(ids) :]) if len(places) == 1 and ids else None


def begins_words(tokenizer: Any) -> bool:
    """Whether a blank between two printable characters of ASCII always begins a word, at the beginning of a text and
    further on, so that the tokens of both sides do not depend on each other."""
    backend = tokenizer.backend_tokenizer
    cutter, normalizer = backend.pre_tokenizer, backend.normalizer
    if cutter is None or getattr(backend.model, "dropout", None):
        return False
    if any(" " in token.content or token.rstrip for token in tokenizer.added_tokens_decoder.values()):
        return False

    def cut(text: str) -> list[str]:
        text = normalizer.normalize_str(text) if normalizer is not None else text
        return [word for word, _ in cutter.pre_tokenize_str(text)]

    begins = {word: cut(word) for word in PROBES}
    follows = {word: cut(f" {word}") for word in PROBES}
    for word in PROBES:
        row = [one for other in PROBES for one in (other, word)]
        if cut(" ".join([word, *row])) != begins[word] + [piece for one in row for piece in follows[one]]:
            return False
        if any(cut(f"{word} {other}") != begins[word] + follows[other] for other in PROBES):
            return False
    return True
