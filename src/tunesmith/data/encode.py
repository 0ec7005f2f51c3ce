"""Examples -> token rows for a head: the text (and its pair) as the tokenizer encodes it, and what the head should say.

Text never becomes a control token: `[SEP]` typed by a person is encoded as the characters it consists of.

| method | answer of an example | target of its row |
|---|---|---|
| classify | a class name | (1,) its number; IGNORED for a class that training has not seen |
| classify, multi_label | a JSON list of class names | (C,) 0 or 1 |
| regress | a number, or a JSON list of numbers | (D,) scaled by mean and standard deviation |
| tag | a JSON list of [start, end, label] spans, end exclusive | (n,) BIO tag of each token, IGNORED for special ones |
| embed | the text that belongs to it | none; see `embed_rows` |
| reward | judged completions | none; see `pair_rows` |
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.account import Account
from tunesmith.data.ahead import accounted
from tunesmith.data.backend import Asking, Text, encode_all, in_lockstep, one
from tunesmith.data.making import Making, OnLongRow, alone
from tunesmith.data.shares import Sharing
from tunesmith.data.words import Words
from tunesmith.errors import DataError, RowError
from tunesmith.types import IGNORED, SAMPLE_WEIGHT, UNSEEN, Example, Segment, TokenRow

OUTSIDE = "O"

Kind = Literal["classify", "classify_many", "regress", "tag", "embed", "reward"]
Span = tuple[int, int, str]


@dataclass
class HeadEncoder:
    """labels: names of the head's outputs, in order: classes, BIO tags, or targets. scale: mean and standard
    deviation of each target."""

    tokenizer: Any
    kind: Kind
    labels: Sequence[str]
    scale: Sequence[tuple[float, float]] = ()
    end_ids: tuple[int, ...] = ()
    unaligned: int = 0
    """Spans that begin or end inside a token, so that no tags of tokens can say them."""
    _index: dict[str, int] = field(init=False)
    _words: Words = field(init=False)

    def __post_init__(self) -> None:
        self._index = {label: number for number, label in enumerate(self.labels)}
        self._words = Words(self.tokenizer, around=True, typed=True)

    @classmethod
    def of(
        cls,
        method: Literal["classify", "regress", "tag"],
        multi_label: bool,
        tokenizer: Any,
        labels: Sequence[str],
        scale: Sequence[tuple[float, float]] = (),
    ) -> HeadEncoder:
        return cls(tokenizer, "classify_many" if multi_label else method, labels, scale)

    @property
    def template_hash(self) -> str:
        """No template; what special tokens the tokenizer puts around a text."""
        probe = json.dumps([self.tokenizer("a")["input_ids"], self.tokenizer("a", "b")["input_ids"]])
        return hashlib.sha256(probe.encode()).hexdigest()

    def describe(self) -> str:
        return f"{self.around()}; the head has {len(self.labels)} outputs"

    def size(self, row: TokenRow) -> int:
        """The tokens that must fit the model's context."""
        return row.num_tokens

    def around(self) -> str:
        """What special tokens a text stands between."""
        first, last = (self.tokenizer.decode(self.tokenizer("a")["input_ids"][at]) for at in (0, -1))
        around = f"between {first} and {last}" if first != last else "as it is"
        return f"a text goes to the model {around}"

    def row(self, example: Example, max_length: int | None = None) -> TokenRow:
        """`rows_of` one example, whose RowError is raised."""
        return one(self.rows_of([example], max_length))

    def rows_of(
        self, examples: Sequence[Example], max_length: int | None = None
    ) -> list[TokenRow | RowError]:
        """At most `max_length` tokens of each, cut at the end of the (longer) text; a RowError for an answer that is
        none."""
        return in_lockstep(
            [self._row(example) for example in examples], lambda texts: self._encode_all(texts, max_length)
        )

    def _encode_all(self, texts: Sequence[Text], max_length: int | None) -> Sequence[Any]:
        if max_length is None and self.kind != "tag":
            return self._words.encode(texts)
        return encode_all(self.tokenizer, texts, around=True, typed=True, max_length=max_length)

    def _row(self, example: Example) -> Asking[TokenRow]:
        encoded = yield as_one(texts_of(example))
        ids = np.array(encoded.ids, np.int64)
        types = encoded.type_ids if example.pair is not None and self._has_types else ()
        segment = Segment(ids, np.zeros(len(ids), np.float32))
        second = types.index(1) if 1 in types else None
        given = (
            {}
            if (weight := example.messages[-1].weight) is None
            else {SAMPLE_WEIGHT: np.array([weight], np.float32)}
        )
        return TokenRow(
            example.ref, (segment,), self._target(example, encoded), second, alone=True, given=given
        )

    @property
    def _has_types(self) -> bool:
        return "token_type_ids" in self.tokenizer.model_input_names

    def offsets(self, example: Example, max_length: int) -> list[tuple[int, int]]:
        """Of a tagger: characters of each token of the row; (0, 0) of special ones."""
        text = as_one(texts_of(example))
        (encoded,) = self._encode_all([text], max_length)
        found: list[tuple[int, int]] = encoded.offsets
        return found

    def classes(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        """(E,) the number of each example's class; IGNORED where there is none, or none that training has seen."""
        return np.array([self._index.get(e.answer, IGNORED) for e in examples], np.int64)

    def _target(self, example: Example, encoded: Any) -> NDArray[Any]:
        if not example.answer:  # a text that is only asked
            return self._nothing(encoded)
        if self.kind == "classify":
            return np.array([self._index.get(example.answer, IGNORED)], np.int64)
        if self.kind == "tag":
            return self._tags(example, encoded.offsets)
        if self.kind == "regress":
            mean, deviation = np.array(self.scale).T
            scaled: NDArray[np.float32] = ((numbers(example, len(self.labels)) - mean) / deviation).astype(
                np.float32
            )
            return scaled
        several = np.zeros(len(self.labels), np.float32)
        known = [self._index[label] for label in _json_list(example) if label in self._index]
        several[known] = 1.0
        return several

    def _nothing(self, encoded: Any) -> NDArray[Any]:
        if self.kind == "tag":
            return np.array([IGNORED if a == b else 0 for a, b in encoded.offsets], np.int64)
        return np.array([IGNORED]) if self.kind == "classify" else np.zeros(len(self.labels), np.float32)

    def _tags(self, example: Example, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        tags = np.array([IGNORED if a == b else self._index[OUTSIDE] for a, b in offsets], np.int64)
        spans = spans_of(example)
        for start, end, label in spans:
            inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > start and a < b]
            for place, token in enumerate(inside):
                name = f"{'I' if place else 'B'}-{label}"
                tags[token] = self._index.get(name, UNSEEN)
        text = texts_of(example)[0]
        kept = [s for s in spans if s[1] <= max((b for _, b in offsets), default=0)]
        said = spans_from([self.labels[t] if t >= 0 else None for t in tags], offsets, text)
        self.unaligned += len(set(kept) - set(said))
        return tags


def texts_of(example: Example) -> tuple[str, ...]:
    """The text, and the second one of a pair."""
    users = sum(m.role == "user" for m in example.messages)
    if users != 1:
        raise RowError("not_one_text", f"{users} user turns", fix="a head reads one text (and its pair)")
    return example.texts


def as_one(texts: tuple[str, ...]) -> Text:
    """A text by itself, or the two of a pair."""
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def spans_from(tags: Sequence[str | None], offsets: Sequence[tuple[int, int]], text: str) -> list[Span]:
    """BIO tags of tokens -> character spans without blanks at their edges. An I- that continues nothing begins a span.

    None: a token without a tag (special tokens).
    """
    spans: list[Span] = []
    open_: tuple[int, int, str] | None = None
    for tag, (start, end) in zip(tags, offsets, strict=True):
        if tag is None or start == end:
            continue
        kind, _, label = tag.partition("-")
        if open_ is not None and kind == "I" and label == open_[2]:
            open_ = (open_[0], end, label)
            continue
        if open_ is not None:
            spans.append(open_)
        open_ = None if kind == OUTSIDE else (start, end, label)
    if open_ is not None:
        spans.append(open_)
    return [_trimmed(span, text) for span in spans if text[span[0] : span[1]].strip()]


def _trimmed(span: Span, text: str) -> Span:
    start, end, label = span
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip()), label


def spans_of(example: Example) -> list[Span]:
    return [(int(start), int(end), str(label)) for start, end, label in _json_list(example)]


def numbers(example: Example, count: int) -> NDArray[np.float64]:
    """(count,) the targets of a row. Raises RowError for anything else than finite numbers."""
    try:
        value = json.loads(example.answer)
        found = np.array(value if isinstance(value, list) else [value], np.float64)
    except (ValueError, TypeError):
        raise RowError("not_a_number", f"'{example.answer[:40]}'", fix="write a number") from None
    if found.shape != (count,) or not np.isfinite(found).all():
        raise RowError("not_a_number", f"'{example.answer[:40]}'", fix=f"write {count} finite number(s)")
    return found


def _json_list(example: Example) -> list[Any]:
    value = json.loads(example.answer)
    if not isinstance(value, list):
        raise RowError("not_a_list", f"'{example.answer[:40]}'", fix="write a list")
    return value


def outputs_of(kind: Kind, examples: Sequence[Example], targets: Sequence[str]) -> list[str]:
    """The names of a head's outputs, from the training rows."""
    if kind == "classify":
        names = {e.answer for e in examples}
    elif kind == "classify_many":
        names = {str(label) for e in examples for label in _json_list(e)}
    elif kind == "tag":
        types = sorted({label for e in examples for _, _, label in spans_of(e)})
        return [OUTSIDE, *(f"{place}-{label}" for label in types for place in "BI")]
    else:
        return list(targets) or ["value"]
    if len(names) < 2:
        raise DataError(
            f"the training rows have {len(names)} class ({', '.join(sorted(names)) or 'none'})",
            "at least two",
            "check data.columns.label",
        )
    return sorted(names)


def span_labels(tags: Sequence[str]) -> tuple[str, ...]:
    """The labels of spans, of BIO tags."""
    return tuple(tag.removeprefix("B-") for tag in tags if tag.startswith("B-"))


def scale_of(examples: Sequence[Example], count: int) -> list[tuple[float, float]]:
    """Mean and standard deviation of each target over the training rows; a target that is constant is refused."""
    values = np.array([numbers(e, count) for e in examples])
    deviations = values.std(axis=0)
    if not (deviations > 0).all():
        raise DataError("a target has the same value in every training row", "numbers that differ")
    return [(float(m), float(d)) for m, d in zip(values.mean(axis=0), deviations, strict=True)]


def balanced_weights(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, float]:
    """rows / (classes x rows of the class), as scikit-learn's class_weight='balanced'."""
    counts = {label: sum(e.answer == label for e in examples) for label in labels}
    return {label: len(examples) / (len(labels) * n) for label, n in counts.items() if n}


def heads(encoder: HeadEncoder, max_length: int, on_long_row: OnLongRow) -> Making:
    """Rows of at most `max_length` tokens; notes count text_cut, steps_left_out and span_inside_a_token."""

    def fit(example: Example, made: list[TokenRow], notes: Counter[str]) -> list[TokenRow]:
        if encoder.size(made[0]) <= max_length:
            return made
        if on_long_row == "drop":
            return []
        (row,) = encoder.rows_of([example], max_length)
        if isinstance(row, RowError) or _says_nothing(row):
            return []
        notes["text_cut"] += 1
        if left_out := int(row.given.get("left_out", np.zeros(1))[0]):
            notes["steps_left_out"] += left_out
        return [row]

    return Making(
        lambda some: alone(encoder.rows_of(some)),
        fit,
        encoder.size,
        max_length,
        counted=lambda: encoder.unaligned,
        note="span_inside_a_token",
        targets=encoder.classes if encoder.kind == "classify" else None,
    )


def encode(
    examples: Sequence[Example],
    encoder: HeadEncoder,
    max_length: int,
    on_long_row: OnLongRow,
    account: Account,
    sharing: Sharing | None = None,
) -> Sequence[TokenRow]:
    """`accounted` rows of `heads`."""
    return accounted(examples, heads(encoder, max_length, on_long_row), account, sharing)


def _says_nothing(row: TokenRow) -> bool:
    """No step that has a label is left."""
    return "scores" in row.given and not np.isfinite(row.given["scores"]).any()
